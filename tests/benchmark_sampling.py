"""Group sampling here against the library's generate(num_return_sequences=G), side by side. A script, not a test.

Same model, same prompts, same number of new tokens (the end token is banned for both), same ban on special
tokens. Rounds alternate, so that a noisy machine is noisy for both, and the best round of each counts.
Sampling here may be faster for three reasons: the vision tower and the prompt run once per prompt, not once
per rollout; the cache does not copy itself at every token; and a step does only what a step needs. Without
--model a random model of the tiny preset's size is built.

Run:     python tests/benchmark_sampling.py --prompts 16 --group 8 --tokens 60
Before:  policy.py, section 3
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import policy as P  # noqa: E402
from verifier.coordinates import Media  # noqa: E402
from tiny import models, world  # noqa: E402

QUESTION = "How many red squares are there? Think and point."


def random_model(folder):
    torch.manual_seed(0)
    tokenizer = models.build_tokenizer([QUESTION])
    models.save(models.build_model(tokenizer, "base"), models.build_processor(tokenizer), folder)
    return folder


def draw(clips, count):
    """`count` pictures or clips of the tiny world."""
    rng = np.random.default_rng(0)
    mix = (0, 1, 0) if clips else (1, 0, 0)
    shown = []
    for _ in range(count):
        pixels = world.draw_item(rng, mix=mix).pixels
        frames = [Image.fromarray(frame) for frame in pixels]
        seconds = [i / world.FPS for i in range(len(frames))]
        shown.append(Media(frames, seconds, (world.SIZE, world.SIZE)))
    return shown


def ours(policy, shown, group, tokens):
    prompts = P.encode_prompts(policy, [(m, QUESTION) for m in shown])
    return P.sample(policy, prompts, group, max_new_tokens=tokens).ids


@torch.no_grad()
def library(policy, shown, group, tokens):
    if len(shown[0].frames) == 1:
        kind = "image"
        seen = dict(images=[m.frames[0] for m in shown])
    else:
        kind = "video"
        times = [dict(total_num_frames=len(m.frames), fps=world.FPS, frames_indices=list(range(len(m.frames))))
                 for m in shown]
        seen = dict(videos=[m.frames for m in shown], videos_kwargs=dict(video_metadata=times))
    messages = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": QUESTION}]}]
    chat = policy.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = policy.processor(text=[chat] * len(shown), padding=True, return_tensors="pt", **seen).to(policy.device)
    policy.core.model.rope_deltas = None
    banned = policy.ban.isinf().nonzero()[:, 0].tolist()
    out = policy.model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                                num_return_sequences=group, max_new_tokens=tokens, suppress_tokens=banned)
    return out[:, inputs["input_ids"].shape[1]:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder; a random tiny one when left out")
    parser.add_argument("--lora", type=int, default=16, help="rank of a fresh adapter, 0 for none")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8, help="rollouts per prompt")
    parser.add_argument("--tokens", type=int, default=60, help="new tokens of every rollout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clips", action="store_true", help="clips instead of pictures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        policy = P.load_policy(args.model or random_model(Path(folder) / "tiny"), lora_rank=args.lora)
    policy.ban[policy.tokenizer.eos_token_id] = -torch.inf
    shown = draw(args.clips, args.prompts)
    best = {ours: float("inf"), library: float("inf")}
    for _ in range(args.repeats):
        for run in best:
            started = time.perf_counter()
            ids = run(policy, shown, args.group, args.tokens)
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            best[run] = min(best[run], time.perf_counter() - started)
            assert ids.shape == (args.prompts * args.group, args.tokens), ids.shape
    rows = args.prompts * args.group
    print(f"{rows} rollouts ({args.prompts} prompts x {args.group}) of {args.tokens} tokens, "
          f"{'clips' if args.clips else 'pictures'}, {policy.device}, {torch.get_num_threads()} threads, "
          f"best of {args.repeats}")
    for name, run in (("sample (here)", ours), ("generate (library)", library)):
        seconds = best[run]
        print(f"{name:20} {seconds:7.2f} s   {rows * args.tokens / seconds:9.0f} tokens/s   "
              f"{seconds / args.tokens * 1e3:6.1f} ms per step")
    print(f"ratio {best[library] / best[ours]:.2f}")


if __name__ == "__main__":
    main()
