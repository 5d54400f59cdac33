"""One response on its way through the verifier, drawn: response -> parse -> three scores -> gate -> reward.

The scene is drawn by tiny/world.py, the response is typed below, and every number in the figure is computed by
argos.py on the two, as the README's first command computes it. The answer is right and half of the evidence is
made up: there are two red squares, but the second point lies on the red cross. So the response is paid for its
answer and for one of its points. The figure's last box shows the same reasoning with another answer: behind the
closed gate (paper eq. 9) good evidence earns nothing.

Writes: tiny/example.png (the picture to verify), tiny/results/pipeline.png, tiny/results/card-example.png

Run:     python -m tiny.pipeline          # and prints the README's command with its output
Before:  README.md
Next:    argos.py
"""
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Rectangle  # noqa: E402
from PIL import Image  # noqa: E402

from argos import Argos  # noqa: E402
from runs.errors import run_main  # noqa: E402
from runs.files import save_figure  # noqa: E402
from runs.settings import flag, parse_config  # noqa: E402
from teachers.names import load_judge, load_teachers  # noqa: E402
from tiny.world import Thing, render  # noqa: E402
from verifier.cards import draw_card  # noqa: E402
from verifier.samples import Sample  # noqa: E402

FOLDER = Path(__file__).resolve().parent

# ---- 1. The example ----------------------------------------------------------------------------------------
SCENE = [Thing("red", "square", 16, 42, 9), Thing("red", "square", 70, 66, 8), Thing("red", "cross", 66, 16, 10),
         Thing("green", "square", 42, 70, 8), Thing("yellow", "triangle", 40, 16, 9)]
QUESTION, TRUTH, KIND = "How many red squares are there?", "2", "count"
REASONING = ('I see <point x1="16" y1="44" alt="red square">red square</point>, '
             '<point x1="68" y1="16" alt="red square">red square</point>. That makes 2.')
RESPONSE = f"<think>{REASONING}</think><answer>2</answer>"
WRONG = f"<think>{REASONING}</think><answer>3</answer>"
COMMAND = f"""python argos.py tiny/example.png "{QUESTION}" \\
    '{RESPONSE}' \\
    --answer {TRUTH} --kind {KIND} --card card.png"""


@dataclass
class Config:
    out: str = flag(str(FOLDER), "folder for example.png and results/")


def draw_example(path):
    """Write the picture that the README's command verifies."""
    pixels = render([SCENE], np.random.default_rng(3))  # (1, 84, 84, 3)
    save_figure(Image.fromarray(pixels[0]), path)


# ---- 2. Drawing, in inches from the lower left corner ------------------------------------------------------
WIDTH, HEIGHT = 10.67, 9.1  # 1600 px wide: twice what a page shows
LEFT, RIGHT, GAP = .3, WIDTH - .3, .22
COLUMN = (RIGHT - LEFT - 2 * GAP) / 3  # width of a score's box
INK, FAINT, LINE, PAPER = "#19202a", "#6b7280", "#cfd4dc", "#f6f7f9"
GOOD, BAD, YELLOW, BLUE = "#008c5a", "#cd2d2d", "#e6a800", "#2864c8"


def box(axes, x, y, width, height, face=PAPER, edge=LINE, line=1.2):
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=.09", facecolor=face,
                                  edgecolor=edge, linewidth=line))


def write(axes, x, y, text, size=12, color=INK, **style):
    axes.text(x, y, text, fontsize=size, color=color, **{"va": "baseline", "ha": "left", **style})


def heading(axes, x, y, number, text):
    """A step's number in a disc, and its name."""
    axes.text(x + .13, y + .065, str(number), fontsize=11, color="white", weight="bold", ha="center", va="center",
              bbox=dict(boxstyle="circle,pad=.25", facecolor=INK, edgecolor="none"))
    write(axes, x + .36, y, text, 12.5, weight="bold")


def arrow(axes, start, end, color=FAINT):
    style = dict(arrowstyle="-|>,head_width=.28,head_length=.5", color=color, linewidth=1.6, shrinkA=0, shrinkB=0)
    axes.annotate("", end, start, arrowprops=style)


def picture(axes, image, x, y, side):
    """The picture in a square of `side` inches -> a function that maps its pixels to the figure."""
    axes.imshow(image, extent=(x, x + side, y, y + side), interpolation="nearest", zorder=2, aspect="auto")
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=INK, linewidth=1, zorder=5))
    scale = side / image.size[0]

    def place(px, py):
        return x + px * scale, y + side - py * scale
    return place


