"""GRPO: the policy learns from its own rollouts, rewarded by Argos or, for comparison, by the answer alone.

The paper (section 3.2, eqs. 10-11) samples a group of rollouts per prompt, scores each with the verifier, and
pushes every token of a rollout up or down by how much better it did than its group. Its central finding
(figure 4): from one SFT checkpoint, RL on the answer alone loses visual grounding, RL with Argos does not.

Different from the paper:
  1. LoRA instead of full weights (--lora_rank 0 trains all but the vision tower).
  2. One GPU, or a few with `accelerate launch`, instead of 16 and EasyR1.
  3. No separate inference engine: the trainer's own model samples, so sampler and trainer agree on
     log-probabilities (their difference is logged as sampler_gap).
  4. One model in memory: base, reference (the KL) and judge (--judge base) are the policy, its adapter off.
  5. One optimizer step per batch of rollouts (--updates 1, our choice): the ratio of eq. 11 is 1, and its clip
     is idle.
  6. Groups whose rollouts all earn the same have no advantage: they are skipped, and counted by cause.

The two arms of figure 4 differ in one flag:
  python train_grpo.py --policy out/sft/merged --foils 0 --reward argos   --out out/grpo-argos
  python train_grpo.py --policy out/sft/merged --foils 0 --reward outcome --out out/grpo-outcome
Qwen2.5-VL-7B: what fits into memory (and what to lower), then on one GPU, then on all GPUs of the machine:
  python train_grpo.py --preset 7b --dry_run --memory_gb 24
  python train_grpo.py --preset 7b --policy out/sft/merged --data rl.jsonl --val val.jsonl --out out/grpo
  accelerate launch train_grpo.py --preset 7b-bf16 --policy out/sft/merged --data rl.jsonl --val val.jsonl

Words:
  rollout, completion   a response that the policy sampled, and its tokens; the question is the prompt
  group                 the G rollouts of one prompt (--group_size)
  advantage             a rollout's reward as a z-score: standard deviations above its group's mean (eq. 10)
  ratio                 p(token) now / p(token) when it was sampled
  k3                    an estimate of the KL divergence from one sampled token; never negative
  grpo, dapo, bnpo, dr_grpo   four ways to average over tokens: see `average`

What to watch in metrics.jsonl, with the numbers of a healthy run on the tiny models:
  answers, grounding    (kind "eval") figure 4: .72 -> .78 and .71 -> .82 with --reward argos
  judged                the same answers as the judge that rewards scores them: ahead of `answers`, it was hacked
  judge_only, misses    free answers that only the judge accepts; points by their kind of miss, such as "beside"
  malformed,            by source: responses without an answer, and without an end. Where they climb, the language
  unfinished_in         breaks: the step is too large
  reward, outcome       jump, since each step has other prompts: look at means of ten steps
  skipped               0 to 7 of 16 groups; many "all right": too easy, many "all malformed": SFT too short
  entropy               .21 -> .15, slowly; near 0 the rollouts of a group are all the same, and none teaches
  sampler_gap, loss     the gap is below 1e-3 (bfloat16: .2); the loss is near 0 and says nothing (--updates 1)

Reads: rl.jsonl (a picture or clip, a question, an answer). Writes: metrics.jsonl (append-only), page.html (at
every evaluation anew: curves, groups with their advantages, held-out verdicts; open it in a browser), cards/
(verdicts as pictures), state.pt (trained weights, optimizer, step: --resume continues bit-equal on a CPU),
merged/ at the end, and adapter/ unless --lora_rank 0. The reward inside another trainer (EasyR1, verl, TRL):
serve.py.
Before: train_sft.py. Next: evaluate.py (both arms side by side).
"""
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import trange

from runs import ledger, processes
from runs.checkpoints import follow_budget
from runs.curves import read_curve
from runs.errors import BadInput, run_main
from runs.files import file_name, make_folder
from runs.settings import TeacherSettings, flag, parse_config, preset_arguments, verifier_options
from verifier.cards import draw_card
from verifier.page import Rollout, question, write_page
from verifier.samples import read_samples
from verifier.foils import check_foils
from verifier.watch import Measure, by_text, same_model, signs_of, signs_together
import policy as P
from teachers.judges import VLMJudge
from teachers.names import load_judge, load_teachers
from argos import Argos, Weights


# ---- 1. Configuration --------------------------------------------------------------------------------------
TINY_TEACHER = str(Path(__file__).parent / "tiny/teacher")


