"""Something to look at once an exercise is written: it runs what you wrote, and draws or prints what came out.

    python -m exercises.show 8               # draws out/exercises/8.png
    python -m exercises.show 10 up "a shape" it

Exercises without a look of their own have a command of the project instead; each page names it. One function per
exercise, in their order: read it as the code that uses yours.

Next: exercises/README.md
"""
import sys
import time

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

import argos
import policy as P
from runs.errors import BadInput, run_main
from runs.files import read_jsonl, save_figure
from teachers.names import load_judge, load_teachers
from train_grpo import CAUSES, advantages, token_loss
from verifier.asking import Teachers
from verifier.coordinates import convert
from verifier.foils import outcome_against
from verifier.media import load_media
from verifier.samples import Sample

EXAMPLE = "tiny/example.png"  # two red squares, at (16, 44) and (68, 64), and a red cross at (68, 16)
QUESTION = "How many red squares are there?"
FOLDER = "out/exercises"


def pixels(words):
    """Exercise 3: one point, where the file has it and where the policy sees it."""
    seen = Image.open(EXAMPLE).convert("RGB")
    original = seen.resize((420, 168), Image.Resampling.NEAREST)  # as if the file were larger, and wider
    x, y = convert(16, 44, "seen", "original", original.size, seen.size)
    page = Image.new("RGB", (560, 190), "white")
    for picture, left, at in ((original, 10, (x, y)), (seen, 450, (16, 44))):
        page.paste(picture, (left, 10))
        column, row = left + at[0], 10 + at[1]
        draw = ImageDraw.Draw(page)
        draw.line((column - 9, row, column + 9, row), fill="black", width=2)
        draw.line((column, row - 9, column, row + 9), fill="black", width=2)
    save_figure(page, f"{FOLDER}/3.png")
    print(f"(16, 44) of {seen.size} is ({x:g}, {y:g}) of {original.size}: both crosses of {FOLDER}/3.png lie on "
          "the left square, or your points go astray")


def sprayed(words):
    """Exercise 5: a false point, hidden among more and more copies of a true one."""
    verifier = argos.Argos(*load_teachers(), None, use=("outcome", "grounding"))
    sample = Sample("example", QUESTION, "2", "count", EXAMPLE)
    tag = '<point x1="{}" y1="{}" alt="red square">red square</point>'
    true = tag.format(16, 44)
    false = tag.format(68, 16)  # on the red cross
    print("true points  a plain mean  R_vg")
    for n in (1, 2, 5, 10, 20):
        verdict = verifier.verify(sample, f"<think>{true * n}{false}</think><answer>2</answer>")
        print(f"{n:11d}  {n / (n + 1):12.2f}  {verdict.grounding:.2f}")


def failures(words):
    """Exercise 6: a detector that fails at one label, then one that fails at all of them."""
    detector, segmenter, pointer = load_teachers()
    works = detector.detect

    def breaks_at_one_label(image, labels):
        if "red sqare" in labels:
            raise ValueError("no such shape")
        return works(image, labels)

    def is_down(image, labels):
        raise TimeoutError("no answer from the server")

    picture = Image.open(EXAMPLE).convert("RGB")
    for detect in (breaks_at_one_label, is_down):
        detector.detect = detect
        teachers = Teachers(detector, segmenter, pointer, None)
        print(f"\nThe detector {detect.__name__.replace('_', ' ')}:")
        try:
            for label, found in teachers.find(picture, ["red square", "red sqare"]).items():
                print(f"  {label}: a mask of {found.mask.sum()} pixels. {found.failure}")
        except Exception as error:
            print(f"  {type(error).__name__}: {error}")
        print(f"  counted: {dict(teachers.failures)}")


