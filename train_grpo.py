"""GRPO: the policy learns from its own rollouts, rewarded by Argos or, to see what goes wrong, by the answer alone.

The paper (section 3.2, eqs. 10-11) samples a group of G rollouts per prompt, scores each with the verifier, and pushes every
token of a rollout up or down by the rollout's advantage, its reward's z-score within the group. Its central finding (figure 4):
from one SFT checkpoint, RL on the answer alone loses visual grounding, RL with Argos does not. The two runs differ in one flag:

    python train_grpo.py --reward argos   --policy out/sft/merged --data out/data/rl.jsonl --out out/grpo-argos
    python train_grpo.py --reward outcome --policy out/sft/merged --data out/data/rl.jsonl --out out/grpo-outcome

One step: a batch of prompts -> G rollouts each (one prefill per prompt) -> verdicts -> advantages -> `updates` optimizer steps
on the clipped surrogate. Everything that happens is in `main`, in this order.

What is simplified against the paper: LoRA instead of full weights here in GRPO, one GPU (or a few, `accelerate launch`) instead of 16 and
EasyR1, and no separate inference engine: the sampler is the trainer's own model, so their log-probabilities agree (the difference is
logged). Base, reference (the KL) and judge (`--judge base`) are that same model with its adapter off.
Groups whose rollouts all earn the same have zero advantage and teach nothing: they are skipped, and counted by cause.

Qwen2.5-VL-7B:  python train_grpo.py --preset 7b --dry_run --memory_gb 24      # the memory ledger: what fits, and what to lower
                python train_grpo.py --preset 7b --policy out/sft/merged --data rl.jsonl --val val.jsonl --out out/grpo
                accelerate launch train_grpo.py --preset 7b-bf16 ...           # all GPUs of the machine

Reads: rl.jsonl (a picture or clip, a question, an answer). Writes: metrics.jsonl (append-only), cards/ (verdicts as pictures),
state.pt (trained weights, optimizer, step: `--resume` continues bit-equal on a CPU), merged/ at the end, and adapter/ unless --lora_rank 0.
The reward inside another trainer (TRL, EasyR1): section 5.
Before: train_sft.py. Next: evaluate.py (both arms side by side).
"""
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import torch
from tqdm import trange

from runs import ledger, processes
from runs.errors import BadInput, run_main
from runs.files import file_name
from runs.settings import TeacherSettings, parse_config, preset_arguments, verifier_options
from teachers.judges import VLMJudge
from teachers.names import load_judge, load_teachers
from verifier.cards import draw_card
from verifier.samples import Sample, read_samples
import argos
import policy as P