def mark_points(axes, place, points):
    """Points with their numbers: green where they are on the mask, red where not."""
    for number, verdict in enumerate(points, 1):
        color = GOOD if verdict.score else BAD
        x, y = place(verdict.point.x + .5, verdict.point.y + .5)
        axes.text(x, y, str(number), fontsize=10, color="white", weight="bold", ha="center", va="center", zorder=7,
                  bbox=dict(boxstyle="circle,pad=.22", facecolor=color, edgecolor="white", linewidth=1.2))


def number_bar(axes, x, y, width, value):
    """A score as a large number with a bar below it."""
    write(axes, x, y, f"{value:.2f}", 24, weight="bold")
    axes.add_patch(Rectangle((x, y - .2), width, .1, facecolor="#e2e5ea", edgecolor="none"))
    axes.add_patch(Rectangle((x, y - .2), width * value, .1, facecolor=BLUE, edgecolor="none"))


def response_lines():
    """The response with a new line before every point, sentence and answer."""
    text = RESPONSE.replace(" <point", "\n<point").replace(" That", "\nThat").replace("<answer", "\n<answer")
    return text.split("\n")


def draw_response(axes, media, verdict, y, height):
    """Step 1: the picture, the question, and what the policy wrote."""
    place = picture(axes, media.frames[0], LEFT, y, height)
    mark_points(axes, place, verdict.points)
    x, top = LEFT + height + .3, y + height
    heading(axes, x, top - .2, 1, "Response: the policy reasons, points and answers")
    write(axes, x, top - .62, QUESTION, 14)
    write(axes, RIGHT, top - .62, f"truth: {TRUTH}", 12, FAINT, ha="right")
    box(axes, x, y, RIGHT - x, height - .8)
    colors = [GOOD if point.score else BAD for point in verdict.points]
    for i, text in enumerate(response_lines()):
        color = INK
        if text.startswith("<point"):
            color = colors.pop(0)
        elif text.startswith("<answer"):
            color = BLUE
        write(axes, x + .18, top - 1.12 - i * .26, text, 12, color, family="monospace")


def draw_parse(axes, parsed, y, height):
    """Step 2: the three things that are read out of it, each above the score that it goes to."""
    heading(axes, LEFT, y + height + .16, 2, "Parse")
    points = ", ".join(f"({point.x:g}, {point.y:g})" for point in parsed.points)
    texts = (f"answer: {parsed.answer}", f"{len(parsed.points)} points: {points}", "reasoning: all inside <think>")
    for k, text in enumerate(texts):
        x = LEFT + k * (COLUMN + GAP)
        box(axes, x, y, COLUMN, height, "white")
        write(axes, x + COLUMN / 2, y + height / 2, text, 12.5, ha="center", va="center")
        arrow(axes, (x + COLUMN / 2, y - .04), (x + COLUMN / 2, y - .58))


def draw_scores(axes, media, verdict, weights, y, height):
    """Step 3: outcome, grounding and reasoning, with what each looks at, and its weight in the sum."""
    heading(axes, LEFT, y + height + .2, 3, "Score")
    titles = (("$R_o$  outcome", "Is the answer right?"),
              ("$R_{vg}$  visual grounding", "Are the things really there?"),
              ("$R_{rq}$  reasoning quality", "Does the answer follow?"))
    for k, ((title, asked), weight) in enumerate(zip(titles, weights)):
        x = LEFT + k * (COLUMN + GAP)
        box(axes, x, y, COLUMN, height)
        write(axes, x + .18, y + height - .36, title, 13.5, weight="bold")
        write(axes, x + .18, y + height - .64, asked, 12, FAINT)
        arrow(axes, (x + COLUMN / 2, y - .04), (x + COLUMN / 2, y - .58))
        write(axes, x + COLUMN / 2 + .14, y - .36, f"× {weight:.2f}", 12.5, FAINT)
    inner = COLUMN - .36  # width inside a box's margins

    x = LEFT + .18
    number_bar(axes, x, y + 1.1, inner, verdict.outcome)
    write(axes, x, y + .48, f"“{verdict.parsed.answer}” against the truth “{TRUTH}”", 11.5)
    write(axes, x, y + .22, "a rule: " + verdict.selected["outcome"].why, 11.5)

    x += COLUMN + GAP
    side = 1.5
    image = np.asarray(media.frames[0]) / 255  # (84, 84, 3)
    mask = np.any(list(verdict.masks.values()), axis=0)  # (84, 84)
    pale = .45 * image + .55 * np.array([.93, .94, .96])
    shown = np.where(mask[..., None], image, pale)  # (84, 84, 3): what is off the masks fades
    place = picture(axes, Image.fromarray(np.uint8(shown * 255)), x, y + .17, side)
    boxes = dict.fromkeys(found for point in verdict.points for found in point.boxes)  # each once, in order
    for found in boxes:
        left, bottom = place(found.x1, found.y2)
        right, top = place(found.x2, found.y1)
        axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor=YELLOW,
                                 linewidth=2.2, zorder=6))
    mark_points(axes, place, verdict.points)
    x += side + .2
    number_bar(axes, x, y + 1.28, inner - side - .2, verdict.grounding)
    for i, point in enumerate(verdict.points):
        on = bool(point.score)
        write(axes, x, y + .76 - i * .26, f"point {i + 1} {'in' if on else 'out'}", 11.5, GOOD if on else BAD)
    write(axes, x, y + .2, f"{len(boxes)} boxes found", 10.5, FAINT)

    x = LEFT + 2 * (COLUMN + GAP) + .18
    number_bar(axes, x, y + 1.1, inner, verdict.reasoning)
    write(axes, x, y + .48, f"a teacher's p(“{verdict.parsed.answer}” | question,", 11.5)
    write(axes, x, y + .22, "reasoning, picture)", 11.5)


