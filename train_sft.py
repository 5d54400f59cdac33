"""SFT: the policy learns the paper's format, <think> reasoning that points </think><answer> ... </answer>.

The paper cold-starts Qwen2.5-VL-7B on about 85K curated samples (AdamW, batch 256, about 1000 steps; appendix
A), and shows that this alone is not enough: what SFT teaches about grounding, RL on answers alone un-teaches
(train_grpo.py).

The loss is the negative log-likelihood of the completion's tokens (the response, without the question), read
off the same scorer that GRPO will use, policy.token_logprobs: there is one place in the project where a
token's probability is computed. Prompt, picture and padding tokens never enter it. (Video-R1's SFT trains on
the prompt, too; we do not.)

Different from the paper:
  1. The vision tower is frozen (our choice).
  2. One GPU, or a few with `accelerate launch`. --preset 7b trains a LoRA adapter on 4-bit weights.
  3. No packing: every example is a row of its own, padded to the longest of its batch.

Run:
  python train_sft.py --data out/curated/sft.jsonl --out out/sft       # --resume continues bit-equal on a CPU
Qwen2.5-VL-7B: what fits into memory (and what to lower), then on one GPU, then on all GPUs of the machine:
  python train_sft.py --preset 7b --dry_run --memory_gb 24
  python train_sft.py --preset 7b --data out/curated/sft.jsonl --out out/sft
  accelerate launch train_sft.py --preset 7b --data out/curated/sft.jsonl --out out/sft

What to watch in metrics.jsonl: loss (nats per completion token), which falls fast while the format is learned
and slowly after it; damaged, which should stay 0.

Reads: JSONL in HF chat format, as curate.py writes it (messages + images/videos; several are all shown before
the text). Writes: metrics.jsonl (append-only), state.pt (weights, optimizer, step), merged/ (a plain
checkpoint: where GRPO starts), and adapter/ with --lora_rank.
Before: curate.py. Next: train_grpo.py
"""
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import trange

from runs import ledger, processes
from runs.checkpoints import follow_budget
from runs.errors import BadInput, BadMedia, run_main, warn
from runs.files import read_jsonl
from runs.settings import Settings, flag, parse_config, pixel_budget, preset_arguments
from verifier.media import load_media
from verifier.samples import MAX_TEXT
import policy as P


# ---- 1. Configuration --------------------------------------------------------------------------------------
@dataclass
class Config(Settings):
    data: str = flag("out/curated/sft.jsonl", "curated examples in HF chat format (JSONL)")
    policy: str = flag(str(Path(__file__).parent / "tiny/base"),
        "checkpoint to start from: a local folder or a hub id")
    out: str = flag("out/sft", "folder to write")
    epochs: float = flag(1., "passes over the data, where a sample stands with up to 4 rollouts (curate.py "
                             "--keep)")
    batch: int = flag(32, "examples per optimizer step (paper: 256)")
    micro_batch: int = flag(32, "examples per forward pass")
    lr: float = flag(1.5e-3, "AdamW learning rate at its peak")
    warmup: int = flag(10, "steps of linear warm-up; linear decay to zero after it")
    max_grad_norm: float = flag(1.0, "a longer gradient is scaled down to this length")
    max_new_tokens: int = flag(1024, "examples with longer completions are left out, and counted")
    checkpointing: bool = flag(False, "recompute activations in the backward pass: less memory, more time")
    fast: bool = flag(True, "score by runs/fast.py; False: the plain way, slower, the same numbers")
    lora_rank: int = flag(0, "rank of a LoRA adapter; 0 trains all weights but the vision tower")
    save_every: int = flag(50, "steps between checkpoints")
    seed: int = flag(0, "seed of the adapter's first weights and of the data order")
    resume: bool = flag(False, "continue from OUT/state.pt")
    merge: bool = flag(True, "write merged/ at the end (under nf4 the base is read once more, in bfloat16)")
    tracker: str = flag("none", "where metrics go beside metrics.jsonl: none, tensorboard or wandb")
    dry_run: bool = flag(False, "print the memory ledger and stop")
    memory_gb: float = flag(0., "refuse settings that need more GB; 0: what the GPU has free")


