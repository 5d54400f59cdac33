"""What each fast path of runs/fast.py gives: from the plain path to the fast one, a change at a time. A script.

One policy, whose paths are switched by patches; the lines of a table take turns in one process, so that a noisy
machine is noisy for all, and the best round of each counts. Every round draws with the same seed. On a CPU the
clock is the process's CPU time, which other programs disturb least: run it with --threads 1. The update's lines
must all find the same log-probabilities and the same gradient.

Lines with "but" take one thing back from the whole, or do it another way: those that gave nothing stand there, too.

    tiny       tiny/teacher on 16 pictures of the tiny world, 8 rollouts each, which end when they end
    10m        10 M random weights, 4 x 8 rollouts, 256 vision tokens, 64 tokens each; 10m-long: 256 tokens
    7b         the 7B's shapes in bfloat16, 7 x 8, 512 vision tokens, 256 tokens each; needs a GPU

Run:     python tests/benchmark_fast.py --settings tiny 10m 10m-long --threads 1
         python tests/benchmark_fast.py --tiny     # the least of everything, to see it run
Before:  policy.py, runs/fast.py. Result: runs/README.md
"""
import argparse
import multiprocessing
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from runs import costs, fast  # noqa: E402
from runs.settings import QWEN_7B  # noqa: E402
from verifier.coordinates import Media  # noqa: E402
import policy as P  # noqa: E402
from tiny import models, world  # noqa: E402
from benchmark_models import QUESTION, build, configuration, random_model, word_tokenizer  # noqa: E402

RANK = 64


# ---- 1. Settings -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Setting:
    model: str           # "trained": tiny/teacher; else the shapes of random weights: benchmark_models.py
    prompts: int
    side: int            # of the picture of a random model, in vision tokens: 16 x 16
    new_tokens: int      # of a rollout; trained: at most
    group: int = 8       # rollouts per prompt
    updated: int = 8     # groups of the update, at most


SETTINGS = {
    "tiny": Setting("trained", 16, 3, 112),
    "10m": Setting("10m", 4, 16, 64),
    "10m-long": Setting("10m", 4, 16, 256),
    "7b": Setting("7b", 7, 23, 256, updated=1)}


def load(setting, folder):
    """-> Policy, and what it is asked: [(Media, text)]"""
    torch.manual_seed(0)
    if setting.model == "trained":
        policy = P.load_policy(ROOT / "tiny/teacher", lora_rank=RANK)
    elif setting.model == "7b":
        build("7b")
        policy = P.load_policy(QWEN_7B, lora_rank=RANK, dtype="bfloat16", checkpointing=True)
    else:
        tokenizer = word_tokenizer()
        models.save(random_model(configuration(setting.model, tokenizer)), models.build_processor(tokenizer), folder)
        policy = P.load_policy(folder, lora_rank=RANK)
    items = []
    rng = np.random.default_rng(0)
    for _ in range(setting.prompts):
        if setting.model == "trained":
            item = world.scene_item(rng)
            picture = Image.fromarray(world.render(item.frames, rng)[0])
            question = item.question
        else:
            picture = Image.new("RGB", (28 * setting.side, 28 * setting.side), (215, 215, 210))
            question = QUESTION
            policy.ban[policy.tokenizer.eos_token_id] = -torch.inf  # forced lengths
        items.append((Media([picture], [0.], picture.size), P.prompt("tiny", "reason", question=question)))
    return policy, items


# ---- 2. Switches: each takes a fast path away --------------------------------------------------------------
@contextmanager
def plainly(policy):
    """LibraryRoom and padded rows."""
    with patch.object(policy, "fast", False):
        yield


@contextmanager
def pefts_lora(policy):
    """LoRA's own forward, without autocast."""
    for layer in fast.adapted_layers(policy.model):
        if hasattr(layer, "folded"):
            del layer.folded
            del layer.forward  # the class's own comes back
        else:
            layer.cast_input_dtype_enabled = True
    try:
        with patch.object(P, "arithmetic", lambda policy: nullcontext()):
            yield
    finally:
        fast.use_fast_paths(policy.model)


