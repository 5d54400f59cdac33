"""SFT: the policy learns the paper's format from curated rollouts: <think> reasoning that points </think><answer> ... </answer>.

The paper cold-starts Qwen2.5-VL-7B on about 85K curated samples (AdamW, batch 256, about 1000 steps; appendix A), and shows
that this alone is not enough: what SFT teaches about grounding, RL on answers alone un-teaches (train_grpo.py).

The loss is the negative log-likelihood of the completion's tokens, read off the same scorer that GRPO will use
(`policy.token_logprobs`), so there is one place in the project where a token's probability is computed. Prompt, picture and
padding tokens never enter it. (Video-R1's SFT trains on the prompt too; we do not.)

What is simplified: no packing; the vision tower is frozen. `--lora_rank 64` trains an adapter instead of all language weights.

Run:   python train_sft.py --data out/curated/sft.jsonl --out out/sft          # --resume continues bit-equal on a CPU
       python train_sft.py --preset 7b --dry_run --memory_gb 24               # Qwen2.5-VL-7B: what fits, before anything is loaded
       accelerate launch train_sft.py --preset 7b ...                         # all GPUs of the machine
Reads: JSONL in HF chat format, as curate.py writes it (messages + images/videos; several are all shown before the text).
Writes: metrics.jsonl (append-only), state.pt (weights, optimizer, step) and merged/ (a plain checkpoint: where GRPO starts);
       adapter/ with --lora_rank.
Before: curate.py. Next: train_grpo.py
"""
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import trange

from runs import ledger, processes
from runs.errors import BadInput, BadMedia, run_main
from runs.files import read_jsonl
from runs.settings import Settings, parse_config, pixel_budget, preset_arguments
from verifier.media import load_media
import policy as P


