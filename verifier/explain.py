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
    """argos.Verdict -> text: what was selected and why, every piece, and the gate's arithmetic."""
    return "\n".join(line for line, _ in reasons(verdict))


def reasons(verdict):
    """The same as [(line, good)]: True or False for a piece that counts for or against the response, else None."""
    parsed = verdict.parsed
    answer = repr(parsed.answer[:100]) if parsed.answer else f"none ({parsed.no_answer})"
    lines = [(f"answer     {answer}", None)]
    scores = dict(outcome=verdict.outcome, spatial=verdict.grounding, temporal=verdict.grounding,
                  reasoning=verdict.reasoning)
    for function, choice in verdict.selected.items():
        score = scores[function]
        number_or_dash = "  - " if score is None or not choice.use else f"{score:.2f}"
        lines.append((f"{function:10} {number_or_dash}  {choice}", None))
        if choice.use and function in ("spatial", "temporal"):
            lines += _pieces(verdict, in_clip=function == "temporal")
    if parsed.extracted:
        found = (f"{len(parsed.points)} points, {len(parsed.frame_claims)} frame claims, "
                 f"{len(parsed.segment_claims)} segment claims")
        lines.append((f"extracted  by the judge, from free prose: {found}", None))
    if parsed.dropped:
        counts = [f"{count} x {reason}" for reason, count in parsed.dropped_reasons.items()]
        lines.append(("dropped    " + ", ".join(counts), None))
    lines += [(line, None) for line in verdict.arithmetic.split("\n")]
    return lines


def _pieces(verdict, in_clip):
    lines = []
    for i, v in enumerate(verdict.points, 1):
        inside = "in " if v.score else "OUT"
        moment = f" in frame {v.frame}" if in_clip and v.frame is not None else ""
        where = f"{v.point.label} ({v.point.x:g}, {v.point.y:g}){moment}"
        lines.append((f"   {inside} {i:2} {where}: {v.why}", bool(v.score)))
    for reason, count in verdict.parsed.unreadable.items():
        lines.append((f"   OUT    {count} x {reason}: cannot be read, so a miss", False))
    for v in verdict.frame_scores + verdict.segment_scores:
        agreed = "yes" if v.score else "NO "
        lines.append((f"   {agreed}    {v.claim.text[:120]!r}: {v.why}", bool(v.score)))
    return lines
