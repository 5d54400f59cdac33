"""The page: curves, tables and rollouts in one HTML file that opens from a disk, with the gate as a toy.

A card shows one verdict. The page shows many side by side, and lets a reader turn the weights of eq. 9 and see
whom GRPO would push up then. It needs no network, no server and no library:

    verifier/page.html   the page without its data: style, text and script, to be read ("view source")
    this file            the data: verdicts as JSON, pictures as data URIs

Everything that a model or a data set wrote reaches the page as JSON in which no "<" is left, and the script
puts it there as text: it cannot become markup, nor run.

Who needs it: evaluate.py and train_grpo.py.

Run:   python -m tiny, then open out/eval/page.html
Read:  before, verifier/cards.py; next, verifier/page.html
"""
import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from runs.errors import BadInput
from runs.files import write_atomically
from verifier.cards import frames_to_show
from verifier.explain import reasons
from verifier.texts import clean

TEMPLATE = Path(__file__).with_suffix(".html")
PLACE = "DATA-GOES-HERE"    # in the template, once
MAX_BYTES = 5_000_000       # of a page: the last questions are left out of a larger one, and it says so
MAX_SIDE = 336              # px: a larger picture is embedded smaller; points lie right in any size
MAX_PNG = 28_000            # bytes: what is larger as PNG, a photograph, becomes a JPEG
MAX_FRAMES = 4              # of a clip, beside one response
MAX_TEXT = 2_000            # characters of a question or a response; MAX_LINE of each reason or label
MAX_LINE = 200
MAX_REASONS = 40            # lines under "why"
MAX_POINTS = 40             # drawn of one response; the reasons tell of all
DIM = 110                   # of 255: how dark what is off the masks becomes
RIGHT = .5                  # an answer of this R_o or more is called right


@dataclass
class Rollout:
    """One response, for the page."""
    who: str                     # the name of the model
    response: str
    verdict: object              # an argos.Verdict of the verifier that rewards: the page's gate uses its terms
    outcome: float | None = None  # R_o as measured, where another than the verdict's (verifier/watch.py)


# ---- 1. A question with its rollouts -----------------------------------------------------------------------
def question(sample, media, answers=(), group=()):
    """One question for write_page -> dict, ready for JSON.

    media: what the policy saw. answers: Rollouts that stand for themselves, one for each model, say; group: all
    Rollouts that one policy sampled, which get advantages. Points stay pixels of the picture as seen.
    """
    pictures = {}  # data URI -> its place in the list: each is embedded once
    width, height = media.frames[0].size
    return dict(id=short(sample.id), question=short(sample.question, MAX_TEXT), truth=short(sample.answer),
                kind=sample.kind, task=short(sample.task), source=short(sample.source),
                width=width, height=height,
                answers=[_rollout(one, media, pictures) for one in answers],
                group=[_rollout(one, media, pictures) for one in group],
                pictures=list(pictures))


def _rollout(rollout, media, pictures):
    verdict = rollout.verdict
    lines = reasons(verdict)
    why = [[short(line), good] for line, good in lines[:MAX_REASONS]]
    if len(lines) > MAX_REASONS:
        why.append([f"... and {len(lines) - MAX_REASONS} more lines", None])
    outcome = verdict.outcome if rollout.outcome is None else rollout.outcome
    right = None if outcome is None else outcome >= RIGHT
    fooled = right is False and verdict.outcome is not None and verdict.outcome >= RIGHT
    answer = verdict.parsed.answer
    return dict(who=short(rollout.who), answer=None if answer is None else short(answer), right=right,
                judge_only=fooled, terms=terms(verdict), behind=behind(verdict),
                frames=[_frame(frame, verdict, media, pictures) for frame in _frames(verdict, media)],
                why=why, response=short(rollout.response, MAX_TEXT))


def terms(verdict):
    """The three scores as the gate takes them: None drops out of the reward, 0 keeps its weight.

    R_rq behind a closed gate was not computed, and counts 0: as argos.py closes a verdict.
    """
    scores = dict(outcome=verdict.outcome, grounding=verdict.grounding, reasoning=verdict.reasoning)
    if behind(verdict):
        scores["reasoning"] = 0.
    return scores


def behind(verdict):
    """Was R_rq selected, but left out since the gate is closed?"""
    choice = verdict.selected.get("reasoning")
    asked = choice is not None and choice.use and verdict.outcome is not None
    return asked and verdict.reasoning is None and "reasoning" not in verdict.not_scored


def _frames(verdict, media):
    claims = verdict.frame_scores + verdict.segment_scores
    return list(frames_to_show(media, verdict.points, claims))[:MAX_FRAMES]


def _frame(frame, verdict, media, pictures):
    """A frame with what is drawn on it: places in the list of pictures, points and boxes."""
    masks = [np.asarray(mask) for (of, _), mask in verdict.masks.items() if of == frame]
    seen = [(i, point) for i, point in enumerate(verdict.points, 1) if point.frame == frame][:MAX_POINTS]
    boxes = dict.fromkeys(box for _, point in seen for box in point.boxes)  # a set that keeps its order
    seconds = media.seconds[frame] if len(media.frames) > 1 else None
    return dict(seconds=seconds, number=frame,
                picture=_place(pictures, picture_uri(media.frames[frame])),
                shade=_place(pictures, shade_uri(masks)) if np.any(masks) else None,
                points=[_point(i, point, media.frames[frame].size) for i, point in seen],
                boxes=[[box.x1, box.y1, box.x2, box.y2, short(box.label)] for box in list(boxes)[:MAX_POINTS]])