@dataclass
class Config(Settings):
    data: str = field(default="out/curated/sft.jsonl", metadata={"help": "curated examples in HF chat format"})
    policy: str = field(default=str(Path(__file__).parent / "tiny/base"), metadata={"help": "checkpoint to start from: a local folder or a hub id"})
    out: str = field(default="out/sft", metadata={"help": "folder to write"})
    epochs: float = field(default=1., metadata={"help": "passes over the data, where a sample stands with up to 4 rollouts (curate.py --keep)"})
    batch: int = field(default=32, metadata={"help": "examples per optimizer step (paper: 256)"})
    micro_batch: int = field(default=32, metadata={"help": "examples per forward pass"})
    lr: float = field(default=1.5e-3, metadata={"help": "AdamW learning rate at its peak"})
    warmup: int = field(default=10, metadata={"help": "steps of linear warm-up; linear decay to zero after it"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradient clipping"})
    max_new_tokens: int = field(default=1024, metadata={"help": "examples with longer completions are left out, and counted"})
    checkpointing: bool = field(default=False, metadata={"help": "recompute activations in the backward pass: less memory, more time"})
    lora_rank: int = field(default=0, metadata={"help": "rank of a LoRA adapter; 0 trains all weights but the vision tower, as the paper does"})
    save_every: int = field(default=50, metadata={"help": "steps between checkpoints"})
    seed: int = field(default=0, metadata={"help": "seed of the adapter's first weights and of the data order"})
    resume: bool = field(default=False, metadata={"help": "continue from OUT/state.pt"})
    merge: bool = field(default=True, metadata={"help": "write merged/ at the end (under nf4 the base is read once more, in bfloat16)"})
    tracker: str = field(default="none", metadata={"help": "where metrics go beside metrics.jsonl: none, tensorboard or wandb"})
    dry_run: bool = field(default=False, metadata={"help": "print the memory ledger and stop"})
    memory_gb: float = field(default=0., metadata={"help": "refuse settings that need more GB; 0: what the GPU has free"})


def read_chats(path):
    """HF chat rows -> [(media paths, question, response)]: the row's pictures, then its clips. BadInput names file, row and cure."""
    rows = []
    for number, row in read_jsonl(path):
        where = f"{path} row {number}"
        try:
            user, assistant = row["messages"][:2]
            question = next(c["text"] for c in user["content"] if c["type"] == "text")
            response = next(c["text"] for c in assistant["content"] if c["type"] == "text")
            media = [Path(path).parent / name for name in [] + (row.get("images") or []) + (row.get("videos") or [])]
            if not media:
                raise ValueError("nothing to see")
        except (KeyError, TypeError, ValueError, StopIteration, AttributeError):
            raise BadInput(f"{where}: not a chat example with pictures or clips; write it with curate.py") from None
        rows.append((media, question, response))
    if not rows:
        raise BadInput(f"{path}: no examples; run curate.py first, or lower its --threshold")
    return rows


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("train_sft", Config))
    out = Path(cfg.out)
    for name in ("batch", "micro_batch", "save_every", "max_new_tokens"):
        if getattr(cfg, name) < 1:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    accelerator = processes.start(cfg)  # one process, or those of `accelerate launch`: each takes every n-th example of a batch
    ledger.check_memory(cfg, accelerator)
    if cfg.dry_run:
        return
    processes.claim(accelerator, cfg)
    examples = read_chats(cfg.data)
    torch.manual_seed(cfg.seed)
    student = P.load_policy(cfg.policy, lora_rank=cfg.lora_rank, dtype=cfg.dtype, checkpointing=cfg.checkpointing)
    lengths = [len(tokens) for tokens in student.tokenizer([text for _, _, text in examples], add_special_tokens=False)["input_ids"]]
    short = [example for example, length in zip(examples, lengths) if length < cfg.max_new_tokens]  # the end token comes on top
    if len(short) < len(examples):
        accelerator.print(f"{len(examples) - len(short)} of {len(examples)} examples are longer than --max_new_tokens: left out")
        examples = short
    if not examples:
        raise BadInput(f"{cfg.data}: every example is longer than --max_new_tokens {cfg.max_new_tokens}; raise it")
    parameters = list(P.trainable(student).values())
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, betas=(.9, .99), weight_decay=0.)
    per_epoch = max(1, len(examples) // cfg.batch)
    steps = max(1, round(cfg.epochs * per_epoch))

    # As in train_grpo.py: a step is a function of weights, optimizer and step number, so these three are the whole state.
    start = P.load_state(out / "state.pt", student, optimizer) if cfg.resume else 0
    bar = trange(start, steps, initial=start, total=steps, desc="SFT", unit="step", disable=not accelerator.is_main_process)
    for step in bar:
        phases = processes.Phases(student.device)
        lr = cfg.lr * min((step + 1) / max(cfg.warmup, 1), 1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(cfg.seed * 1_000_003 + epoch)).tolist()
        batch = [examples[i] for i in order[place * cfg.batch:(place + 1) * cfg.batch]]
        ids, mask = P.encode_completions(student, [response for _, _, response in batch])  # (B, T), with the end token
        total, damaged, count = 0., 0, mask.sum()  # of the whole batch, so that the processes' losses and gradients add up
        mine = processes.share(accelerator, len(batch))
        batch, ids, mask = [batch[i] for i in mine], ids[mine], mask[mine]
        for i in range(0, len(batch), cfg.micro_batch):
            prompts, part = [], []
            for k in range(i, min(i + cfg.micro_batch, len(batch))):
                try:
                    media = [load_media(path, **pixel_budget(cfg)) for path in batch[k][0]]  # all shown before the text
                    prompts.append((media, batch[k][1]))
                    part.append(k)
                except BadMedia as error:  # its example is left out, named and counted
                    damaged += 1
                    print(f"left out: {error}", file=sys.stderr)
            if not part:
                continue
            logprobs, _ = P.token_logprobs(student, P.encode_prompts(student, prompts), 1, ids[part], mask[part])  # (b, T)
            loss = -logprobs.sum() / count
            loss.backward()
            total += loss.item()
        total, damaged = sum(processes.gather(accelerator, [total])), sum(processes.gather(accelerator, [damaged]))
        processes.sum_gradients(accelerator, parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        phases.done("update")
        processes.log(accelerator, out, dict(kind="train", step=step, loss=total, lr=lr, grad_norm=norm, damaged=damaged, **phases.report()))
        bar.set_postfix(loss=f"{total:.3f}")
        if accelerator.is_main_process and ((step + 1) % cfg.save_every == 0 or step + 1 == steps):
            P.save_state(out / "state.pt", student, optimizer, step + 1)
    P.finish(accelerator, cfg, student, trained=start < steps)


if __name__ == "__main__":
    run_main(main)