@dataclass
class Config(TeacherSettings):
    policy: str = flag("out/sft/merged", "checkpoint to start from: a local folder or a hub id")
    data: str = flag("out/data/rl.jsonl", "training prompts, one JSON object per line")
    val: str = flag("out/data/val.jsonl", "held-out samples for the learning curve")
    out: str = flag("out/grpo", "folder to write")
    judge: str = flag(TINY_TEACHER, "VLM that judges claims and R_rq, folder or hub id; base: the policy "
                                    "with its adapter off")
    eval_judge: str = flag("", "another VLM that judges held-out answers; empty: the same, which RL may have "
                               "fooled (verifier/watch.py)")
    # the reward
    reward: str = flag("argos", "argos; outcome: the answer alone; no-vg: without grounding; no-rq: without "
                                "reasoning quality")
    weights: str = flag("0.5,0.25,0.25", "w_o,w_vg,w_rq of eq. 9 (our choice)")
    tau: float = flag(0.5, "the gate's threshold on the outcome (our choice)")
    # sampling
    steps: int = flag(100, "steps, each with new rollouts (paper: about 80)")
    prompts: int = flag(16, "prompts per step (paper: 56 rollouts per batch)")
    group_size: int = flag(8, "G, rollouts per prompt")
    temperature: float = flag(1.0, "sampling temperature in training")
    max_new_tokens: int = flag(112, "a rollout is cut after this many tokens")
    sample_batch: int = flag(1024, "rollouts sampled at once: their cache must fit into memory")
    # optimisation
    lr: float = flag(1e-3, "AdamW learning rate at its peak")
    warmup: int = flag(10, "steps of linear warm-up")
    decay: bool = flag(True, "decay the learning rate linearly to 10 %% over the run")
    updates: int = flag(1, "optimizer steps per batch of rollouts (1 is on-policy)")
    micro_batch: int = flag(64, "rollouts per forward pass in training: whole groups, or a part of one")
    checkpointing: bool = flag(False, "recompute activations in the backward pass: less memory, more time")
    fast: bool = flag(True, "sample and score by runs/fast.py; False: the plain way, slower, the same numbers")
    max_grad_norm: float = flag(1.0, "a longer gradient is scaled down to this length")
    lora_rank: int = flag(64, "rank of the LoRA adapter; 0 trains all weights but the vision tower")
    # the loss
    loss: str = flag("grpo", "how tokens are averaged: grpo, dr_grpo, dapo or bnpo")
    eps_low: float = flag(0.2, "clip range below 1")
    eps_high: float = flag(0.2, "clip range above 1; 0.28 is DAPO's clip-higher")
    beta: float = flag(0.0, "weight of the KL to the frozen start (k3); 0 does not compute it")
    scale_advantage: bool = flag(True, "divide by the group's standard deviation (eq. 10); off is Dr. "
                                       "GRPO's choice")
    mask_overlong: bool = flag(False, "rollouts that were cut teach nothing (DAPO's overlong filtering)")
    # the rest
    eval_every: int = flag(20, "steps between held-out evaluations (0: never)")
    eval_samples: int = flag(256, "held-out samples per evaluation")
    eval_temperature: float = flag(0.6, "sampling temperature of evaluation (paper: 0.6)")
    cards: int = flag(4, "verification cards drawn at every evaluation, at least one of each kind of question "
                         "(0: none)")
    save_every: int = flag(20, "steps between checkpoints")
    seed: int = flag(0, "seed of data order and sampling")
    resume: bool = flag(False, "continue from OUT/state.pt")
    merge: bool = flag(True, "write merged/ at the end (under nf4 the base is read once more, in bfloat16)")
    tracker: str = flag("none", "where metrics go beside metrics.jsonl: none, tensorboard or wandb")
    dry_run: bool = flag(False, "print the memory ledger and stop")
    memory_gb: float = flag(0., "refuse settings that need more GB; 0: what the GPU has free")


LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo")
REWARDS = {"argos": ("outcome", "grounding", "reasoning"),
           "outcome": ("outcome",),
           "no-vg": ("outcome", "reasoning"),   # the paper's ablations
           "no-rq": ("outcome", "grounding")}


