"""Argos in one file: how a model learns from its own responses to questions about pictures (GRPO).

    read   '.. <point x1="44" y1="28" alt="red square"> ..' -> the points, the answer
    R_o    is the answer right?                                                    paper eq. 6
    R_vg   detect what a point names, segment it: is the point on the mask? Mean.  paper eqs 1-3
    R      gate: evidence adds to a right answer, and to nothing else              paper eq. 9
    A      (R - mean) / std: how much better than the rest of its group            paper eq. 10
    loss   -A log p(response): more of what was better, less of what was worse     paper eq. 11

Two models learn, one from its answers alone (R = R_o), one from Argos (R = gate). Both start from tiny/base,
which never wrote <think>: a cold start shows it responses written from the scenes' truth. In one of three x
and y are swapped, a common bug, put in by hand so that RL has something to repair.

Left out: videos (verifier/claims.py, verifier/media.py); judge, R_rq (argos.py, teachers/judges.py); hostile
text, kinds of answers (verifier/answers.py); failing teachers (verifier/asking.py); one prefill per group
(policy.py); clipped ratio, KL, other losses, resume, processes (train_grpo.py); curation (curate.py).
Run: python nano.py (under 4 minutes on one CPU core; draws out/nano.png). Next: argos.py, the full verifier.
"""
import argparse
import copy
import re
from pathlib import Path
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from tiny.pixels import PixelDetector, PixelSegmenter
from tiny.world import render, scene_item

BASE, DETECTOR, SEGMENTER = Path(__file__).parent / "tiny/base", PixelDetector(), PixelSegmenter()
QUESTIONS, G, COLD_STEPS, HELD_OUT = 8, 8, 60, 256  # a step asks 8 questions and gets 8 responses to each
W_O, W_VG, TAU = 2 / 3, 1 / 3, .5  # argos.py's .5 and .25, rescaled as there is no R_rq (our choice)
ASK = ("<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{} Think and point.<|im_end|>\n"
       "<|im_start|>assistant\n")  # the prompt that the shipped model was trained on, word for word
POINT = re.compile(r'<point x1="(\d+)" y1="(\d+)" alt="([^"]+)">[^<]*</point>')
SWAPPED = r'<point x1="\2" y1="\1" alt="\3">\3</point>'

def read(response):
    """A response -> its answer, and its points, each once (our choice); nothing where it has another form."""
    parts = re.fullmatch("<think>(.*)</think><answer>(.*)</answer>", response)
    if parts is None:
        return "", []
    return parts[2], list(dict.fromkeys((int(x), int(y), label) for x, y, label in POINT.findall(parts[1])))

def ground(image, points):
    """Is each point on the thing that it names? 1 or 0, paper eqs 1 and 2."""
    hits = []
    for x, y, label in points:
        boxes = DETECTOR.detect(image, [label])[0]  # D(I, o)
        masks = SEGMENTER.segment(image, boxes)     # (boxes, H, W)  S(I, D(I, o)), eq. 1
        mask = masks.any(axis=0)                    # (H, W)  of several such things any will do (our choice)
        hits.append(int(x < image.width and y < image.height and mask[y, x]))  # eq. 2: row y, column x
    return hits

def score(item, response):
    """R_o and R_vg of one response."""
    answer, points = read(response)
    hits = ground(item.image, points)
    r_o = float(answer.lower() == item.answer)      # paper eq. 6
    r_vg = sum(hits) / max(len(hits), 1)            # paper eq. 3; no points are no evidence: 0 (our choice)
    return r_o, r_vg

def gate(r_o, r_vg):
    """R, paper eq. 9. Two examples: right, with one of two points there; wrong, with all of them there.
    >>> round(gate(r_o=1, r_vg=.5), 2), gate(r_o=0, r_vg=1)  # 2/3 + 1/3 * .5, and nothing
    (0.83, 0.0)
    """
    if r_o < TAU:
        return W_O * r_o
    return W_O * r_o + W_VG * r_vg

def load():
    processor = AutoProcessor.from_pretrained(BASE)
    words = processor.tokenizer
    words.padding_side = "left"               # a prompt ends where its response begins
    model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32)  # 16 bits train badly
    model.model.visual.requires_grad_(False)  # the eyes stay as they are
    banned = [i for i, word in words.added_tokens_decoder.items() if word.special and i != words.eos_token_id]
    banned += range(len(words), model.config.text_config.vocab_size)  # no picture tokens; top_k 0: all others
    model.generation_config.update(do_sample=True, top_k=0, max_new_tokens=112, suppress_tokens=banned)
    return model, processor

def new_item(rng):
    item = scene_item(rng, task=rng.choice(["count", "exist", "color"]))
    item.image = Image.fromarray(render(item.frames, rng)[0])  # always a fresh one: nothing is asked twice
    return item

def encode(processor, items):
    """The model's inputs, a row for each item: ids, mask and kinds of its tokens, each (N, P), and pixels."""
    texts = [ASK.format(item.question) for item in items]
    return processor(text=texts, images=[item.image for item in items], padding=True, return_tensors="pt")

def respond(model, processor, items):
    """Sample a response to each item -> prompts; ids and mask, each (N, T); texts; R_o and R_vg (N, 2)."""
    prompts = encode(processor, items)
    ids = model.generate(**prompts)[:, prompts["input_ids"].shape[1]:]  # (N, T)
    ends = (ids == processor.tokenizer.eos_token_id).long()             # (N, T)
    mask = (ends.cumsum(dim=1) - ends == 0).long()                      # (N, T)  1 up to the first end token
    texts = processor.batch_decode(ids, skip_special_tokens=True)
    return prompts, ids, mask, texts, np.array([score(item, text) for item, text in zip(items, texts)])