# ---- 1. Configuration ---------------------------------------------------------------------------------------------------
@dataclass
class Config(TeacherSettings):
    policy: str = field(default="out/sft/merged", metadata={"help": "checkpoint to start from: a local folder or a hub id"})
    data: str = field(default="out/data/rl.jsonl", metadata={"help": "training prompts, one JSON object a line"})
    val: str = field(default="out/data/val.jsonl", metadata={"help": "held-out samples for the learning curve"})
    out: str = field(default="out/grpo", metadata={"help": "folder to write"})
    judge: str = field(default=str(Path(__file__).parent / "tiny/teacher"), metadata={"help": "VLM that judges claims and R_rq; 'base' = the policy with its adapter off"})
    # the reward
    reward: str = field(default="argos", metadata={"help": "argos, outcome (the answer alone), no-vg or no-rq (the paper's ablations)"})
    weights: str = field(default="0.5,0.25,0.25", metadata={"help": "w_o,w_vg,w_rq of eq. 9 (our choice)"})
    tau: float = field(default=0.5, metadata={"help": "the gate's threshold on the outcome (our choice)"})
    # sampling
    steps: int = field(default=80, metadata={"help": "sampling steps"})
    prompts: int = field(default=16, metadata={"help": "prompts a step (paper: 56 rollouts a batch)"})
    group_size: int = field(default=8, metadata={"help": "G, rollouts a prompt"})
    temperature: float = field(default=1.0, metadata={"help": "sampling temperature in training"})
    max_new_tokens: int = field(default=112, metadata={"help": "a rollout is cut here"})
    sample_batch: int = field(default=1024, metadata={"help": "rollouts sampled at once: their cache must fit into memory"})
    # optimisation
    lr: float = field(default=1.4e-3, metadata={"help": "AdamW learning rate at its peak"})
    warmup: int = field(default=10, metadata={"help": "steps of linear warm-up"})
    decay: bool = field(default=True, metadata={"help": "decay the learning rate linearly to 10 %% over the run"})
    updates: int = field(default=1, metadata={"help": "optimizer steps per batch of rollouts (1 is on-policy)"})
    micro_batch: int = field(default=64, metadata={"help": "rollouts per forward pass in training: whole groups, or part of one"})
    checkpointing: bool = field(default=False, metadata={"help": "recompute activations in the backward pass: less memory, more time"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradient clipping"})
    lora_rank: int = field(default=64, metadata={"help": "rank of the LoRA adapter; 0 trains all weights but the vision tower"})
    # the loss
    loss: str = field(default="grpo", metadata={"help": "how tokens are averaged: grpo, dr_grpo, dapo or bnpo"})
    eps_low: float = field(default=0.2, metadata={"help": "clip range below 1"})
    eps_high: float = field(default=0.2, metadata={"help": "clip range above 1; 0.28 is DAPO's clip-higher"})
    beta: float = field(default=0.0, metadata={"help": "weight of the KL to the frozen start (k3); 0 does not compute it"})
    scale_advantage: bool = field(default=True, metadata={"help": "divide by the group's std (eq. 10); off is Dr. GRPO's choice"})
    mask_overlong: bool = field(default=False, metadata={"help": "rollouts that were cut teach nothing (DAPO's overlong filtering)"})
    # the rest
    eval_every: int = field(default=20, metadata={"help": "steps between evaluations on held-out samples (0: never)"})
    eval_samples: int = field(default=256, metadata={"help": "held-out samples per evaluation"})
    cards: int = field(default=4, metadata={"help": "verification cards drawn at every evaluation"})
    save_every: int = field(default=20, metadata={"help": "steps between checkpoints"})
    seed: int = field(default=0, metadata={"help": "seed of data order and sampling"})
    resume: bool = field(default=False, metadata={"help": "continue from OUT/state.pt"})
    merge: bool = field(default=True, metadata={"help": "write merged/ at the end (under nf4 the base is read once more, in bfloat16)"})
    tracker: str = field(default="none", metadata={"help": "where metrics go beside metrics.jsonl: none, tensorboard or wandb"})
    dry_run: bool = field(default=False, metadata={"help": "print the memory ledger and stop"})
    memory_gb: float = field(default=0., metadata={"help": "refuse settings that need more GB; 0: what the GPU has free"})


LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo")
REWARDS = {"argos": ("outcome", "grounding", "reasoning"), "outcome": ("outcome",),
           "no-vg": ("outcome", "reasoning"), "no-rq": ("outcome", "grounding")}


def check(cfg):
    """Every setting that would fail late or train something else, in one clear line now. -> the reward's Weights."""
    def need(good, problem):
        if not good:
            raise BadInput(problem)
    need(cfg.reward in REWARDS, f"--reward {cfg.reward}: choose {', '.join(REWARDS)}")
    need(cfg.loss in LOSSES, f"--loss {cfg.loss}: choose {', '.join(LOSSES)}")
    need(cfg.group_size >= 2, f"--group_size {cfg.group_size}: an advantage compares at least 2 rollouts")
    need(cfg.temperature > 0, f"--temperature {cfg.temperature}: must be above 0")
    for name in ("steps", "prompts", "updates", "micro_batch", "sample_batch", "max_new_tokens", "save_every"):
        need(getattr(cfg, name) >= 1, f"--{name} {getattr(cfg, name)}: must be at least 1")
    need(cfg.lora_rank >= 0, f"--lora_rank {cfg.lora_rank}: 0 trains all weights but the vision tower, more is the rank of an adapter")
    need(cfg.dtype == "float32" or cfg.lora_rank, f"--dtype {cfg.dtype} --lora_rank 0: too coarse to train; use an adapter")
    need(cfg.lora_rank or not cfg.beta and "base" not in (cfg.judge, cfg.pointer),
         "--lora_rank 0 keeps no frozen copy: use --beta 0, and a judge and a pointer of their own, or an adapter")
    try:
        weights = [float(w) for w in cfg.weights.split(",")]
    except ValueError:
        weights = []
    need(len(weights) == 3, f"--weights {cfg.weights}: write three numbers, w_o,w_vg,w_rq, such as 0.5,0.25,0.25")
    return argos.Weights(*weights)


# ---- 2. Advantages and loss ----------------------------------------------------------------------------------------------
def advantages(rewards, scale=True):
    """Paper eq. 10: A_j = (R_j - mean) / (std + 1e-6) within each group. rewards: (B, G) -> (B, G)."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-6) if scale else centred


def zero_variance_cause(verdicts, tau=0.5):
    """Why a whole group earned the same: the gate's three reasons, a teacher that failed, and the rest."""
    if any(v.outcome is None for v in verdicts):
        return "not scored"
    if all(v.parsed.answer is None for v in verdicts):
        return "all malformed"
    if all(v.outcome >= tau for v in verdicts):
        return "all right"
    return "all wrong" if all(v.outcome < tau for v in verdicts) else "all equal"


def token_loss(logprobs, old_logprobs, ref_logprobs, advantage, eps_low, eps_high, beta):
    """Paper eq. 11 for every token, negated: -(min(r A, clip(r) A) - beta k3). All (N, T) but advantage (N, 1)."""
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    if not beta:
        return -surrogate, ratio
    log_r = ref_logprobs - logprobs
    k3 = log_r.exp() - log_r - 1  # Schulman's estimator of KL(policy || reference): unbiased and never negative
    return -(surrogate - beta * k3), ratio


def average(per_token, mask, kind, rollouts, tokens, longest):
    """One number from per-token losses (N, T). rollouts, tokens: of the whole batch, so that micro-batches add up.

    grpo: mean over each rollout, then over rollouts (eq. 11).   bnpo: mean over the tokens of this micro-batch.
    dapo: mean over the tokens of the whole batch.               dr_grpo: sum over rollouts x the longest completion allowed
    (rollouts of skipped groups are not counted, here and in grpo: our choice).
    """
    summed = (per_token * mask).sum(dim=1)  # (N,)
    if kind == "grpo":
        return (summed / mask.sum(dim=1).clamp(min=1)).sum() / rollouts
    if kind == "dapo":
        return summed.sum() / tokens
    if kind == "dr_grpo":
        return summed.sum() / (rollouts * longest)
    return summed.sum() / mask.sum().clamp(min=1) * len(mask) / rollouts


# ---- 3. Rewards and evaluation -------------------------------------------------------------------------------------------
def build_verifier(cfg, actor, weights):
    """-> (the verifier that rewards, the verifier that measures): the same teachers, so both arms are measured alike."""
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache, base=actor)
    if cfg.judge == "base":
        if actor is None:
            raise BadInput("judge base: there is no policy here; name a model")
        judge = VLMJudge(actor, preset=cfg.preset, adapter_off=True)
    else:
        judge = load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    make = lambda use: argos.Argos(detector, segmenter, pointer, judge, weights=weights, tau=cfg.tau, use=use, **verifier_options(cfg))
    return make(REWARDS[cfg.reward]), make(("outcome", "grounding"))


def prompts_for(actor, samples, media, preset):
    return P.encode_prompts(actor, [(m, P.prompt(preset, "reason", question=s.question)) for m, s in zip(media, samples)])


@torch.no_grad()
def evaluate(actor, verifier, samples, cfg, step, accelerator):
    """Sampled answer accuracy and grounding on held-out samples; always the same seed, so that curves compare."""
    generator = torch.Generator(actor.device).manual_seed(cfg.seed)
    samples = [samples[i] for i in processes.share(accelerator, len(samples))]
    outcomes, grounding, drawn, size = [], [], [], max(1, min(128, cfg.sample_batch // cfg.group_size))
    for i in range(0, len(samples), size):
        part, media = verifier.usable(samples[i:i + size])
        if not part:
            continue
        rollouts = P.sample(actor, prompts_for(actor, part, media, cfg.preset), 1, cfg.temperature,
                            max_new_tokens=cfg.max_new_tokens, generator=generator)
        verdicts = verifier.verify_groups(part, [[text] for text in rollouts.texts], media)
        for sample, text, m, (verdict,) in zip(part, rollouts.texts, media, verdicts):
            if verdict.outcome is not None:  # None: a teacher failed
                outcomes.append(verdict.outcome)
            if sample.grounding and verdict.grounding is not None:
                grounding.append(verdict.grounding)
            drawn.append((sample, text, m, verdict))
    outcomes, grounding, folder = processes.gather(accelerator, outcomes), processes.gather(accelerator, grounding), Path(cfg.out) / "cards"
    if not accelerator.is_main_process:
        drawn = []
    folder.mkdir(parents=True, exist_ok=True)
    for sample, text, m, verdict in drawn[::max(1, len(drawn) // max(1, cfg.cards))][:cfg.cards]:
        draw_card(m, sample, text, verdict, verdict.masks, folder / f"step-{step:05d}-{file_name(sample.id)}.png")
    mean = lambda scores: sum(scores) / len(scores) if scores else None  # None, not 0: nothing was scored
    return dict(answers=mean(outcomes), grounding=mean(grounding))


def readable(verifier, train, order, wanted):
    """The samples at these places of the order, damaged ones left out; if all are, the next that can be read -> samples, media."""
    samples, media = verifier.usable([train[order[i % len(train)]] for i in wanted])
    for i in range(wanted[-1] + 1, wanted[-1] + len(train)):
        if samples:
            break
        samples, media = verifier.usable([train[order[i % len(train)]]])
    if not samples:
        raise BadInput("no file of the training data can be read; the first is " + train[0].path)
    return samples, media


# ---- 4. Training ------------------------------------------------------------------------------------------------------------
def main():
    cfg = parse_config(Config, __doc__, preset_arguments("train_grpo", Config))
    weights, out = check(cfg), Path(cfg.out)
    accelerator = processes.start(cfg)  # one process, or those of `accelerate launch`: each takes every n-th prompt of a step
    if cfg.prompts < accelerator.num_processes:
        raise BadInput(f"--prompts {cfg.prompts}: {accelerator.num_processes} processes need at least one each")
    ledger.check_memory(cfg, accelerator)
    if cfg.dry_run:
        return
    processes.claim(accelerator, cfg)
    train, val = read_samples(cfg.data), read_samples(cfg.val)[:cfg.eval_samples]
    torch.manual_seed(cfg.seed)  # the adapter's first weights
    actor = P.load_policy(cfg.policy, lora_rank=cfg.lora_rank, dtype=cfg.dtype, checkpointing=cfg.checkpointing)
    verifier, measure = build_verifier(cfg, actor, weights)
    verifier.self_check()  # refuses to train where points miss
    parameters = list(P.trainable(actor).values())
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, betas=(.9, .99), weight_decay=0.)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(cfg.seed)).tolist()

    # A step depends on (weights, optimizer, step number) alone: data order and sampling are seeded by the step, and nothing
    # else is random. So these three are the whole state, and a resumed run repeats the killed one bit for bit (CPU).
    start = P.load_state(out / "state.pt", actor, optimizer) if cfg.resume else 0
    log = lambda row: processes.log(accelerator, out, row)
    if cfg.eval_every and start == 0:
        log(dict(kind="eval", step=0, **evaluate(actor, measure, val, cfg, 0, accelerator)))

    bar = trange(start, cfg.steps, initial=start, total=cfg.steps, desc=f"GRPO ({cfg.reward})", unit="step",
                 disable=not accelerator.is_main_process)
    for step in bar:
        phases = processes.Phases(actor.device)
        lr = cfg.lr * min((step + 1) / max(cfg.warmup, 1), 1 - .9 * step / cfg.steps if cfg.decay else 1)
        for group in optimizer.param_groups:
            group["lr"] = lr

        # 4a. Rollouts: G per prompt, of this process's prompts.
        generator = torch.Generator(actor.device).manual_seed(cfg.seed * 1_000_003 + step + accelerator.process_index * 10 ** 12)
        samples, media = readable(verifier, train, order, [step * cfg.prompts + i for i in processes.share(accelerator, cfg.prompts)])
        prompts = prompts_for(actor, samples, media, cfg.preset)
        rollouts = P.sample(actor, prompts, cfg.group_size, cfg.temperature, max_new_tokens=cfg.max_new_tokens,
                            generator=generator, batch_size=cfg.sample_batch)  # ids (B*G, T)
        phases.done("sample")

        # 4b. Verdicts and advantages.
        texts = [rollouts.texts[i:i + cfg.group_size] for i in range(0, len(rollouts.texts), cfg.group_size)]
        verdicts = verifier.verify_groups(samples, texts, media)
        rewards = torch.tensor([[v.reward or 0. for v in group] for group in verdicts])  # (B, G); a group not scored teaches nothing
        advantage = advantages(rewards, cfg.scale_advantage)  # (B, G)
        alive = rewards.std(dim=1) > 1e-6  # (B,)
        causes = [zero_variance_cause(group, cfg.tau) for group, ok in zip(verdicts, alive) if not ok]
        phases.done("verify")

        # 4c. The update, on the groups that teach something. Counts are those of all processes together: then losses and gradients
        # of micro-batches and of processes simply add up, however unequal they are.
        keep = [b for b in range(len(samples)) if alive[b]]
        keep.sort(key=prompts.lengths().tolist().__getitem__)  # like lengths together: less padding
        mask = rollouts.mask.float() * (rollouts.finished.float()[:, None] if cfg.mask_overlong else 1)  # (B*G, T)
        kept = torch.stack([torch.tensor(float(len(keep)), device=mask.device), mask.view(len(samples), -1)[keep].sum()])
        groups, tokens = accelerator.reduce(kept, "sum")
        n_rollouts, tokens = int(groups) * cfg.group_size, tokens.clamp(min=1)
        stats = dict.fromkeys(("loss", "entropy", "clip_fraction", "kl"), 0.)
        sampler_gap = grad_norm = 0.
        # A micro-batch is (prompts, which rollouts of each): whole groups, which share their prompt, or a part of one.
        whole, some = max(1, cfg.micro_batch // cfg.group_size), min(cfg.micro_batch, cfg.group_size)
        parts = [(keep[i:i + whole], range(g, min(g + some, cfg.group_size)))
                 for i in range(0, len(keep), whole) for g in range(0, cfg.group_size, some)]
        old = [None] * len(parts)
        for update in range(cfg.updates if n_rollouts else 0):
            for i, (part, members) in enumerate(parts):
                at = [b * cfg.group_size + g for b in part for g in members]
                m, chosen = mask[at], prompts.select(part)
                score = lambda: P.token_logprobs(actor, chosen, len(members), rollouts.ids[at], rollouts.mask[at], cfg.temperature)
                logprobs, entropy = score()  # (n, T)
                if old[i] is None:
                    old[i] = logprobs.detach()  # the policy that sampled, scored by the trainer's own pass
                    sampler_gap = max(sampler_gap, ((old[i] - rollouts.logprobs[at]) * m).abs().max().item())
                reference = None
                if cfg.beta:
                    with torch.no_grad(), P.adapter_off(actor):
                        reference, _ = score()
                    gap = reference - logprobs.detach()
                    stats["kl"] += (((gap.exp() - gap - 1) * m).sum() / tokens).item() / cfg.updates
                a = advantage.flatten()[at, None].to(m.device)  # (n, 1)
                per_token, ratio = token_loss(logprobs, old[i], reference, a, cfg.eps_low, cfg.eps_high, cfg.beta)
                loss = average(per_token, m, cfg.loss, n_rollouts, tokens, cfg.max_new_tokens)
                loss.backward()
                clipped = ((ratio < 1 - cfg.eps_low) & (a < 0) | (ratio > 1 + cfg.eps_high) & (a > 0)).float()
                stats["loss"] += loss.item() / cfg.updates
                stats["entropy"] += ((entropy.detach() * m).sum() / tokens).item() / cfg.updates
                stats["clip_fraction"] += ((clipped * m).sum() / tokens).item() / cfg.updates
            processes.sum_gradients(accelerator, parameters)
            grad_norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm).item()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        phases.done("update")

        # 4d. What happened, in all processes.
        flat = processes.gather(accelerator, [dict(reward=v.reward, outcome=v.outcome, grounding=v.grounding, reasoning=v.reasoning,
                                           points=len(v.parsed.points)) for group in verdicts for v in group])
        causes, stats = processes.gather(accelerator, causes), processes.gather(accelerator, [stats])
        sizes = processes.gather(accelerator, zip(rollouts.mask.sum(1).tolist(), rollouts.finished.tolist()))
        sampler_gap = max(processes.gather(accelerator, [sampler_gap]))
        mean = lambda values: sum(values) / max(len(values), 1)
        known = lambda k: [v[k] for v in flat if v[k] is not None]  # None: not part of this reward, or a teacher failed
        terms = dict(reward=torch.tensor(known("reward") or [0.]).mean().item(), outcome=mean(known("outcome")),
                     **{k: mean(known(k)) if known(k) else None for k in ("grounding", "reasoning")})
        lengths, finished = torch.tensor(sizes, dtype=torch.float).unbind(1)
        stats = {k: sum(s[k] for s in stats) for k in stats[0]} | dict(sampler_gap=sampler_gap, grad_norm=grad_norm)
        failures = sum(processes.gather(accelerator, [verifier.failures + measure.failures]), Counter())  # of teachers and files, since the start
        log(dict(kind="train", step=step, lr=lr, **terms, gate_open=mean([o >= cfg.tau for o in known("outcome")]),
                 points=mean(known("points")), length=lengths.mean().item(), unfinished=1 - finished.mean().item(), skipped=len(causes),
                 **{cause: causes.count(cause) for cause in ("all right", "all wrong", "all malformed", "all equal", "not scored")},
                 **{k: v if n_rollouts else None for k, v in stats.items()}, failures=failures, **phases.report()))
        bar.set_postfix({short: f"{terms[k]:.2f}" for short, k in (("R", "reward"), ("R_o", "outcome"), ("R_vg", "grounding"),
                                                                  ("R_rq", "reasoning")) if terms[k] is not None} | {"skip": len(causes)})
        done = step + 1
        if cfg.eval_every and (done % cfg.eval_every == 0 or done == cfg.steps):
            log(dict(kind="eval", step=done, **evaluate(actor, measure, val, cfg, done, accelerator)))
        if accelerator.is_main_process and (done % cfg.save_every == 0 or done == cfg.steps):
            P.save_state(out / "state.pt", actor, optimizer, done)
    P.finish(accelerator, cfg, actor, trained=start < cfg.steps)


# ---- 5. The same reward inside other trainers --------------------------------------------------------------------------------
# Both sum or log what a function returns, so outcome, gate and terms stay inside one function. Points are pixels of the picture as the
# policy saw it: give the verifier the pixel budget of the trainer's own processor.
def verify_rows(verifier, rows, texts):
    """Rows as in rl.jsonl, except that "image" may be a PIL picture; one response each. -> Verdicts. Equal neighbours are one group."""
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        for k, (row, group) in enumerate(groupby(zip(rows, texts), key=lambda pair: pair[0])):
            if not isinstance(row.get("image", ""), str):
                row["image"].convert("RGB").save(f"{folder}/{k}.png")  # as the trainer's processor does
                row = row | {"image": f"{folder}/{k}.png"}
            verdicts += verifier.verify_group(Sample.from_row(row, ".", f"row {k}"), [text for _, text in group])
    return verdicts


def trl_reward(verifier):
    """The reward for TRL: GRPOTrainer(reward_funcs=trl_reward(verifier), ...). verifier: an argos.Argos.

    The dataset needs the columns question, answer, kind, and image (a PIL picture or a path), images (the first counts) or video (a
    path); options, drawn and grounding where they apply. The terms appear in TRL's table of completions.
    """
    def argos_reward(completions, log_extra=None, **columns):
        if columns.get("images"):
            columns["image"] = [several[0] for several in columns["images"]]
        names = [n for n in ("question", "answer", "kind", "image", "video", "options", "drawn", "grounding") if columns.get(n)]
        rows = [{n: v for n, v in zip(names, values) if v is not None} for values in zip(*(columns[n] for n in names))]
        verdicts = verify_rows(verifier, rows, [c if isinstance(c, str) else c[0]["content"] for c in completions])
        for name in ("outcome", "grounding", "reasoning") if log_extra else ():
            log_extra(name, [getattr(v, name) for v in verdicts])
        return [v.reward for v in verdicts]
    return argos_reward


REWARD_NAME, REWARD_TYPE = "argos", "batch"
verifier_for = lru_cache(lambda **settings: build_verifier(cfg := Config(**settings), None, check(cfg))[0])


def compute_score(reward_inputs, **settings):
    """The reward for EasyR1: worker.reward.reward_function=train_grpo.py:compute_score. settings: fields of Config (judge, tau ...).

    No picture and no prompt reach a reward there: write the row, {"image": path, "question": ..., "answer": ..., "kind": ...}, as JSON into
    the column that EasyR1 calls the answer. Its reward workers have no GPU: the teachers run on the CPU. What was not scored counts 0.
    """
    rows = [json.loads(r["ground_truth"]) for r in reward_inputs]
    verdicts = verify_rows(verifier_for(**settings), rows, [r["response"] for r in reward_inputs])
    return [{"overall": v.reward or 0.} | {k: getattr(v, k) or 0. for k in ("outcome", "grounding", "reasoning")} for v in verdicts]


if __name__ == "__main__":
    run_main(main)