def without_graph(policy):
    return patch.object(P, "has_graphs", lambda device: False)


def folded_at_every_token(policy):
    return patch.object(P, "folded_once", lambda model: nullcontext())


def leaving_at_once(policy):
    """Rows go as soon as they end."""
    return patch.object(P, "WHEN_TO_LEAVE", {False: (1, 1.), True: (1, 1.)})


def drawing_by_multinomial(policy):
    def draw(logp, top_p, generator):
        return torch.multinomial(logp.exp(), 1, generator=generator)[:, 0]

    return patch.object(P, "_draw", draw)


def keeping_all_logits(policy):
    """No chunks, and nothing computed again: the logits wait for the backward pass."""
    whole = patch.object(P, "CHUNK", 1 << 60)
    kept = patch.object(P, "checkpoint", lambda function, *args, use_reentrant: function(*args))
    return together(whole, kept)


class Dense(fast.Packed):
    """What was tried and not taken: attention of all S tokens to all S tokens under a mask."""

    def attend(self, module, query, key, value, scaling, **settings):
        if self.bias is None:
            rollouts = torch.arange(len(self.given), device=query.device)
            of_prompts = self.in_prompt.nonzero()[:, 0]                          # which prompt each token is of
            of_given = rollouts.repeat_interleave(self.given.sum(1))             # which rollout
            prompt = torch.cat([of_prompts, of_given // self.group_size])        # (S,)
            rollout = torch.cat([torch.full_like(of_prompts, -1), of_given])     # (S,) -1: of a prompt
            own = (rollout == -1) | (rollout == rollout[:, None])                # (S, S)
            self.bias = (own & (prompt == prompt[:, None])).tril()
        seen, _ = fast.sdpa_attention_forward(module, query, key, value, self.bias[None, None], scaling=scaling,
                                              **settings)
        return seen


def under_one_mask(policy):
    dense = patch.object(P, "Packed", Dense)
    known = patch.object(fast, "Packed", Dense)  # whom `attend` asks
    return together(dense, known)


@contextmanager
def together(*contexts):
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


# ---- 3. The work -------------------------------------------------------------------------------------------
def sample(setting, policy, items):
    """Pictures, vision tower and all. -> tokens of a mean rollout"""
    prompts = P.encode_prompts(policy, items)
    generator = torch.Generator(policy.device).manual_seed(0)
    rollouts = P.sample(policy, prompts, setting.group, max_new_tokens=setting.new_tokens, generator=generator)
    return rollouts.mask.sum().item() / len(rollouts.texts)


@torch.no_grad()
def generate(setting, policy, items):
    """The same by the library's generate(); special tokens are banned for it, too."""
    pictures, chats = [], []
    for media, text in items:
        pictures += media.frames
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        chats.append(policy.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    inputs = policy.processor(text=chats, images=pictures, images_kwargs=dict(do_resize=False), padding=True,
                              return_tensors="pt").to(policy.device)
    policy.core.model.rope_deltas = None
    banned = policy.ban.isinf().nonzero()[:, 0].tolist()
    with P.evaluating(policy):
        out = policy.model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True,
                                    num_return_sequences=setting.group, max_new_tokens=setting.new_tokens,
                                    suppress_tokens=banned)
    ids = out[:, inputs["input_ids"].shape[1]:]
    return (ids != policy.tokenizer.pad_token_id).sum().item() / len(ids)


class Update:
    """Forward and backward pass of a fixed batch of rollouts."""

    def __init__(self, setting, policy, items):
        self.group = setting.group
        self.items = items[:setting.updated]
        self.prompts = P.encode_prompts(policy, self.items)
        generator = torch.Generator(policy.device).manual_seed(0)
        rollouts = P.sample(policy, self.prompts, self.group, max_new_tokens=setting.new_tokens, generator=generator)
        self.ids = rollouts.ids
        self.mask = rollouts.mask
        for name, weight in P.trainable(policy).items():
            if "lora_B" in name:  # fresh ones are zero, and A then has no gradient
                torch.nn.init.normal_(weight, std=.01)

    def run(self, setting, policy, items, groups_at_once=1 << 30):
        """-> the sum of all log-probabilities and the length of the gradient, which all lines must agree on"""
        total = 0.
        for first in range(0, len(self.prompts), groups_at_once):
            some = range(first, min(first + groups_at_once, len(self.prompts)))
            rows = slice(some.start * self.group, some.stop * self.group)
            logprobs, _ = P.token_logprobs(policy, self.prompts.select(some), self.group, self.ids[rows],
                                           self.mask[rows])
            logprobs.sum().backward()
            total += logprobs.sum().item()
        gradient = torch.nn.utils.get_total_norm([p.grad for p in P.trainable(policy).values()]).item()
        policy.model.zero_grad()
        return total, gradient


# ---- 4. The lines of a table -------------------------------------------------------------------------------
@dataclass
class Line:
    name: str
    switches: list
    act: object
    seconds: float = float("inf")
    gigabytes: float = 0.
    result: object = None


SHARED = "+ a group shares its prompt's cache, written in place"


def adapter_name(policy):
    if policy.core.dtype == torch.float32:
        return "one matrix W + s B A"
    return "LoRA under autocast"


def sampling_lines(policy):
    graph = P.has_graphs(policy.device)
    lines = [Line("the library's generate()", [plainly, pefts_lora], generate),
             Line("plain", [plainly, pefts_lora], sample)]
    if graph:
        lines.append(Line(SHARED, [without_graph, pefts_lora], sample))
        lines.append(Line("+ a CUDA graph", [pefts_lora], sample))
    else:
        lines.append(Line(SHARED, [pefts_lora], sample))
    lines.append(Line(f"+ {adapter_name(policy)}: all of it", [], sample))
    if policy.core.dtype == torch.float32:
        lines.append(Line("all, but the one matrix made at every token", [folded_at_every_token], sample))
    lines.append(Line("all, but rows leave as soon as they end", [leaving_at_once], sample))
    lines.append(Line("all, but drawn by torch.multinomial", [drawing_by_multinomial], sample))
    return lines


def update_lines(policy, update):
    one_by_one = partial(update.run, groups_at_once=1)
    return [Line("plain: each row reads its prompt, padded", [plainly, pefts_lora], update.run),
            Line("+ packed: a group reads its prompt once", [pefts_lora], update.run),
            Line(f"+ {adapter_name(policy)}: all of it", [], update.run),
            Line("all, but a group at a time", [], one_by_one),
            Line("all, but a group at a time, under one S x S mask", [under_one_mask], one_by_one),
            Line("all, but the head's logits kept, not in chunks", [keeping_all_logits], update.run)]


def take_turns(lines, rounds, setting, policy, items):
    """Fill in the best seconds of each line. On a GPU the first round sets libraries up, and does not count."""
    on_gpu = policy.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    for turn in range(rounds + on_gpu):
        for line in lines:
            with together(*[switch(policy) for switch in line.switches]):
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                start = clock()
                line.result = line.act(setting, policy, items)
                if on_gpu:
                    torch.cuda.synchronize()
                    line.gigabytes = torch.cuda.max_memory_allocated() / 1e9
                if turn or not on_gpu:
                    line.seconds = min(line.seconds, clock() - start)


def check_equal(lines, dtype):
    """All lines of the update found the same; in bfloat16 to its rounding."""
    close = 1e-4 if dtype == torch.float32 else .1
    total, gradient = lines[0].result
    for line in lines:
        other_total, other_gradient = line.result
        if abs(other_total / total - 1) > close or abs(other_gradient / gradient - 1) > close:
            sys.exit(f"{line.name}: found {line.result}, and the plain path {lines[0].result}")


def show(title, lines, text):
    plain = next(line.seconds for line in lines if line.name.startswith("plain"))
    on_gpu = any(line.gigabytes for line in lines)
    print(f"\n{title}\n\n| what | seconds | times faster than plain |" + (" GB |" if on_gpu else ""))
    print("|---|---|---|" + ("---|" if on_gpu else ""))
    for line in lines:
        memory = f" {line.gigabytes:.1f} |" if on_gpu else ""
        print(f"| {line.name} | {line.seconds:.2f} | {plain / line.seconds:.2f} |{memory}")
    print(f"\n{text}", flush=True)


def at_least(setting, policy, items, tokens, fast_paths, machine):
    """Seconds of sampling and of the update by the cost model. tokens: of a mean rollout"""
    prompts = P.encode_prompts(policy, items)
    dtype = str(policy.core.dtype).removeprefix("torch.")
    cfg = costs.Config(
        policy=policy.path, judge="base", reward="outcome", dtype=dtype, lora_rank=RANK, prompts=len(items),
        group_size=setting.group, max_new_tokens=setting.new_tokens, micro_batch=1 << 30, new_tokens=tokens,
        checkpointing=policy.model.training, prompt_tokens=prompts.lengths().float().mean().item(),
        seen_tokens=(prompts.input_ids == policy.core.config.image_token_id).sum().item() / len(items))
    found = costs.phases(cfg, fast_paths)
    sampled, _, updated = [sum(machine.seconds(found[part]) for part in parts) for parts in costs.TIMED_AS.values()]
    return sampled, updated


def measure(setting, rounds):
    """-> lines of sampling, lines of the update; two texts: what the cost model says of each"""
    with tempfile.TemporaryDirectory() as folder:
        policy, items = load(setting, Path(folder) / "model")
        sampling = sampling_lines(policy)
        take_turns(sampling, rounds, setting, policy, items)
        batch = Update(setting, policy, items)
        update = update_lines(policy, batch)
        take_turns(update, rounds, setting, policy, items)
        check_equal(update, policy.core.dtype)
        machine = costs.this_machine(str(policy.core.dtype).removeprefix("torch."))
        if policy.device.type == "cpu":  # models of this size stay in the processor's cache, and never reach memory
            machine.bytes = float("inf")
        said = [[], []]
        for path in (False, True):
            sampled, _ = at_least(setting, policy, items, sampling[1].result, path, machine)
            own_tokens = batch.mask.sum().item() / len(batch.ids)
            _, updated = at_least(setting, policy, batch.items, own_tokens, path, machine)
            said[0].append(sampled)
            said[1].append(updated)
    texts = []
    for plain, quick in said:
        texts.append(f"The cost model (runs/costs.py; {machine.flop / 1e12:.3g} TFLOP/s, "
                     f"{machine.bytes / 1e9:,.0f} GB/s): at least {plain:.2f} s plainly, {quick:.2f} s with all of it.")
    return sampling, update, texts


def seconds_with_small_buffers(setting, rounds, threads):
    """In a process of its own, as malloc's setting cannot be taken back: seconds of sampling, all fast paths."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, patch.object(P, "keep_big_buffers", lambda: None):
        policy, items = load(setting, Path(folder) / "model")
        line = Line("", [], sample)
        take_turns([line], rounds, setting, policy, items)
    return line.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = ["7b"] if torch.cuda.is_available() else ["tiny", "10m"]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=here)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts (3)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU (1)")
    parser.add_argument("--tiny", action="store_true", help="the least of everything, to see it all run")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.settings:
        setting = SETTINGS[name]
        if args.tiny:
            model = "tiny" if setting.model == "7b" else setting.model
            setting = replace(setting, model=model, prompts=2, side=2, new_tokens=8, group=2)
        rounds = 1 if args.tiny else args.rounds
        sampling, update, texts = measure(setting, rounds)
        if not torch.cuda.is_available():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds = pool.apply(seconds_with_small_buffers, (setting, rounds, args.threads))
            sampling.append(Line("all, but malloc gives large buffers back", [], None, seconds))
        ours = next(line.result for line in sampling if line.name == "plain")
        theirs = sampling[0].result
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {args.threads} thread(s)"
        show(f"{name}, sampling: {setting.prompts} x {setting.group} rollouts, {ours:.1f} tokens each (the library's "
             f"own: {theirs:.1f}); {where}, best of {rounds}", sampling, texts[0])
        groups = min(setting.updated, setting.prompts)
        show(f"{name}, update: {groups} groups of {setting.group}, forward and backward", update, texts[1])


if __name__ == "__main__":
    main()