def group(words):
    """Exercise 7: four right rollouts, rewarded for the answer only, and by Argos; and why groups die in a run."""
    rollouts = [(1, 1., .9), (1, .5, .9), (1, .5, .8), (1, 0., .9)]  # R_o, R_vg, R_rq
    print("R_o, R_vg, R_rq of a group:", *rollouts)
    rewards = {"answer only": [outcome for outcome, _, _ in rollouts],
               "Argos": [argos.gate(*rollout) for rollout in rollouts]}
    for name, values in rewards.items():
        found = advantages(torch.tensor([values], dtype=torch.float))  # (1, 4)
        print(f"{name:12} R", *[f"{value:5.2f}" for value in values],
              "  A", *[f"{value:+5.2f}" for value in found[0].tolist()])
    log = "tiny/results/runs/argos-seed0.jsonl"
    steps = [row for _, row in read_jsonl(log) if row["kind"] == "train"]
    print(f"\nDead groups of 16 in {log}, means of 20 steps:")
    for cause in ("skipped", *CAUSES):
        means = [sum(step.get(cause, 0) for step in steps[i:i + 20]) / 20 for i in range(0, len(steps), 20)]
        print(f"{cause:14}", *[f"{mean:5.1f}" for mean in means])


def loss(words):
    """Exercise 8: the loss of a token over its ratio, with and without the KL."""
    ratio = torch.linspace(.4, 1.6, 200)[None]  # (1, 200)
    start = torch.zeros_like(ratio)  # log p when it was sampled, and of the frozen base
    figure = Figure(figsize=(8, 3), layout="tight")
    for place, advantage in ((1, 1.), (2, -1.)):
        title = f"A = {advantage:+.0f}"
        axes = figure.add_subplot(1, 2, place, title=title, xlabel="ratio", ylabel="loss of a token")
        for beta in (0., 1.):
            values, _ = token_loss(ratio.log(), start, start, torch.tensor([[advantage]]), .2, .2, beta)
            axes.plot(ratio[0], values[0], label=f"beta {beta:.0f}")
        axes.legend()
    save_figure(figure, f"{FOLDER}/8.png")
    print(f"wrote {FOLDER}/8.png: where the line is flat, no gradient is left")


def prefill(words):
    """Exercise 9: rollouts of one prompt; against the fast path; one prefill against eight."""
    question = [(load_media(EXAMPLE), P.prompt("tiny", "reason", question=QUESTION))]
    plain, fast = [P.load_policy("tiny/teacher", fast=fast) for fast in (False, True)]
    rollouts = P.sample(plain, P.encode_prompts(plain, question), group_size=4, temperature=1.5)
    print(*rollouts.texts, sep="\n")
    same = [P.sample(one, P.encode_prompts(one, question), 4, greedy=True).texts for one in (plain, fast)]
    print("greedy, the fast path writes the same:", same[0] == same[1])
    for prompts in (1, 8):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            encoded = P.encode_prompts(plain, question * prompts)
            P.sample(plain, encoded, 8 // prompts, greedy=True, max_new_tokens=1)
            seconds.append(time.perf_counter() - start)
        best = 1000 * min(seconds)  # the least noisy
        print(f"to the first token of 8 rollouts, {prompts} to read: {best:.0f} ms")


TRUTH, FOILS = "a red square", ["a blue circle", "a green cross"]


def judged(words):
    """Exercise 10: what the shipped judge says about words of yours."""
    words = words or ["a red square", "the square that is red", "up", "red", "square", "a blue circle"]
    question = "What is at the bottom right?"
    judge = load_judge("tiny/teacher")
    texts = [TRUTH, *FOILS]
    asked = [("equivalent", question, text, word) for word in words for text in texts]
    replies = judge.yes_or_no(asked)
    print("Does it mean ...?    ", *[f"{text:14}" for text in texts], " paper's R_o  with foils")
    for i, word in enumerate(words):
        found = replies[3 * i:3 * i + 3]
        try:
            score, why = outcome_against(texts, found, k=2)
        except NotImplementedError:
            score, why = "not written yet", ""
        said = [f"{'yes' if reply else 'no':14}" for reply in found]
        print(f"{word[:20]:21}", *said, f" {float(found[0]):11}  {score}{why}")


SHOWN = {"3": pixels, "5": sprayed, "6": failures, "7": group, "8": loss, "9": prefill, "10": judged}


def main():
    number, *words = sys.argv[1:] or ["none"]
    if number not in SHOWN:
        raise BadInput(f"exercise {number}: there is something to look at for {', '.join(SHOWN)}; the pages of "
                       "the others name a command")
    SHOWN[number](words)


if __name__ == "__main__":
    run_main(main)