def check(cfg):
    """Refuse now, in one line, what would fail late or train something else. -> the reward's Weights."""
    def need(good, problem):
        if not good:
            raise BadInput(problem)

    need(cfg.reward in REWARDS, f"--reward {cfg.reward}: choose {', '.join(REWARDS)}")
    need(cfg.loss in LOSSES, f"--loss {cfg.loss}: choose {', '.join(LOSSES)}")
    need(cfg.group_size >= 2, f"--group_size {cfg.group_size}: an advantage compares at least 2 rollouts")
    for name in ("temperature", "eval_temperature", "lr", "max_grad_norm"):
        need(0 < getattr(cfg, name) < math.inf, f"--{name} {getattr(cfg, name)}: must be a number above 0")
    check_foils(cfg.foils)
    rewards_with, measures_with = [cfg.policy if name == "base" else name for name in (cfg.judge, cfg.eval_judge)]
    need(not same_model(measures_with, rewards_with),
         f"--eval_judge {cfg.eval_judge}: is the judge that rewards; name another, or none")
    for name in ("steps", "prompts", "updates", "micro_batch", "sample_batch", "max_new_tokens",
                 "save_every"):
        need(getattr(cfg, name) >= 1, f"--{name} {getattr(cfg, name)}: must be at least 1")
    need(cfg.lora_rank >= 0, f"--lora_rank {cfg.lora_rank}: 0 trains all weights but the vision tower, "
                             "more is the rank of an adapter")
    if cfg.lora_rank == 0:
        need(cfg.dtype == "float32",
             f"--dtype {cfg.dtype} --lora_rank 0: too coarse to train; use an adapter")
        asks_frozen_base = cfg.beta or "base" in (cfg.judge, cfg.eval_judge, cfg.pointer)
        need(not asks_frozen_base, "--lora_rank 0 keeps no frozen copy: use --beta 0, and a judge and a "
                                   "pointer of their own, or an adapter")
    return read_weights(cfg.weights)


def read_weights(text):
    """"0.5,0.25,0.25" -> Weights. Raises BadInput."""
    try:
        weights = [float(w) for w in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != 3:
        raise BadInput(f"--weights {text}: write three numbers, w_o,w_vg,w_rq, such as 0.5,0.25,0.25")
    return Weights(*weights)


def learning_rate(step, cfg):
    """Linear warm-up, then with --decay a linear way down to 10 % at the end (our choice)."""
    rising = (step + 1) / max(cfg.warmup, 1)
    falling = 1 - .9 * step / cfg.steps if cfg.decay else 1
    return cfg.lr * min(rising, falling)


# ---- 2. Advantages and loss --------------------------------------------------------------------------------
def advantages(rewards, scale=True):
    """Paper eq. 10: A_j = (R_j - mean) / (std + 1e-6) within each group, a z-score.

    rewards: (B, G), one row per group. scale=False leaves out the division (Dr. GRPO). -> (B, G)

    advantages([[1, 0, 0, 1]]) = [[.87, -.87, -.87, .87]]: the mean is .5, the sample standard deviation .577.
    advantages([[.7, .7, .7, .7]]) = [[0, 0, 0, 0]]: a group without differences teaches nothing.
    """
    # BEGIN SOLUTION ex7
    centred = rewards - rewards.mean(dim=1, keepdim=True)  # (B, G)
    if not scale:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-6)
    # END SOLUTION


def zero_variance_cause(verdicts, tau=0.5):
    """Why a whole group earned the same: the gate's three reasons, a teacher that failed, and the rest."""
    # BEGIN SOLUTION ex7
    if any(v.outcome is None for v in verdicts):
        return "not scored"
    if all(v.parsed.answer is None for v in verdicts):
        return "all malformed"
    if all(v.outcome >= tau for v in verdicts):
        return "all right"
    if all(v.outcome < tau for v in verdicts):
        return "all wrong"
    return "all equal"
    # END SOLUTION


CAUSES = ("all right", "all wrong", "all malformed", "all equal", "not scored")


def token_loss(logprobs, old_logprobs, ref_logprobs, advantage, eps_low, eps_high, beta):
    """Paper eq. 11 for every token, negated: -(min(r A, clip(r) A) - beta k3).

    logprobs, old_logprobs, ref_logprobs: (N, T) log p of each sampled token under the policy now, under the
    policy that sampled, and under the frozen start (None at beta 0). advantage: (N, 1).
    -> loss (N, T), ratio r (N, T)

    With clip range .2 and beta 0:   r = 1.5, A =  1 -> -1.2   likelier by more than .2: cut, no gradient
                                     r = 1.5, A = -1 ->  1.5   a bad token became likelier: not cut
                                     r =  .5, A = -1 ->   .8   rarer by more than .2: cut, no gradient
                                     r =   1, any  A ->  -A    the first update: nothing has changed yet
    """
    # BEGIN SOLUTION ex8
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    if not beta:
        return -surrogate, ratio
    return -(surrogate - beta * k3(logprobs, ref_logprobs)), ratio
    # END SOLUTION


