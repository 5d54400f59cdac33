"""Which frame does a point or a claim mean? A response may name one by number, by time, or by both.

    which_frame(media, frame=5, seconds=2.5)     -> (5, "")  or  (None, "frame 5 is at 1.5 seconds, not at 2.5")
    frames_shown(media, claim)                   -> ([5], "")  or, for a segment, ([5, 6, 7], "")
    look_ups(media, parsed)                      -> [(5, "red mug"), (5, "hand")]

The paper (appendix D) writes both, "in frame 5 (2.5 seconds)", and does not say what happens where they disagree.
Here the piece is a miss that says so (our choice): else a response could name every time and be right about one.

Before: claims.py (how the pieces were read). Next: argos.py (how they are scored)
"""
from verifier.answers import judged
from verifier.claims import FrameClaim

MAX_LABELS = 16  # different labels looked up per response; a point with one more scores 0 (our choice)
HALF_A_TENTH = .05 + 1e-9  # seconds; times are written in tenths, so this much is rounding


def which_frame(media, frame, seconds):
    """The frame that a point or claim refers to -> (index, "") or (None, why not). A picture has one frame.

    Number and time must agree within half the gap to the neighbouring frames; a time alone: the nearest frame.
    frame: an index from 0, or None; seconds: since the clip's start, or None.
    """
    times = media.seconds
    if frame is None and seconds is None:
        if len(times) == 1:
            return 0, ""
        return None, "names no frame"
    index = frame
    if index is None:
        index = min(range(len(times)), key=lambda i: abs(times[i] - seconds))
    if not 0 <= index < len(times):
        return None, f"frame {index} is not among the {len(times)} frames"
    if seconds is not None and abs(times[index] - seconds) > _tolerance(times, index):
        return None, f"frame {index} is at {times[index]:.1f} seconds, not at {seconds:g}"
    return index, ""


def _tolerance(times, index):
    """Half the wider gap to a neighbouring frame, in seconds; at least what rounding to tenths takes."""
    around = times[max(0, index - 1):index + 2]
    gaps = [later - earlier for earlier, later in zip(around, around[1:])]
    widest = max(gaps, default=1.0)  # a clip of one frame: a second to either side
    return max(HALF_A_TENTH, widest / 2 + 1e-9)


def frames_shown(media, claim):
    """The frames that a judge sees with a claim -> (indices, "") or ([], why none).

    A frame claim shows its own frame; a segment claim shows all frames from its start to its end.
    """
    if isinstance(claim, FrameClaim):
        index, why = which_frame(media, claim.frame, claim.seconds)
        if index is None:
            return [], why
        return [index], why
    if claim.start > claim.end:
        return [], "ends before it starts"
    earliest = claim.start - HALF_A_TENTH
    latest = claim.end + HALF_A_TENTH
    shown = [i for i, time in enumerate(media.seconds) if earliest <= time <= latest]
    return shown, "no frame lies between its times"


def look_ups(media, parsed):
    """What the points of a response have the detector look for -> [(frame index, label)], MAX_LABELS at most."""
    points = [point for point in parsed.points if not point.shown]  # a point of two names is a miss anyway
    labels = list(dict.fromkeys(point.label.lower() for point in points))[:MAX_LABELS]
    wanted = {}
    for point in points:
        frame, _ = which_frame(media, point.frame, point.seconds)
        label = point.label.lower()
        if frame is not None and label in labels:
            wanted[frame, label] = None
    return list(wanted)


def question_about(media, claim):
    """What to ask the judge about a claim -> (name of its method, what it is shown, the claim's text).

    None where no frame belongs to the claim.
    """
    shown, _ = frames_shown(media, claim)
    if not shown:
        return None
    text = judged(claim.text)
    frames = [media.frames[i] for i in shown]
    if isinstance(claim, FrameClaim):
        return "frame_claim", frames[0], text
    seconds = [media.seconds[i] for i in shown]
    return "segment_claim", frames, seconds, text


def name_frames(claim, shown):
    """The frames that the judge was shown, in words: "frame 5", "frames 5 to 7"."""
    if isinstance(claim, FrameClaim):
        return f"frame {shown[0]}"
    return f"frames {shown[0]} to {shown[-1]}"
