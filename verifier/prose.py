"""Claims in free prose: where rules read none in the reasoning about a clip, a judge lists them (paper, appendix D: all of them).

Before: claims.py (what rules read), asking.py. Next: argos.py
"""
from verifier.answers import MAX_THINK, judged
from verifier.asking import ItemFailed
from verifier.claims import read_claims


def add_claims(teachers, responses):
    """Ask for the claims of each Parsed that has none, and add them. Equal texts are asked once. Raises TeacherFailed."""
    prose = []
    for parsed in responses:
        text = judged(parsed.think, MAX_THINK)
        if text and not (parsed.points or parsed.frame_claims or parsed.segment_claims):
            prose.append((parsed, text))
    if not prose:
        return
    texts = list(dict.fromkeys(text for _, text in prose))
    replies = dict(zip(texts, teachers.list_claims(texts)))
    for parsed, text in prose:
        reply = replies[text]
        read_claims("" if isinstance(reply, ItemFailed) else reply, parsed)
