"""The verdict in words: what `python argos.py` prints and what stands on a card.

    answer     '2'
    outcome    1.00  yes: exact number
    spatial    0.33  yes: the sample calls for grounding
       in   1 red square (44, 28): on the mask
       OUT  2 red square (10, 70): beside the mask
       OUT    1 x malformed point tag: cannot be read, so a miss
    temporal     -   no: this is a picture
    reasoning  0.98  yes: p(answer | question, reasoning, picture)
    gate open: outcome 1.00 >= tau 0.50
    R = (0.50*1.00 + 0.25*0.33 + 0.25*0.98) / 1.00 = 0.83

Before: argos.py (Verdict). Next: cards.py (the same beside the picture)
"""


def explain(verdict):
    """argos.Verdict -> lines of text: what was selected and why, every piece, and the gate's arithmetic."""
    parsed = verdict.parsed
    answer = repr(parsed.answer[:100]) if parsed.answer else f"none ({parsed.no_answer})"
    lines = [f"answer     {answer}"]
    scores = dict(outcome=verdict.outcome, spatial=verdict.grounding, temporal=verdict.grounding, reasoning=verdict.reasoning)
    for function, choice in verdict.selected.items():
        score = scores[function]
        number_or_dash = "  - " if score is None or not choice.use else f"{score:.2f}"
        lines.append(f"{function:10} {number_or_dash}  {choice}")
        if choice.use and function in ("spatial", "temporal"):
            lines += _pieces(verdict, in_clip=function == "temporal")
    if parsed.extracted:
        lines.append(f"extracted  by the judge, from free prose: {len(parsed.points)} points, {len(parsed.frame_claims)} "
                     f"frame claims, {len(parsed.segment_claims)} segment claims")
    if parsed.dropped:
        counts = [f"{count} x {reason}" for reason, count in parsed.dropped_reasons.items()]
        lines.append("dropped    " + ", ".join(counts))
    lines.append(verdict.arithmetic)
    return "\n".join(lines)


def _pieces(verdict, in_clip):
    lines = []
    for i, v in enumerate(verdict.points, 1):
        inside = "in " if v.score else "OUT"
        moment = f" in frame {v.frame}" if in_clip and v.frame is not None else ""
        lines.append(f"   {inside} {i:2} {v.point.label} ({v.point.x:g}, {v.point.y:g}){moment}: {v.why}")
    for reason, count in verdict.parsed.unreadable.items():
        lines.append(f"   OUT    {count} x {reason}: cannot be read, so a miss")
    for v in verdict.frame_scores + verdict.segment_scores:
        agreed = "yes" if v.score else "NO "
        lines.append(f"   {agreed}    {v.claim.text[:120]!r}: {v.why}")
    return lines