def gate_texts(verdict, tau):
    """-> ("gate open", "R_o = 1.00 >= tau = 0.50", the weighted sum), as the verdict has them."""
    opened = verdict.outcome >= tau
    condition = f"$R_o$ = {verdict.outcome:.2f} {'≥' if opened else '<'} $\\tau$ = {tau:.2f}"
    weighted_sum = verdict.arithmetic.split(" = ")[1].replace("*", " × ")
    return ("gate open" if opened else "gate closed"), condition, weighted_sum


def draw_gate(axes, verdict, tau, y, height):
    """Steps 4 and 5: the weighted sum behind the open gate, and the reward."""
    heading(axes, LEFT, y + height + .2, 4, "Gate")
    gate, condition, weighted_sum = gate_texts(verdict, tau)
    middle = y + height / 2
    box(axes, LEFT, y, RIGHT - LEFT, height, "#f0faf6", GOOD, 2)
    write(axes, LEFT + .18, middle + .1, gate, 14, GOOD, weight="bold")
    write(axes, LEFT + .18, middle - .24, condition, 12)
    write(axes, LEFT + 2.5, middle, weighted_sum, 12.5, va="center")
    heading(axes, LEFT + 7.0, middle - .06, 5, "Reward")
    write(axes, RIGHT - .18, middle, f"R = {verdict.reward:.2f}", 23, GOOD, weight="bold", ha="right", va="center")


def draw_closed_gate(axes, verdict, tau, y, height):
    """The same reasoning with a wrong answer, in one line."""
    gate, condition, weighted_sum = gate_texts(verdict, tau)
    box(axes, LEFT, y, RIGHT - LEFT, height, "#fdf3f3", BAD, 1.2)
    middle = y + height / 2
    write(axes, LEFT + .18, middle, f"Had it answered “{verdict.parsed.answer}”:", 12, va="center")
    write(axes, LEFT + 2.5, middle, f"{gate},  {condition},  {weighted_sum}", 12, va="center")
    write(axes, RIGHT - .18, middle, f"R = {verdict.reward:.2f}", 15, BAD, weight="bold", ha="right", va="center")


def draw_pipeline(media, right, wrong, verifier, path):
    """Write the figure. right, wrong: the verifier's verdicts on RESPONSE and on WRONG."""
    weights = (verifier.weights.outcome, verifier.weights.grounding, verifier.weights.reasoning)
    figure = plt.figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    draw_response(axes, media, right, y=6.5, height=2.3)
    draw_parse(axes, right.parsed, y=5.5, height=.45)
    draw_scores(axes, media, right, weights, y=2.43, height=2.45)
    draw_gate(axes, right, verifier.tau, y=.96, height=.85)
    draw_closed_gate(axes, wrong, verifier.tau, y=.3, height=.5)
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    save_figure(figure, path)
    plt.close(figure)


def main():
    cfg = parse_config(Config, __doc__)
    example, results = Path(cfg.out) / "example.png", Path(cfg.out) / "results"
    draw_example(example)
    verifier = Argos(*load_teachers(), load_judge(str(FOLDER / "teacher")))  # as argos.py's command line makes it
    sample = Sample("example", QUESTION, TRUTH, KIND, str(example))
    media = verifier.load(sample)
    right, wrong = verifier.verify_group(sample, [RESPONSE, WRONG], media)
    draw_pipeline(media, right, wrong, verifier, results / "pipeline.png")
    draw_card(media, sample, RESPONSE, right, right.masks, results / "card-example.png")
    print(f"$ {COMMAND}\n{right.explain()}\ncard: card.png\n")
    print(f"wrote {example}, {results}/pipeline.png and {results}/card-example.png")


if __name__ == "__main__":
    run_main(main)