def _point(number, verdict, size):
    """A point outside the picture is shown on its rim, as on a card."""
    width, height = size
    x = min(max(verdict.point.x + .5, 0), width)  # the middle of the pixel
    y = min(max(verdict.point.y + .5, 0), height)
    good = None if verdict.score is None else bool(verdict.score)
    return dict(number=number, x=x, y=y, good=good, text=short(f"{verdict.point.label}: {verdict.why}"))


def short(text, limit=MAX_LINE):
    """A text of somebody else's without invisible characters, its middle left out where it is long.

    >>> short("a" * 150 + "b" * 150, 20)
    'aaaaaaaaaaaaaaa [...] bbbbb'
    """
    text = clean("" if text is None else str(text)[:100 * limit])
    if len(text) <= limit:
        return text
    return f"{text[:3 * limit // 4]} [...] {text[-(limit // 4):]}"


# ---- 2. Pictures -------------------------------------------------------------------------------------------
def _place(pictures, uri):
    return pictures.setdefault(uri, len(pictures))


def picture_uri(image):
    """A PIL picture -> data URI, its longer side at most MAX_SIDE: PNG, every pixel as it was, or JPEG."""
    scale = MAX_SIDE / max(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.LANCZOS)
    data = encoded(image, "PNG", optimize=True)
    if len(data) <= MAX_PNG:
        return data_uri(data, "png")
    return data_uri(encoded(image, "JPEG", quality=80), "jpeg")


def shade_uri(masks):
    """Masks of one frame, bool (H, W) each -> data URI of a shade that lies on all but their union."""
    union = np.any(masks, axis=0)  # (H, W)
    shade = Image.fromarray(np.uint8(~union))  # 1 where nothing was found
    scale = MAX_SIDE / max(shade.size)
    if scale < 1:
        shade = shade.resize([max(1, round(side * scale)) for side in shade.size], Image.NEAREST)
    shade.putpalette([0, 0, 0, 0, 0, 0])
    return data_uri(encoded(shade, "PNG", transparency=bytes([0, DIM]), bits=1, optimize=True), "png")


def encoded(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def data_uri(data, kind):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# ---- 3. Curves, tables, curation ---------------------------------------------------------------------------
def number(value):
    """A number that a log holds, None where it is none: a damaged row may hold anything.

    >>> [number(value) for value in (1, .5, True, float("nan"), 10 ** 400, "1", None)]
    [1.0, 0.5, None, None, None, None, None]
    """
    usable = type(value) in (int, float) and abs(value) < 1e9
    return float(value) if usable else None


def curve(one):
    """A runs.curves.Curve -> dict of four lists; a step that is no number is left out."""
    kept = [i for i, step in enumerate(one.steps) if number(step) is not None]
    return {name: [number(getattr(one, name)[i]) for i in kept]
            for name in ("steps", "answers", "judged", "grounding")}


def table(title, lines):
    """A Markdown table, as lines -> dict. Its second line is only dashes."""
    head, _, *rows = [[short(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
    return dict(title=short(title), head=head, rows=rows)


def read_yield(path):
    """curate.py's report.json -> what the page draws of it: bars of (name, part, whole). BadInput: it is none."""
    try:
        report = json.loads(Path(path).read_text())
        flow = [("questions", report["survived"], report["samples"]),
                ("rollouts", report["rollouts that pass"], report["rollouts"])]
        rejected = list(report["rejected"].items())
        tasks = [(task, *rate.split("/")) for task, rate in report["yield by task"].items()]
        tasks = [(short(task), int(part), int(whole)) for task, part, whole in tasks]
        counts = [count for _, *pair in flow + tasks for count in pair] + [count for _, count in rejected]
        if any(number(count) is None for count in counts):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{path}: is no report of curate.py; name the folder that it wrote, or none") from None
    return dict(flow=flow, rejected=[(short(why), count) for why, count in rejected], tasks=tasks)


# ---- 4. The file -------------------------------------------------------------------------------------------
def write_page(path, title, about, weights, tau, questions=(), curves=None, tables=(), curation=None,
               scale=True):
    """Write the page, complete or not at all, of at most MAX_BYTES.

    about: what is shown, in a sentence. weights, tau: of the run, where the toy begins. questions: of `question`;
    the last are left out of a page that would be too large. curves: {name: [Curve, one for each seed]}; tables:
    of `table`; curation: of `read_yield`; scale: are advantages divided by the group's standard deviation?
    Raises BadInput where nothing can be written there.
    """
    runs = {short(name): [curve(one) for one in several] for name, several in (curves or {}).items()}
    page = dict(title=short(title), about=short(about, MAX_TEXT), tau=tau, scale=scale, right=RIGHT,
                weights=dict(outcome=weights.outcome, grounding=weights.grounding, reasoning=weights.reasoning),
                curves=runs, tables=list(tables), curation=curation)
    before, after = TEMPLATE.read_text(encoding="utf-8").split(PLACE)
    room = MAX_BYTES - len((before + after).encode()) - len(embedded(page)) - 1000
    kept = []
    for one in questions:
        room -= len(embedded(one)) + 2
        if room < 0:
            break
        kept.append(one)
    page["left_out"] = len(questions) - len(kept)
    write_atomically(path, before + embedded(page | dict(questions=kept)) + after)


def embedded(data):
    """JSON for a <script type="application/json">: nothing in it can end the element or begin a comment.

    >>> embedded("</script> <!-- \\u2028")
    '"\\\\u003c/script\\\\u003e \\\\u003c!-- \\\\u2028"'
    """
    text = json.dumps(data, allow_nan=False)  # ASCII: U+2028 and lone surrogates are escaped
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