def k3(logprobs, ref_logprobs):
    """Schulman's estimate of KL(policy || reference) per sampled token, unbiased and never negative. (N, T)"""
    # BEGIN SOLUTION ex8
    log_r = ref_logprobs - logprobs
    return log_r.exp() - log_r - 1
    # END SOLUTION


def clipped_tokens(ratio, advantage, eps_low, eps_high):
    """1 where the clip of eq. 11 stops the gradient, else 0. ratio: (N, T), advantage: (N, 1) -> (N, T)"""
    too_rare = (ratio < 1 - eps_low) & (advantage < 0)
    too_likely = (ratio > 1 + eps_high) & (advantage > 0)
    return (too_rare | too_likely).float()


def average(per_token, mask, kind, rollouts, tokens, longest):
    """One number from the losses of tokens.

    per_token, mask: (N, T) of this micro-batch. rollouts, tokens: counts of the whole batch, so that the
    results of micro-batches add up. longest: the longest completion allowed (--max_new_tokens).

    grpo:    mean over each rollout's tokens, then over rollouts (eq. 11)
    dapo:    mean over the tokens of the whole batch
    bnpo:    mean over the tokens of each micro-batch
    dr_grpo: sum over tokens / (rollouts x longest): a token weighs the same, however long its rollout is
    In grpo, bnpo and dr_grpo rollouts of skipped groups are not counted (our choice).

    Losses 4 | 1 1 1 of two rollouts, longest 4: grpo (4 + 1) / 2, dapo and bnpo 7 / 4, dr_grpo 7 / (2 x 4).
    """
    # BEGIN SOLUTION ex8
    summed = (per_token * mask).sum(dim=1)  # (N,)
    if kind == "grpo":
        return (summed / mask.sum(dim=1).clamp(min=1)).sum() / rollouts
    if kind == "dapo":
        return summed.sum() / tokens
    if kind == "dr_grpo":
        return summed.sum() / (rollouts * longest)
    share = len(mask) / rollouts  # of this micro-batch in the batch
    return summed.sum() / mask.sum().clamp(min=1) * share
    # END SOLUTION


def mean_over_tokens(values, mask, tokens):
    """A micro-batch's part of the mean over all `tokens` of the batch. values, mask: (N, T) -> float"""
    return ((values * mask).sum() / tokens).item()


@dataclass
class MicroBatch:
    """Rollouts that go through the model together: the same members of each of some groups."""
    groups: list    # which prompts of this step
    members: range  # which rollouts of each of them, of 0 .. G - 1
    rows: list      # where they stand in the step's (B*G, T) tensors: rollout g of prompt b is row b * G + g
    old_logprobs: torch.Tensor | None = None  # (N, T) under the policy that sampled; the first update sets it


def micro_batches(groups, group_size, size):
    """Cut the rollouts of these groups into micro-batches of at most `size` rollouts.

    Whole groups where they fit, because a group's rollouts share the forward pass of their prompt; else parts
    of one. Of groups [4, 7, 9] with group_size 4:   size 8 -> all of 4 and 7; all of 9
                                                     size 3 -> 0 to 2 of 4; 3 of 4; 0 to 2 of 7; 3 of 7; ...
    """
    groups_at_once = max(1, size // group_size)
    members_at_once = min(size, group_size)
    batches = []
    for i in range(0, len(groups), groups_at_once):
        together = groups[i:i + groups_at_once]
        for first in range(0, group_size, members_at_once):
            members = range(first, min(first + members_at_once, group_size))
            rows = [b * group_size + g for b in together for g in members]
            batches.append(MicroBatch(together, members, rows))
    return batches


def score(policy, prompts, rollouts, batch, temperature):
    """log p and entropy of a micro-batch's completions under the policy as it is now -> (N, T), (N, T)."""
    return P.token_logprobs(policy, prompts.select(batch.groups), len(batch.members),
                            rollouts.ids[batch.rows], rollouts.mask[batch.rows], temperature)


# ---- 3. Rewards, evaluation and the log --------------------------------------------------------------------
def build_verifier(cfg, policy, weights):
    """-> (the verifier that rewards, the Measure of both arms alike). They share their teachers."""
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer,
                                                 cache=cfg.teacher_cache, base=policy)

    def load(name):
        if name != "base":
            return load_judge(name, cfg.preset, dtype=cfg.dtype)
        if policy is None:
            raise BadInput("judge base: there is no policy here; name a model")
        return VLMJudge(policy, preset=cfg.preset, adapter_off=True)

    def verifier(who_judges, use):
        return Argos(detector, segmenter, pointer, who_judges, weights, cfg.tau, use, **verifier_options(cfg))

    judge = load(cfg.judge)
    rewarding = verifier(judge, REWARDS[cfg.reward])
    if not cfg.eval_judge:
        return rewarding, Measure(verifier(judge, ("outcome", "grounding")))
    other = verifier(load(cfg.eval_judge), ("outcome", "grounding"))
    return rewarding, Measure(verifier(judge, ("outcome",)), other)