def log_probs(model, prompts, ids, mask):
    """log p of each token -> (N, T), 0 at padding. Wrong without mm_token_type_ids, and nothing complains."""
    more = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": torch.zeros_like(ids)}  # 0: text
    both = {name: torch.cat([prompts[name], more[name]], dim=1) for name in more}  # (N, P+T)
    logits = model(**(dict(prompts) | both), use_cache=False).logits               # (N, P+T, V)
    logits = logits[:, -ids.shape[1] - 1:-1]             # (N, T, V)  each place predicts the NEXT token
    logits[..., model.generation_config.suppress_tokens] = -torch.inf
    logp = logits.log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]            # (N, T)
    return logp.masked_fill(mask == 0, 0)

def advantages(rewards):
    """A, eq. 10: standard deviations above the group's mean; 0 where all are equal. (B, G) -> (B, G)"""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-6)

def policy_loss(logp, mask, advantage):
    """-A log p, mean over tokens, then responses. logp, mask (N, T), advantage (N,). Paper eq. 11 weighs A by
    a ratio, p now / p when sampled, clipped near 1. Here each batch is used once: the ratio is 1, the clip
    idle, and plain policy gradient is left (ratio, clip and KL: train_grpo.py)."""
    return -(advantage * (logp * mask).sum(dim=1) / mask.sum(dim=1)).mean()

def learn(model, optimizer, prompts, ids, mask, advantage):
    optimizer.zero_grad()
    policy_loss(log_probs(model, prompts, ids, mask), mask, advantage).backward()
    optimizer.step()

def cold_start(model, processor, rng):
    """Learn from examples instead of rewards: the same loss, with A = 1 for each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(COLD_STEPS):
        items = [new_item(rng) for _ in range(32)]
        thinks = [POINT.sub(SWAPPED, i.think) if rng.random() < 1 / 3 else i.think for i in items]
        texts = [f"<think>{t}</think><answer>{i.answer}</answer><|im_end|>" for t, i in zip(thinks, items)]
        rows = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        learn(model, optimizer, encode(processor, items), rows.input_ids, rows.attention_mask, torch.ones(32))

def train(model, processor, arm, steps, rng):
    """GRPO -> R_o and R_vg, the mean of each group: (steps, B, 2)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    history = []
    for step in range(steps):
        items = [new_item(rng) for _ in range(QUESTIONS)]
        rows = [item for item in items for _ in range(G)]  # row b * G + g: response g to item b
        prompts, ids, mask, texts, scores = respond(model, processor, rows)
        earned = [gate(r_o, r_vg) if arm == "Argos" else r_o for r_o, r_vg in scores]
        rewards = torch.tensor(earned).view(QUESTIONS, G)  # (B, G)
        advantage = advantages(rewards)                    # (B, G)
        if step == 0 and arm == "Argos":
            b = int(rewards.std(dim=1).argmax())           # the group that teaches most
            show(items[b], texts[b * G:(b + 1) * G], rewards[b], advantage[b])
        learn(model, optimizer, prompts, ids, mask, advantage.flatten())
        history.append(scores.reshape(QUESTIONS, G, 2).mean(axis=1))  # per question: its G responses are akin
        if step % 10 == 9:
            print(f"{arm:11}  steps {step - 8:2}-{step + 1:2}  {summary(np.concatenate(history[-10:]))}")
    return np.array(history)

def show(item, texts, rewards, advantage):
    print(f"\n{item.question} {item.answer}.\n    A     R  R_o  R_vg  points there, each once; the response")
    for text, r, a in zip(texts, rewards, advantage):
        r_o, r_vg = score(item, text)
        hits = ground(item.image, read(text)[1])
        print(f"{a:+.2f}  {r:.2f}  {r_o:3.0f}  {r_vg:.2f}  {hits}", POINT.sub(r"\3 (\1, \2)", text))

def summary(scores):
    means, errors = scores.mean(axis=0), scores.std(axis=0) / len(scores) ** .5
    return f"answers {means[0]:.3f} ({errors[0]:.3f})  R_vg {means[1]:.3f} ({errors[1]:.3f})"

def draw(curves):
    figure = Figure(figsize=(8, 3), layout="tight")
    for k, name in enumerate(("answers", "R_vg")):
        axes = figure.add_subplot(1, 2, k + 1, title=name, xlabel="step (mean of ten)", ylim=(.5, 1))
        for arm, curve in curves.items():
            axes.plot(np.convolve(curve[:, :, k].mean(axis=1), np.ones(10) / 10, "valid"), label=arm)
    axes.legend()
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/nano.png", dpi=120)

def main(arguments=None):
    parser = argparse.ArgumentParser(description="GRPO, rewarded for answers alone and by Argos")
    parser.add_argument("--steps", type=int, default=40, help="steps of GRPO with each reward")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and sampling")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # several would mostly wait for each other: the model is small
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    first, processor = load()
    cold_start(first, processor, rng)
    held_out = [new_item(rng) for _ in range(HELD_OUT)]
    print(f"mean (std error)\ncold start   held out     {summary(respond(first, processor, held_out)[-1])}")
    curves = {}
    for arm in ("answer only", "Argos"):
        model = copy.deepcopy(first)
        curves[arm] = train(model, processor, arm, args.steps, np.random.default_rng([args.seed, 1]))
        print(f"{arm:11}  held out     {summary(respond(model, processor, held_out)[-1])}")
    draw(curves)

if __name__ == "__main__":
    main()
