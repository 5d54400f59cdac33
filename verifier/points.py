"""Points against masks: the score of each point (paper eqs 1, 2), and what does not count as a hit (our choices).

A point scores 1 where the mask of its label, in its frame, holds its pixel. It is a miss, and the verdict says

    "alt says 'green cross', the text 'green square'"   the two name different things, and a reader sees the text
    "the same red square as point 1"                    points of one label, however spelled, on one instance: the
                                                        mask of one box, or of boxes that are nearly the same

Without the first, RL learned to write a sure thing into alt and anything into the text. Without the second, one
sure thing, pointed at often, hides a miss in eq. 3's mean. Two labels on one thing are fine.

Points that cannot be read never get here: claims.py counts them, and argos.py adds them to the mean as misses.

Before: claims.py, moments.py, asking.py (Found). Next: argos.py.
"""
import math
from dataclasses import dataclass

from verifier.claims import Point
from verifier.moments import MAX_LABELS, which_frame
from verifier.texts import thing


@dataclass
class PointVerdict:
    point: Point
    score: float        # s_i of eq. 2: 1 on the mask (the detected thing's pixels), else 0
    why: str
    boxes: list         # what the detector (or the pointing model) found for the label
    frame: int | None   # index into Media.frames; None: the point names no frame of the clip
    miss: str = ""      # the kind of miss, for counting; "" for a hit. `why` names labels and sizes, too


def score_points(media, points, found):
    """Eq. 2 for the points of one response -> a PointVerdict each.

    points: of claims.Point. found: {(frame index, label): asking.Found}, the look-ups of this response.
    """
    verdicts = [_score_point(media, point, found) for point in points]
    instances = {}  # number of a point that hits -> the instances, (frame, label, box), whose masks hold it
    spelled = {}    # (frame, what it names) -> the first spelling of that label: "red-square" is the red square
    for i, verdict in enumerate(verdicts):
        if verdict.score:
            label = verdict.point.label.lower()
            x, y = pixel(verdict.point)
            first = spelled.setdefault((verdict.frame, thing(label)), label)
            boxes = found[verdict.frame, first].instances_at(x, y)
            if not boxes:  # the detector found something else for this spelling
                first, boxes = label, found[verdict.frame, label].instances_at(x, y)
            instances[i] = [(verdict.frame, first, box) for box in boxes]
    for i, first in repeats(instances).items():
        verdicts[i].score = 0.0
        verdicts[i].miss = "same instance"
        verdicts[i].why = f"the same {verdicts[i].point.label} as point {first + 1}"
    return verdicts


def repeats(instances):
    """Which points hit only what others point at -> {such a point: the first that has one of its instances}.

    instances: {point: [the instances whose masks hold it]}. Each instance counts for one point. `assign` settles
    who gets which, so that as many points as possible get one.

    >>> repeats({0: ["left"], 1: ["left"], 2: ["left", "right"], 3: ["right"]})     # 0 has left, 2 has right
    {1: 0, 3: 2}
    """
    # BEGIN SOLUTION ex5
    owners = assign(instances)
    found = {}
    for point, held_by in instances.items():
        if point not in owners.values():
            found[point] = min(owners[instance] for instance in held_by)
    return found
    # END SOLUTION


def pixel(point):
    """The (x, y) of the pixel that a point falls into."""
    return math.floor(point.x), math.floor(point.y)


def on_mask(mask, x, y):
    """Paper eq. 2, s_i = M_i[y_i, x_i]: is this pixel on the mask? One that is outside of the picture is not.

    mask: bool (H, W), row 0 at the top. x, y: whole numbers, x to the right, y down.

    >>> import numpy as np
    >>> mask = np.array([[False, False, True]])     # 3 pixels wide, 1 high
    >>> on_mask(mask, 2, 0), on_mask(mask, 0, 0), on_mask(mask, 0, 2)
    (True, False, False)
    """
    # BEGIN SOLUTION ex2
    height, width = mask.shape
    inside = 0 <= x < width and 0 <= y < height
    return inside and bool(mask[y, x])
    # END SOLUTION


def mean_of_means(sets):
    """R_vg from the scores of its pieces: each set is averaged (eq. 3), then the means of the sets that are not
    empty (eq. 4). Nothing to check is 0 (our choice).

    sets: lists of scores. A picture has points; a clip has points, frame claims and segment claims.

    >>> mean_of_means([[1, 0], [], [1, 1, 1]])      # (.5 + 1) / 2
    0.75
    """
    # BEGIN SOLUTION ex2
    means = [sum(scores) / len(scores) for scores in sets if scores]
    return sum(means) / len(means) if means else 0.0
    # END SOLUTION


def _score_point(media, point, found):
    frame, why = which_frame(media, point.frame, point.seconds)
    if point.shown:
        why = f"alt says {point.label!r}, the text {point.shown!r}"
        return PointVerdict(point, 0.0, why, [], frame, "two names")
    if frame is None:
        return PointVerdict(point, 0.0, why, [], None, "no such frame")
    at = (frame, point.label.lower())
    if at not in found:
        why = f"one of more than {MAX_LABELS} different labels"
        return PointVerdict(point, 0.0, why, [], frame, "too many labels")
    here = found[at]
    width, height = media.frames[frame].size
    x, y = pixel(point)
    if here.boxes and on_mask(here.mask, x, y):
        return PointVerdict(point, 1.0, "on the mask", here.boxes, frame)
    inside = 0 <= x < width and 0 <= y < height
    if here.failure:
        miss, why = "teacher failed", here.failure
    elif not inside:
        miss, why = "outside", f"outside the {width} x {height} picture"
    elif not here.boxes:
        miss, why = "not found", f"no {point.label} was found"
    else:
        miss, why = "beside", "beside the mask"
    return PointVerdict(point, 0.0, why, here.boxes, frame, miss)


def assign(instances):
    """Give each point an instance of its own, as many points as possible -> {instance: point}.

    instances: {point: [the instances that it may have]}. Where masks overlap, a point moves to another of its
    instances if that makes room for one more (maximum bipartite matching by augmenting paths), so the order in
    which a response names its points cannot cost it a hit.

    >>> assign({0: ["left", "right"], 1: ["left"], 2: ["left", "right"]})
    {'left': 1, 'right': 0}
    """
    owners = {}

    def place(point, tried):
        free_first = sorted(instances[point], key=lambda instance: instance in owners)
        for instance in free_first:
            if instance in tried:
                continue
            tried.add(instance)
            if instance not in owners or place(owners[instance], tried):
                owners[instance] = point
                return True
        return False

    for point in instances:
        place(point, set())
    return owners