def check(cfg):
    """Refuse now, in one line, what would fail late."""
    for name in ("batch", "micro_batch", "save_every", "max_new_tokens"):
        if getattr(cfg, name) < 1:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    for name in ("epochs", "lr", "max_grad_norm"):
        if not 0 < getattr(cfg, name) < math.inf:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be a number above 0")


def learning_rate(step, steps, cfg):
    """Linear warm-up and linear decay to zero, whichever is lower (our choice)."""
    rising = (step + 1) / max(cfg.warmup, 1)
    falling = 1 - step / steps
    return cfg.lr * min(rising, falling)


# ---- 2. Examples -------------------------------------------------------------------------------------------
MAX_CHAT = 5 * MAX_TEXT  # characters of a turn: a sample's question stands in a prompt


def read_chats(path):
    """HF chat rows -> [(media paths, question, response)]: the row's pictures, then its clips.

    Raises BadInput, which names file, row and cure.
    """
    rows = []
    for number, row in read_jsonl(path):
        try:
            user, assistant = row["messages"][:2]
            question = first_text(user)
            response = first_text(assistant)
            names = []
            for kind in ("images", "videos"):
                names = names + (row.get(kind) or [])  # a TypeError where it is no list
            if not names:
                raise ValueError("nothing to see")
            media = [Path(path).parent / name for name in names]
            longest = max(len(question), len(response))
        except (KeyError, TypeError, ValueError, StopIteration, AttributeError):
            raise BadInput(f"{path} row {number}: not a chat example with pictures or clips; "
                           "write it with curate.py") from None
        if longest > MAX_CHAT:
            raise BadInput(f"{path} row {number}: a text of {longest:,} characters; at most {MAX_CHAT:,}: "
                           "shorten it or delete the row")
        rows.append((media, question, response))
    if not rows:
        raise BadInput(f"{path}: no examples; run curate.py first, or lower its --threshold")
    return rows


def first_text(turn):
    """The text of a chat turn; TypeError where it is none."""
    text = next(part["text"] for part in turn["content"] if part["type"] == "text")
    if not isinstance(text, str):
        raise TypeError("no text")
    return text


def leave_out_long(examples, policy, cfg, say):
    """The examples whose completion has at most --max_new_tokens tokens. say: prints how many it leaves out."""
    responses = [response for _, _, response in examples]
    lengths = [len(tokens) for tokens in P.token_lists(policy, responses)]
    short = [example for example, length in zip(examples, lengths)
             if length < cfg.max_new_tokens]  # not <=: the end token comes on top
    if len(short) < len(examples):
        too_long = len(examples) - len(short)
        say(f"{too_long} of {len(examples)} examples are longer than --max_new_tokens: left out")
    if not short:
        raise BadInput(f"{cfg.data}: every example is longer than --max_new_tokens {cfg.max_new_tokens}; "
                       "raise it")
    return short


def load_prompts(examples, cfg):
    """Load the pictures and clips of examples -> (items for P.encode_prompts, the places of their examples).

    An example with a damaged file is named on stderr and left out: its place is missing.
    """
    items = []
    places = []
    for place, (paths, question, _) in enumerate(examples):
        try:
            media = [load_media(path, **pixel_budget(cfg)) for path in paths]  # all shown before the text
        except BadMedia as error:
            warn(f"left out: {error}")
            continue
        items.append((media, question))
        places.append(place)
    return items, places


def refuse_unread(optimizer, cfg, ends):
    """Raise BadInput where an epoch, or the run, ends and nothing was learned: no file could be read.

    An optimizer keeps something of every weight from its first step on, also through --resume.
    """
    if ends and not optimizer.state:
        raise BadInput(f"{cfg.data}: none of its pictures and clips can be read: there is nothing to learn from; "
                       "the lines above name them")


# ---- 3. Training -------------------------------------------------------------------------------------------
def main():
    cfg = parse_config(Config, __doc__, preset_arguments("train_sft", Config))
    check(cfg)
    follow_budget(cfg, cfg.policy, Path(cfg.data).parent)
    accelerator = processes.start(cfg)  # one process, or several: each has its share of every batch
    ledger.check_memory(cfg, accelerator)
    if cfg.dry_run:
        return
    with processes.alone(accelerator, cfg.out):
        work(cfg, accelerator)