def encode(policy, samples, media, preset):
    """The samples' questions, asked with reasoning and points, with their pictures or clips. -> P.Prompts"""
    items = []
    for sample, seen in zip(samples, media):
        items.append((seen, P.prompt(preset, "reason", question=sample.question)))
    return P.encode_prompts(policy, items)


@torch.no_grad()
def evaluate(policy, measure, samples, cfg, step, accelerator, shown=None):
    """Sampled answers and grounding on held-out samples, always with one seed, so that curves compare; cards.

    shown: a list that gets some of the held-out verdicts, as questions of the page.
    -> {"answers": mean R_o as measured, "judged": the same as the judge that rewards has it, "grounding": mean
    R_vg} over all processes, None where nothing was scored; signs of hacking (verifier/watch.py); and seconds.
    """
    phases = processes.Phases(policy.device)
    generator = torch.Generator(policy.device).manual_seed(cfg.seed)
    asked = len(samples)
    samples = [samples[i] for i in processes.share(accelerator, len(samples))]  # this process's part
    size = max(1, min(128, cfg.sample_batch // cfg.group_size))
    rows = []
    scored = []
    for i in range(0, len(samples), size):
        batch, media = measure.verifier.usable(samples[i:i + size])  # damaged files are named and left out
        if not batch:
            continue
        rollouts = P.sample(policy, encode(policy, batch, media, cfg.preset), 1, cfg.eval_temperature,
                            max_new_tokens=cfg.max_new_tokens, generator=generator)
        measured = measure.score(batch, rollouts.texts, media)
        finished = rollouts.finished.tolist()
        for sample, text, seen, one, ended in zip(batch, rollouts.texts, media, measured, finished):
            grounding = one.verdict.grounding if sample.grounding else None
            signs = signs_of(sample, one.verdict, one.judged, ended, cfg.tau)
            rows.append(dict(answers=one.outcome, judged=one.judged, grounding=grounding, signs=signs))
            scored.append((sample, text, seen, one.verdict))

    rows = processes.gather(accelerator, rows)
    if asked and not rows:
        raise BadInput(f"{cfg.val}: none of its pictures and clips can be read; the lines above name them")
    if accelerator.is_main_process:
        draw_cards(scored, cfg.cards, Path(cfg.out) / "cards", step)
        if shown is not None:
            for sample, text, seen, verdict in spread(scored, PAGE_SAMPLES):
                rollout = Rollout("held out", text, verdict, by_text(sample, verdict))
                shown.append(question(sample, seen, [rollout]))
    means = {name: mean(known(rows, name)) for name in ("answers", "judged", "grounding")}
    phases.done("evaluate")
    return means | signs_together([row["signs"] for row in rows]) | phases.report()


def draw_cards(scored, count, folder, step):
    """Cards of `count` samples of this process, a list of (sample, response, media, verdict): the first of each
    kind of question, even if there are more kinds, then others, spread evenly."""
    if not count or not scored:
        return
    make_folder(folder)
    for sample, text, media, verdict in spread(scored, count):
        path = folder / f"step-{step:05d}-{file_name(sample.id)}.png"
        draw_card(media, sample, text, verdict, verdict.masks, path)


def spread(scored, count):
    """`count` of the scored samples, or as many as there are kinds of questions; see draw_cards."""
    first_of_kind = {}
    for i, (sample, *_) in enumerate(scored):
        first_of_kind.setdefault((sample.kind, sample.media), i)
    chosen = list(first_of_kind.values())
    others = [i for i in range(len(scored)) if i not in chosen]
    more = max(0, min(count - len(chosen), len(others)))
    chosen += [others[k * len(others) // more] for k in range(more)]
    return [scored[i] for i in chosen]


PAGE_GROUPS = 6    # on page.html: of the last step
PAGE_SAMPLES = 18  # on page.html: held-out


def evaluate_and_show(policy, measure, val, cfg, weights, step, accelerator, groups=()):
    """Evaluate, log it, and write page.html anew.

    groups: what the page shows of the last training step, [(sample, media, responses, verdicts)].
    """
    shown = []
    curve_point = evaluate(policy, measure, val, cfg, step, accelerator, shown)
    processes.log(accelerator, cfg.out, dict(kind="eval", step=step, **curve_point))
    if not accelerator.is_main_process:
        return
    questions = []
    for sample, media, responses, verdicts in groups:
        group = [Rollout("the policy", text, verdict, by_text(sample, verdict))
                 for text, verdict in zip(responses, verdicts)]
        questions.append(question(sample, media, group=group))
    about = (f"After {step} of {cfg.steps} steps with --reward {cfg.reward}. First groups of the last step, with "
             "the advantages that moved the weights; then held-out samples, on which nothing is trained: they are "
             "measured without R_rq.")
    write_page(Path(cfg.out, "page.html"), f"GRPO: {Path(cfg.out).name}", about, weights, cfg.tau,
               questions + shown, {cfg.reward: [read_curve(cfg.out)]}, scale=cfg.scale_advantage)


def known(rows, name):
    """The values of a column that are there: None where a teacher failed, or nothing was asked for."""
    return [row[name] for row in rows if row[name] is not None]


def mean(values, if_empty=None):
    return sum(values) / len(values) if values else if_empty


def readable(verifier, train, order, places):
    """The samples at these places of the data order, and their Media; those with a damaged file are left out.

    If that leaves none, the next sample whose file can be read takes their place. order: indices into `train`;
    a place beyond its end starts it again. Raises BadInput if no file of the training data can be read.
    """
    samples, media = verifier.usable([train[order[place % len(train)]] for place in places])
    once_around = range(places[-1] + 1, places[-1] + len(train))
    for place in once_around:
        if samples:
            break
        samples, media = verifier.usable([train[order[place % len(train)]]])
    if not samples:
        raise BadInput(f"no file of the training data can be read: there is nothing to learn from; the first is "
                       f"{train[0].path}")
    return samples, media


@dataclass
class UpdateStats:
    """The updates on one batch of rollouts in numbers. The first four are this process's part of a sum."""
    loss: float = 0.
    entropy: float = 0.         # nats per token
    clip_fraction: float = 0.   # share of the tokens whose gradient the clip stopped
    kl: float = 0.              # k3 per token
    sampler_gap: float = 0.     # largest |log p of the sampler - log p of the trainer|
    grad_norm: float = 0.       # before clipping, of the last update

    def over_all(self, accelerator):
        """The numbers of all processes together."""
        parts = processes.gather(accelerator, [self])
        return UpdateStats(
            loss=sum(part.loss for part in parts),
            entropy=sum(part.entropy for part in parts),
            clip_fraction=sum(part.clip_fraction for part in parts),
            kl=sum(part.kl for part in parts),
            sampler_gap=max(part.sampler_gap for part in parts),
            grad_norm=self.grad_norm)  # of the summed gradients: the same in every process


def summarise(accelerator, samples, verdicts, rollouts, causes, tau):
    """What a step's rollouts of all processes looked like. Every process has to call it, since it gathers.

    verdicts: a list per sample. causes: why groups of this process were skipped, as zero_variance_cause names
    it. -> {name: number, or {part: number}}, as metrics.jsonl gets them. None: not part of this reward, a teacher
    failed for all, or there was no such question.
    """
    scores = []
    finished = iter(rollouts.finished.tolist())
    for sample, group in zip(samples, verdicts):
        for v in group:
            signs = signs_of(sample, v, v.outcome, next(finished), tau)
            scores.append(dict(reward=v.reward, outcome=v.outcome, grounding=v.grounding, reasoning=v.reasoning,
                               points=len(v.parsed.points), signs=signs))
    scores = processes.gather(accelerator, scores)
    causes = processes.gather(accelerator, causes)
    lengths = processes.gather(accelerator, rollouts.mask.sum(dim=1).tolist())
    signs = [row["signs"] for row in scores]
    outcomes = known(scores, "outcome")
    return dict(
        reward=torch.tensor(known(scores, "reward") or [0.]).mean().item(),
        outcome=mean(outcomes, 0.),
        grounding=mean(known(scores, "grounding")),
        reasoning=mean(known(scores, "reasoning")),
        gate_open=mean([outcome >= tau for outcome in outcomes], 0.),
        points=mean(known(scores, "points"), 0.),  # per rollout
        length=torch.tensor(lengths, dtype=torch.float).mean().item(),  # tokens per rollout
        unfinished=mean([sign["unfinished"] for sign in signs], 0.),  # share that was cut
        **signs_together(signs),
        skipped=len(causes),
        **{cause: causes.count(cause) for cause in CAUSES})


SHORT_NAMES = {"R": "reward", "R_o": "outcome", "R_vg": "grounding", "R_rq": "reasoning"}


def bar_text(summary):
    """What the progress bar shows of a step."""
    shown = {}
    for short, name in SHORT_NAMES.items():
        if summary[name] is not None:
            shown[short] = f"{summary[name]:.2f}"
    shown["skip"] = summary["skipped"]
    return shown


# ---- 4. Training -------------------------------------------------------------------------------------------
def main():
    cfg = parse_config(Config, __doc__, preset_arguments("train_grpo", Config))
    weights = check(cfg)
    follow_budget(cfg, cfg.policy)
    accelerator = processes.start(cfg)  # one process, or several: each has its share of every step's prompts
    if cfg.prompts < accelerator.num_processes:
        raise BadInput(f"--prompts {cfg.prompts}: {accelerator.num_processes} processes need at least one each")
    ledger.check_memory(cfg, accelerator)
    if cfg.dry_run:
        return
    with processes.alone(accelerator, cfg.out):
        work(cfg, weights, accelerator)


def work(cfg, weights, accelerator):
    """The whole run, in a folder that is this run's alone. weights: of the reward's terms."""
    out = Path(cfg.out)
    train = read_samples(cfg.data)
    val = read_samples(cfg.val)[:cfg.eval_samples]
    torch.manual_seed(cfg.seed)  # the adapter's first weights
    policy = P.load_policy(cfg.policy, lora_rank=cfg.lora_rank, dtype=cfg.dtype,
                           checkpointing=cfg.checkpointing, fast=cfg.fast)
    verifier, measure = build_verifier(cfg, policy, weights)
    verifier.self_check()  # refuses to train where points miss
    measure.verifier.self_check()
    accelerator.print(measure.remark(val))
    parameters = list(P.trainable(policy).values())
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, betas=(.9, .99), weight_decay=0.)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(cfg.seed)).tolist()

    # A step depends on (weights, optimizer, step number) alone: data order and sampling are seeded by the
    # step, and nothing else is random. So these three are the whole state, and a resumed run repeats the
    # killed one bit for bit (on a CPU).
    processes.claim(accelerator, cfg)  # now that all that was named is there
    start = P.load_state(out / "state.pt", policy, optimizer, cfg.steps) if cfg.resume else 0
    if cfg.eval_every:
        accelerator.print(f"open {out}/page.html; every {cfg.eval_every} steps it is written anew")
    if cfg.eval_every and start == 0:
        evaluate_and_show(policy, measure, val, cfg, weights, 0, accelerator)

    bar = trange(start, cfg.steps, initial=start, total=cfg.steps, desc=f"GRPO ({cfg.reward})", unit="step",
                 disable=not accelerator.is_main_process)
    for step in bar:
        phases = processes.Phases(policy.device)
        lr = learning_rate(step, cfg)
        for group in optimizer.param_groups:
            group["lr"] = lr

        # 4a. Rollouts: G per prompt, of this process's prompts.
        seed = cfg.seed * 1_000_003 + step + accelerator.process_index * 10 ** 12
        generator = torch.Generator(policy.device).manual_seed(seed)
        places = [step * cfg.prompts + i for i in processes.share(accelerator, cfg.prompts)]
        samples, media = readable(verifier, train, order, places)
        prompts = encode(policy, samples, media, cfg.preset)
        rollouts = P.sample(policy, prompts, cfg.group_size, cfg.temperature, generator=generator,
                            max_new_tokens=cfg.max_new_tokens, batch_size=cfg.sample_batch)  # ids (B*G, T)
        phases.done("sample")

        # 4b. Verdicts and advantages.
        firsts = range(0, len(rollouts.texts), cfg.group_size)
        texts = [rollouts.texts[first:first + cfg.group_size] for first in firsts]  # B lists of G responses
        verdicts = verifier.verify_groups(samples, texts, media)
        # A reward of None was not scored, for the whole group: it teaches nothing, as 0 in all of them does.
        rewards = torch.tensor([[v.reward or 0. for v in group] for group in verdicts])  # (B, G)
        advantage = advantages(rewards, cfg.scale_advantage)  # (B, G)
        differs = rewards.std(dim=1) > 1e-6  # (B,)
        equal = [group for group, different in zip(verdicts, differs) if not different]
        causes = [zero_variance_cause(group, cfg.tau) for group in equal]
        phases.done("verify")

        # 4c. The batch: the groups that teach something, of like length together, so that there is little
        # padding. Counts are those of all processes together: then losses and gradients of micro-batches and
        # of processes simply add up, however unequal they are.
        mask = rollouts.mask.float()  # (B*G, T)
        if cfg.mask_overlong:
            mask = mask * rollouts.finished.float()[:, None]
        lengths = prompts.lengths().tolist()
        teaching = sorted(differs.nonzero()[:, 0].tolist(), key=lengths.__getitem__)
        own_groups = torch.tensor(float(len(teaching)), device=mask.device)
        own_tokens = mask.view(len(samples), -1)[teaching].sum()
        n_groups, n_tokens = accelerator.reduce(torch.stack([own_groups, own_tokens]), "sum")
        n_rollouts = int(n_groups) * cfg.group_size
        n_tokens = n_tokens.clamp(min=1)
        batches = micro_batches(teaching, cfg.group_size, cfg.micro_batch)

        # 4d. The updates. In the first one the policy is still the one that sampled. So at --updates 1, the
        # default, every ratio is 1, the clip is idle, and the gradient is that of -advantage * log p:
        # REINFORCE with the group's mean as its baseline. Ratio and clip matter from the second update on the
        # same rollouts.
        stats = UpdateStats()
        for update in range(cfg.updates if n_rollouts else 0):
            for batch in batches:
                logprobs, entropy = score(policy, prompts, rollouts, batch, cfg.temperature)  # (N, T) each
                batch_mask = mask[batch.rows]  # (N, T)
                batch_advantage = advantage.flatten()[batch.rows, None].to(mask.device)  # (N, 1)
                if update == 0:  # the trainer's own scores of the policy that sampled, not the sampler's
                    batch.old_logprobs = logprobs.detach()
                    gap = (batch.old_logprobs - rollouts.logprobs[batch.rows]) * batch_mask
                    stats.sampler_gap = max(stats.sampler_gap, gap.abs().max().item())
                ref_logprobs = None
                if cfg.beta:
                    with torch.no_grad(), P.adapter_off(policy):
                        ref_logprobs, _ = score(policy, prompts, rollouts, batch, cfg.temperature)
                    kl = k3(logprobs.detach(), ref_logprobs)
                    stats.kl += mean_over_tokens(kl, batch_mask, n_tokens) / cfg.updates

                per_token, ratio = token_loss(logprobs, batch.old_logprobs, ref_logprobs, batch_advantage,
                                              cfg.eps_low, cfg.eps_high, cfg.beta)
                loss = average(per_token, batch_mask, cfg.loss, n_rollouts, n_tokens, cfg.max_new_tokens)
                loss.backward()

                clipped = clipped_tokens(ratio, batch_advantage, cfg.eps_low, cfg.eps_high)
                stats.loss += loss.item() / cfg.updates
                stats.entropy += mean_over_tokens(entropy.detach(), batch_mask, n_tokens) / cfg.updates
                stats.clip_fraction += mean_over_tokens(clipped, batch_mask, n_tokens) / cfg.updates
            processes.sum_gradients(accelerator, parameters)
            stats.grad_norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm).item()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        phases.done("update")

        # 4e. What happened, in all processes.
        summary = summarise(accelerator, samples, verdicts, rollouts, causes, cfg.tau)
        updated = vars(stats.over_all(accelerator))
        if not n_rollouts:
            updated = dict.fromkeys(updated)  # nothing was learned: None, not 0
        # Of teachers and files, since this process began.
        failures = processes.gather(accelerator, [verifier.failures + measure.failures])
        prompt_length = mean(processes.gather(accelerator, lengths))  # tokens; runs/costs.py reads it
        processes.log(accelerator, out, dict(kind="train", step=step, lr=lr, prompt_length=prompt_length,
                                             **summary, **updated, failures=sum(failures, Counter()),
                                             **phases.report()))
        bar.set_postfix(bar_text(summary))

        # 4f. Evaluation and checkpoint.
        done = step + 1
        last = done == cfg.steps
        if cfg.eval_every and (done % cfg.eval_every == 0 or last):
            groups = list(zip(samples, media, texts, verdicts))[:PAGE_GROUPS]
            evaluate_and_show(policy, measure, val, cfg, weights, done, accelerator, groups)
        if accelerator.is_main_process and (done % cfg.save_every == 0 or last):
            P.save_state(out / "state.pt", policy, optimizer, done)
    P.finish(accelerator, cfg, policy, trained=start < cfg.steps)


if __name__ == "__main__":
    run_main(main)
