"""Coverage: does the reasoning point at what the question is about? An option beyond the paper, off by default.

A point is checked against its own label, so an irrelevant true point ("the blue cross is at ...", where red
squares are to be counted) scores like a relevant one. With Argos(coverage=True), R_vg is multiplied by the share
of the things in Sample.objects that a point on target touches: "covers 1 of 2 things that the question names".
Curation's first step (app. C.1) is a source of such lists. What the detector does not find is not counted.

Before: points.py. Next: argos.py. See what it is worth: tiny/results/attacks.md.
"""
from verifier.moments import which_frame
from verifier.points import pixel


def frames_pointed_at(media, parsed):
    """Indices; a picture has one frame, pointed at or not."""
    if len(media.frames) == 1:
        return [0]
    frames = [which_frame(media, point.frame, point.seconds)[0] for point in parsed.points]
    return list(dict.fromkeys(frame for frame in frames if frame is not None))


def coverage(objects, frames, verdicts, found):
    """-> (things covered / things that are there, why); (1, "") where the question names nothing that is there.

    frames: see frames_pointed_at. verdicts: PointVerdicts. found: {(frame, label): Found}, of all objects there.
    A clip without points covers nothing.
    """
    there = covered = 0
    for name in objects:
        looked_up = {frame: found[frame, name.lower()] for frame in frames}
        masks = {frame: one.mask for frame, one in looked_up.items() if one.boxes}
        touched = False
        for verdict in verdicts:
            if verdict.score and verdict.frame in masks:
                x, y = pixel(verdict.point)
                touched = touched or bool(masks[verdict.frame][y, x])
        there += bool(masks) or not frames  # a clip without points: nobody has looked
        covered += touched
    if not there:
        return 1.0, ""
    return covered / there, f"; covers {covered} of {there} things that the question names"