def work(cfg, accelerator):
    """The whole run, in a folder that is this run's alone."""
    out = Path(cfg.out)
    examples = read_chats(cfg.data)
    torch.manual_seed(cfg.seed)  # the adapter's first weights
    policy = P.load_policy(cfg.policy, lora_rank=cfg.lora_rank, dtype=cfg.dtype,
                           checkpointing=cfg.checkpointing, fast=cfg.fast)
    examples = leave_out_long(examples, policy, cfg, accelerator.print)
    parameters = list(P.trainable(policy).values())
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, betas=(.9, .99), weight_decay=0.)
    steps_per_epoch = max(1, len(examples) // cfg.batch)
    steps = max(1, round(cfg.epochs * steps_per_epoch))

    # As in train_grpo.py: a step is a function of weights, optimizer and step number, so these three are the
    # whole state.
    processes.claim(accelerator, cfg)  # now that all that was named is there
    start = P.load_state(out / "state.pt", policy, optimizer, steps) if cfg.resume else 0
    all_damaged = 0
    bar = trange(start, steps, initial=start, total=steps, desc="SFT", unit="step",
                 disable=not accelerator.is_main_process)
    for step in bar:
        phases = processes.Phases(policy.device)
        lr = learning_rate(step, steps, cfg)
        for group in optimizer.param_groups:
            group["lr"] = lr

        # 3a. The batch: the next examples in this epoch's order.
        epoch, place = divmod(step, steps_per_epoch)
        generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + epoch)
        order = torch.randperm(len(examples), generator=generator).tolist()
        batch = [examples[i] for i in order[place * cfg.batch:(place + 1) * cfg.batch]]
        # ids, mask: (B, T), with the end token.
        ids, mask = P.encode_completions(policy, [response for _, _, response in batch])
        n_tokens = mask.sum()  # of the whole batch, so that the processes' losses and gradients add up
        batch_size = len(batch)

        # 3b. This process's share of it, a micro-batch at a time.
        mine = processes.share(accelerator, len(batch))
        batch = [batch[i] for i in mine]
        ids = ids[mine]
        mask = mask[mine]
        total_loss = 0.
        damaged = 0
        for first in range(0, len(batch), cfg.micro_batch):
            part = batch[first:first + cfg.micro_batch]
            items, places = load_prompts(part, cfg)
            damaged += len(part) - len(items)
            if not items:
                continue
            rows = [first + place for place in places]
            prompts = P.encode_prompts(policy, items)
            logprobs, _ = P.token_logprobs(policy, prompts, 1, ids[rows], mask[rows])  # (b, T), 0 at padding
            loss = -logprobs.sum() / n_tokens
            loss.backward()
            total_loss += loss.item()

        # 3c. The step, with the gradients of all processes. Without an example there is none: momentum alone
        # would move the weights.
        damaged = sum(processes.gather(accelerator, [damaged]))
        all_damaged += damaged
        processes.sum_gradients(accelerator, parameters)
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm).item()
        if damaged < batch_size:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        phases.done("update")

        # 3d. The log and the checkpoint.
        total_loss = sum(processes.gather(accelerator, [total_loss]))
        processes.log(accelerator, out, dict(kind="train", step=step, loss=total_loss, lr=lr,
                                             grad_norm=grad_norm, damaged=damaged, **phases.report()))
        bar.set_postfix(loss=f"{total_loss:.3f}")
        done = step + 1
        refuse_unread(optimizer, cfg, ends=done == steps or done % steps_per_epoch == 0)
        if accelerator.is_main_process and (done % cfg.save_every == 0 or done == steps):
            P.save_state(out / "state.pt", policy, optimizer, done)
    if all_damaged:
        shown = (steps - start) * min(cfg.batch, len(examples))
        accelerator.print(f"{all_damaged} of {shown} examples had a file that cannot be read: left out")
    P.finish(accelerator, cfg, policy, trained=start < steps)


if __name__ == "__main__":
    run_main(main)
