"""One GRPO step here and in TRL, in turns: seconds by phase, memory, and a line "ratio" for each setting.

A script, not a test. Two processes hold the real things: train_grpo.main() as it is, and trl.GRPOTrainer.train()
as it is. They take steps in turns, so nothing else runs while one is timed, and a noisy machine is noisy for
both. The first step of each is a warm-up. A ratio of 3 says that TRL's median step takes three times as long.

What is equal: the model's weights and their type, LoRA (rank 64, alpha 128, the same matrices), pictures, the text
of the chat, prompts and rollouts a step, temperature 1, one update per batch, beta 0, loss, clipping, AdamW,
checkpointing, attention (PyTorch's sdpa), the verifier that rewards (serve.trl_reward), threads. Where a
setting has "forced" lengths, the end token is banned for both. The learning rate is TRL's default, 1e-6: the
policy stays what it is, and both draw from one distribution.

Equal work: both draw and decode their own rollouts. Then the verifier gets written responses in their place, the
same for both, half of them right: so every group teaches, none is skipped, and the verifier has its full work
though random weights write noise. A ratio is printed only after that was checked. In the last table half of the
groups are written all right: TRL computes their gradient, which is zero; we skip them.

How TRL was set (version 1.16, whose source was read for what costs time), each time in its favour:
  - all rollouts of a step are generated in one call, and no log-probability is computed twice
    (gradient_accumulation_steps = steps_per_generation);
  - per_device_train_batch_size, as micro_batch here: --tune tries several, the fastest is in SETTINGS;
  - gradient_checkpointing only where ours is on (TRL's default is on: about a fifth of its time);
  - pictures lie in memory, decoded. Ours reads its files at every step; TRL would decode a picture for every
    rollout and every micro-batch, since its sampler repeats rows;
  - the reward gets pictures by path, and all groups in one call: no detour over temporary files;
  - malloc keeps large buffers (policy.keep_big_buffers), which helps a cache that is copied: loading our judge
    sets it for the process;
  - special tokens alone are banned, by suppress_tokens, a mask over the vocabulary, as TRL's default bans the
    image token; ours bans ids that spell nothing, too;
  - no completions, trackers, checkpoints or bars are written; with 16-bit weights bf16 is on, its default; top_k,
    min_p, repetition_penalty, torch_empty_cache_steps and the reference model are off, by default or by beta 0.
Not used: vLLM. It is another engine with its own copy of the weights, and ours could not use it: this compares
two trainers that sample with the model they train; with vLLM, TRL's `sample` is shorter. Nor flash-attn, a package
to be compiled; nor cache_implementation="static": TRL 1.16 switches compilation off, and it gained nothing here.

Seconds: TRL's `sample` is its _generate (tokenizing, pictures and vision tower included, as in ours), `verify` its
_calculate_rewards, `update` the rest of its step. GB: on a GPU the most that tensors held, weights included; on a
CPU how far the process's resident memory grew over what it was before the first step. There the line "ratio" also
has the ratio of CPU time, which other programs on the machine disturb less.

Run:   python tests/benchmark_trl.py                       # the CPU's settings, or a GPU's where there is one
       python tests/benchmark_trl.py --settings tiny 10m --steps 3 --threads 1
       python tests/benchmark_trl.py --settings 7b --tiny  # a tiny model: nothing is measured, but all of it runs
       python tests/benchmark_trl.py --settings 10m --tune # seconds by size of the micro-batch
Needs: pip install -r tests/requirements-more.txt (TRL)
Before: train_grpo.py, tests/benchmark_models.py (models and responses). Test: tests/test_trl.py
"""
import argparse
import json
import multiprocessing
import os
import re
import resource
import statistics
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of the network

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from argos import Argos  # noqa: E402
from runs import processes  # noqa: E402
from runs.checkpoints import budget_of, save_budget  # noqa: E402
from runs.errors import first_line  # noqa: E402
from runs.settings import LORA_TARGETS, QWEN_7B, TOKEN, parse_config, preset_arguments  # noqa: E402
from verifier.samples import read_samples  # noqa: E402
from serve import trl_reward  # noqa: E402
import policy as P  # noqa: E402
import train_grpo  # noqa: E402
from tiny import models, world  # noqa: E402
from benchmark_models import build, configuration, random_model, word_tokenizer, write_data  # noqa: E402

RANK = 64
LEARNING_RATE = 1e-6
PHASES = ("sample", "verify", "update")


# ---- 1. Settings -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Setting:
    """What both trainers get; only the size of a micro-batch is each one's own."""
    model: str                # "trained": out/sft/merged, or tiny/teacher; else random: benchmark_models.py
    prompts: int              # per step
    vision_tokens: int        # of a prompt's picture
    new_tokens: int           # of a rollout, at most
    micro_batch: int          # rollouts per forward pass of the update: ours
    trl_batch: int            # and TRL's, per_device_train_batch_size
    forced: bool = True       # the end token is banned: every rollout has new_tokens
    reward: str = "no-rq"     # answer and grounding, by the pixel teachers: no judge
    dtype: str = "float32"
    checkpointing: bool = False
    drawn: bool = False       # drawn where it trains, not read from a folder: for what fills a GPU
    preset: str = "tiny"      # whose prompt
    group: int = 8            # rollouts per prompt
    sizes: tuple = ()         # micro-batches that --tune tries

    @property
    def rollouts(self):
        return self.prompts * self.group


SEVEN_B = Setting("7b", prompts=7, vision_tokens=512, new_tokens=256, micro_batch=8, trl_batch=8, dtype="bfloat16",
                  checkpointing=True, drawn=True, preset="7b-bf16", sizes=(8, 28, 56))
TEN_M = Setting("10m", prompts=4, vision_tokens=256, new_tokens=64, micro_batch=8, trl_batch=8, sizes=(8, 16, 32))
SETTINGS = {
    # train_grpo.py's own defaults: the tiny policy on pictures of the tiny world, its own lengths, all rewards.
    "tiny": Setting("trained", prompts=16, vision_tokens=9, new_tokens=112, forced=False, reward="argos",
                    micro_batch=64, trl_batch=32, sizes=(16, 32, 64, 128)),
    "10m": TEN_M,
    "10m-long": replace(TEN_M, new_tokens=256),
    "7b": SEVEN_B,
    "7b-long": replace(SEVEN_B, new_tokens=768),
}


def smaller(setting):
    """The setting with the least of everything, on the same paths of the code: --tiny, and the test."""
    model = "trained" if setting.model == "trained" else "tiny"
    return replace(setting, model=model, prompts=2, group=4, vision_tokens=min(16, setting.vision_tokens),
                   new_tokens=48, micro_batch=4, trl_batch=4, sizes=(4, 8))


def arguments(setting, folder, steps):
    """train_grpo.py's command line. -> words"""
    words = (f"--preset {setting.preset} --reward {setting.reward} --dtype {setting.dtype} --lora_rank {RANK} "
             f"--prompts {setting.prompts} --group_size {setting.group} --max_new_tokens {setting.new_tokens} "
             f"--sample_batch {setting.rollouts} --micro_batch {setting.micro_batch} "
             f"--checkpointing {setting.checkpointing} --lr {LEARNING_RATE} --decay False --warmup 1 --beta 0 "
             f"--temperature 1 --steps {steps} --eval_every 0 --save_every 1000000 --merge False "
             f"--detector pixels --segmenter pixels --pointer pixels --extract False").split()
    if setting.model != "trained":  # a trained one knows its pixels
        words += ["--image_pixels", str(setting.vision_tokens * TOKEN)]
    if setting.drawn:
        words += ["--policy", QWEN_7B, "--judge", "base"]
    else:
        words += ["--policy", policy_folder(setting, folder), "--judge", train_grpo.TINY_TEACHER]
    return words + ["--data", f"{folder}/rl.jsonl", "--val", f"{folder}/rl.jsonl", "--out", f"{folder}/out"]


def policy_folder(setting, folder):
    if setting.model != "trained":
        return f"{folder}/policy"
    finished = ROOT / "out/sft/merged"
    return str(finished) if (finished / "config.json").exists() else train_grpo.TINY_TEACHER


def read_arguments(setting, folder, steps=1):
    words = arguments(setting, folder, steps)
    return parse_config(train_grpo.Config, "", preset_arguments("train_grpo", train_grpo.Config, words))


# ---- 2. Model, pictures and responses, on disk for both ----------------------------------------------------
def prepare(setting, folder):
    """Write what both trainers read: rl.jsonl with its pictures, responses.json, and a model or its processor."""
    cfg = read_arguments(setting, folder)
    if setting.model == "trained":
        responses = write_world(folder, setting)
    else:
        tokenizer = word_tokenizer()
        right = write_data(Path(folder), cfg, tokenizer, "image")
        wrong = right.replace("<answer>1", "<answer>2")
        both = [right, wrong] * (setting.group // 2)
        responses = {f"it {i}": {"differ": both, "equal": [right] * setting.group} for i in range(8)}
        policy = Path(folder, "policy")
        policy.mkdir()
        save_budget(models.build_processor(tokenizer), policy, budget_of(cfg))
        if not setting.drawn:
            torch.manual_seed(0)
            random_model(configuration(setting.model, tokenizer)).save_pretrained(policy)
    Path(folder, "responses.json").write_text(json.dumps(responses))


def write_world(folder, setting):
    """Pictures of the tiny world with their questions. -> responses to each: see Written.

    Right ones reason as the world's oracle does; their points lie up to 3 pixels from its own, so that texts
    differ as those of a real group do. Wrong ones give another question's answer.
    """
    rng = np.random.default_rng(0)
    items = []
    while len(items) < setting.prompts:
        item = world.scene_item(rng)
        if "<point" in item.think and item.kind != "choice":  # whose answers are letters
            items.append(item)
    rows = []
    responses = {}
    for i, item in enumerate(items):
        picture = world.save_media(world.render(item.frames, rng), Path(folder) / f"{i}")
        row = dict(id=str(i), question=item.question, answer=item.answer, kind=item.kind, image=picture.name)
        rows.append(json.dumps(row))
        others = [other.answer for other in items if other.kind == item.kind and other.answer != item.answer]
        wrong = others[0] if others else "9"
        texts = []
        for k in range(setting.group):
            answer = wrong if k % 2 else item.answer
            texts.append(f"<think>{moved(item.think, k // 2)}</think><answer>{answer}</answer>")
        responses[str(i)] = {"differ": texts, "equal": [texts[0]] * setting.group}
    Path(folder, "rl.jsonl").write_text("\n".join(rows))
    return responses


def moved(reasoning, k):
    """The reasoning with its points k pixels further right: 0 to 3."""
    def further(match):
        return f'x1="{int(match[1]) + k}"'

    return re.sub(r'x1="(\d+)"', further, reasoning)


class Written:
    """The responses that the verifier gets in place of what was sampled.

    {id of the row: {"differ": G texts, half of them right; "equal": G times the same right text}}
    """

    def __init__(self, folder, turns):
        self.responses = json.loads(Path(folder, "responses.json").read_text())
        self.turns = turns

    def groups(self, ids):
        """G texts for each of these rows. In a step of kind "half", every second group's are equal."""
        texts = []
        for place, name in enumerate(ids):
            equal = self.turns.kind == "half" and place % 2
            texts.append(self.responses[name]["equal" if equal else "differ"])
        return texts


# ---- 3. A worker's turns -----------------------------------------------------------------------------------
class Turns:
    """Between a worker and the parent: wait for the word, then tell what the step took."""

    def __init__(self, connection):
        self.connection = connection
        self.kind = None  # of the step that runs: "all" groups teach, or "half" of them
        self.told = {}    # what the step tells, besides its seconds
        self.memory_before = None  # GB, before the first step

    def wait(self):
        """Until the parent names the kind of the next step. EOFError: the parent has all it wants."""
        self.kind = self.connection.recv()
        if self.memory_before is None:
            restart_resident_peak()
            self.memory_before = resident_peak_gb()
        self.clock = time.perf_counter()
        self.cpu_clock = time.process_time()

    def done(self, seconds, memory_gb):
        """seconds, memory_gb: by phase, as processes.Phases reports them; memory_gb is None on a CPU."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        whole = {"step": time.perf_counter() - self.clock, "cpu": time.process_time() - self.cpu_clock}
        if memory_gb:
            memory_gb = memory_gb | {"step": max(memory_gb.values())}
        else:
            memory_gb = {"step": resident_peak_gb() - self.memory_before}
        self.connection.send(self.told | {"seconds": seconds | whole, "memory_gb": memory_gb})


def restart_resident_peak():
    """Let the process's peak be what it holds now: Linux can; elsewhere loading counts, too."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_peak_gb():
    """The most memory that this process has held, in GB."""
    try:
        kilobytes = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    except (OSError, TypeError):  # no such file, or no such line
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kilobytes) * 1024 / 1e9


# ---- 4. Ours -----------------------------------------------------------------------------------------------
def ours(setting, folder, steps, turns, flags=()):
    """train_grpo.main() with these flags added. A step begins where it makes its Phases and ends with its log."""
    written = Written(folder, turns)
    load, log, verify = P.load_policy, processes.log, Argos.verify_groups
    if setting.drawn:
        build(setting.model)

    def load_policy(path, lora_rank=0, **options):
        policy = load(path, lora_rank=lora_rank, **options)
        if lora_rank:  # the one that is trained, not a judge
            turns.told["trained"] = sum(p.numel() for p in P.trainable(policy).values())
            if setting.forced:
                policy.ban[policy.tokenizer.eos_token_id] = -torch.inf
        return policy

    class PhasesInTurns(processes.Phases):
        def __init__(self, device):
            turns.wait()
            super().__init__(device)

    def verify_groups(self, samples, groups, media=None):
        if all(sample.id in written.responses for sample in samples):  # not the verifier's check of itself
            turns.told["rollouts"] = sum(len(group) for group in groups)
            groups = written.groups([sample.id for sample in samples])
        return verify(self, samples, groups, media)

    def log_and_tell(accelerator, out, row):
        log(accelerator, out, row)
        if row["kind"] == "train":
            turns.told |= {"tokens": row["length"], "skipped": row["skipped"], "reward": row["reward"]}
            turns.done(row["seconds"], row["memory_gb"])

    words = ["train_grpo.py", *arguments(setting, folder, steps), *flags]
    with (patch.object(P, "load_policy", load_policy), patch.object(processes, "Phases", PhasesInTurns),
          patch.object(processes, "log", log_and_tell), patch.object(Argos, "verify_groups", verify_groups),
          patch.object(sys, "argv", words)):
        train_grpo.main()


# ---- 5. TRL ------------------------------------------------------------------------------------------------
def theirs(setting, folder, steps, turns, **options):
    """trl.GRPOTrainer.train() with these options of GRPOConfig added. A callback ends a step and waits."""
    import datasets  # here alone: they take seconds and memory, which the other process must not carry
    import trl
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

    cfg = read_arguments(setting, folder)
    if cfg.judge == "base":
        cfg = replace(cfg, judge=train_grpo.TINY_TEACHER)  # is loaded, and has nothing to say
    verifier, _ = train_grpo.build_verifier(cfg, None, train_grpo.check(cfg))
    device = torch.device(P.default_device())
    its_processor = f"{folder}/policy" if setting.drawn else cfg.policy
    processor = AutoProcessor.from_pretrained(its_processor, padding_side="left")
    torch.manual_seed(cfg.seed)  # as in train_grpo.py: what is drawn is the same model
    if setting.drawn:
        config = configuration(setting.model, processor.tokenizer)
        model = random_model(config, getattr(torch, setting.dtype), device)
    else:
        model = AutoModelForImageTextToText.from_pretrained(cfg.policy, dtype=getattr(torch, setting.dtype))

    # 5a. Data: the same rows in the same number, pictures decoded once.
    rows = []
    for sample in read_samples(cfg.data)[:setting.prompts]:
        text = P.prompt(cfg.preset, "reason", question=sample.question)
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        row = dict(image=os.path.abspath(sample.path), question=sample.question, answer=sample.answer,
                   kind=sample.kind, foils=sample.foils or [])
        rows.append(dict(prompt=chat, image=Image.open(sample.path).convert("RGB"), id=sample.id, row=row))

    def fetch(batch):
        return {name: [rows[i][name] for i in batch["row"]] for name in rows[0]}

    places = list(range(setting.prompts)) * steps
    data = datasets.Dataset.from_dict({"row": places}).with_transform(fetch)

    # 5b. The reward: that of train_grpo.py, of the written responses.
    written = Written(folder, turns)
    reward = trl_reward(verifier, processor, Path(cfg.data).parent, setting.rollouts)

    def argos_reward(completions, row, id, **columns):
        texts = []
        for group in written.groups(id[::setting.group]):
            texts += group
        rewards = reward(completions=texts, row=row)
        by_group = torch.tensor(rewards).view(-1, setting.group)
        turns.told |= {"rollouts": len(completions), "skipped": int((by_group.std(dim=1) < 1e-6).sum()),
                       "reward": by_group.mean().item()}
        return rewards

    class InTurns(TrainerCallback):
        def begin(self):
            turns.wait()
            self.phases = processes.Phases(device)

        def on_train_begin(self, args, state, control, **kwargs):
            self.begin()

        def on_step_end(self, args, state, control, **kwargs):
            self.phases.done("loss")
            report = self.phases.report()
            turns.done(together(report["seconds"], sum), together(report["memory_gb"], max))
            if state.global_step < args.max_steps:
                self.begin()

    # 5c. The trainer.
    banned = [i for i, token in processor.tokenizer.added_tokens_decoder.items() if token.special]
    if not setting.forced:
        banned.remove(processor.tokenizer.eos_token_id)
    in_turns = InTurns()
    settings = dict(
        output_dir=f"{folder}/trl", use_cpu=device.type == "cpu", bf16=setting.dtype == "bfloat16", seed=cfg.seed,
        gradient_checkpointing=setting.checkpointing, num_generations=setting.group, max_steps=steps,
        per_device_train_batch_size=setting.trl_batch,
        gradient_accumulation_steps=setting.rollouts // setting.trl_batch,
        max_completion_length=setting.new_tokens, temperature=1.0, generation_kwargs={"suppress_tokens": banned},
        loss_type="grpo", beta=0.0, num_iterations=1, learning_rate=LEARNING_RATE, lr_scheduler_type="constant",
        adam_beta2=.99, weight_decay=0.0, max_grad_norm=1.0, shuffle_dataset=False, report_to="none",
        save_strategy="no", disable_tqdm=True)
    trainer = trl.GRPOTrainer(
        model=model, args=trl.GRPOConfig(**settings | options), reward_funcs=argos_reward, train_dataset=data,
        processing_class=processor, callbacks=[in_turns],
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LORA_TARGETS))
    turns.told["trained"] = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    generate, calculate_rewards = trainer._generate, trainer._calculate_rewards

    def timed_generate(prompts):
        in_turns.phases.done("fetch")
        result = generate(prompts)
        in_turns.phases.done("sample")
        lengths = [len(ids) for ids in result[1]]
        turns.told["tokens"] = sum(lengths) / len(lengths)
        return result

    def timed_rewards(*args):
        in_turns.phases.done("encode")  # TRL's second pass over the pictures, for the update
        result = calculate_rewards(*args)
        in_turns.phases.done("verify")
        return result

    trainer._generate, trainer._calculate_rewards = timed_generate, timed_rewards
    trainer.train()


def together(parts, how):
    """The five stretches of TRL's step as our three phases. how: sum (of seconds) or max (of memory).

    None, which is the memory on a CPU, stays None.
    """
    if not parts:
        return None
    rest = [parts[name] for name in ("fetch", "encode", "loss")]
    return {"sample": parts["sample"], "verify": parts["verify"], "update": how(rest)}


# ---- 6. Both in turns --------------------------------------------------------------------------------------
TRAINERS = {"TRL": theirs, "ours": ours}


def work(name, setting, folder, steps, threads, connection):
    """A worker process."""
    os.dup2(2, 1)  # what libraries print goes to stderr; stdout is for results
    os.environ["TQDM_DISABLE"] = "1"
    if threads:
        torch.set_num_threads(threads)
    try:
        TRAINERS[name](setting, folder, steps, Turns(connection))
    except EOFError:
        pass
    except (Exception, SystemExit) as error:  # out of memory, or a package that is missing
        traceback.print_exc()
        connection.send({"error": f"{name}: {first_line(error)}"})


class Failed(Exception):
    """A worker ended before its steps were done."""


@contextmanager
def workers(setting, folder, steps, threads):
    """Start both. -> {name: the parent's end of its connection}; at the end neither is left.

    Each has a step more than it will be given: so that none writes its last files while the other is timed.
    """
    spawn = multiprocessing.get_context("spawn")
    started = []
    connections = {}
    for name in TRAINERS:
        connections[name], end = spawn.Pipe()
        worker = spawn.Process(target=work, args=(name, setting, folder, steps + 1, threads, end),
                               daemon=True)
        worker.start()
        end.close()
        started.append(worker)
    try:
        yield connections
    finally:
        for worker in started:
            worker.kill()
            worker.join()


def take_turns(setting, folder, kinds, threads):
    """Steps of these kinds, ours and TRL's in turns. -> {name: a row for each step}. Raises Failed."""
    rows = {name: [] for name in TRAINERS}
    with workers(setting, folder, len(kinds), threads) as connections:
        for step, kind in enumerate(kinds):
            for name in ("ours", "TRL"):
                try:
                    connections[name].send(kind)
                    row = connections[name].recv()
                except (EOFError, OSError):
                    row = {"error": f"{name} ended"}
                if "error" in row:
                    raise Failed(row["error"])
                rows[name].append(row)
                took = row["seconds"]["step"]
                progress(f"step {step} ({kind}) {name:4} {took:.2f} s, {row['tokens']:.1f} tokens")
    return rows


def progress(text):
    print(text, file=sys.stderr, flush=True)


def check_equal(rows, prompts):
    """Both did the same work, or the numbers mean nothing. Raises Failed."""
    for name in ("rollouts", "trained", "skipped", "reward"):
        values = {trainer: [row[name] for row in rows[trainer]] for trainer in rows}
        if not np.allclose(values["TRL"], values["ours"], rtol=1e-4):
            raise Failed(f"unequal work, {name}: {values}")
    if any(row["skipped"] for row in rows["ours"]):
        raise Failed(f"{rows['ours'][0]['skipped']} of {prompts} groups have no variance")


def median(rows, part, phase):
    return statistics.median(row[part][phase] for row in rows)


def measure(setting, steps, half_steps, threads):
    """-> rows of the steps in which all groups teach, of those in which half do, each {name: rows}."""
    kinds = ["all"] * (1 + steps) + ["half"] * half_steps
    with tempfile.TemporaryDirectory() as folder:
        prepare(setting, folder)
        rows = take_turns(setting, folder, kinds, threads)
    teaching = {name: each[1:1 + steps] for name, each in rows.items()}
    half = {name: each[1 + steps:] for name, each in rows.items()}
    check_equal(teaching, setting.prompts)
    return teaching, half


# ---- 7. Tables ---------------------------------------------------------------------------------------------
def show(name, setting, rows):
    """Print the setting's table and its line "ratio"."""
    tokens = {who: statistics.mean(row["tokens"] for row in rows[who]) for who in rows}
    length = "forced lengths" if setting.forced else "own lengths"
    print(f"\n{name}: {setting.prompts} prompts x {setting.group} rollouts; {setting.vision_tokens} vision tokens "
          f"a picture; {length}, tokens a rollout: {tokens['TRL']:.1f} in TRL, {tokens['ours']:.1f} in ours; "
          f"{rows['ours'][0]['trained']:,} trained weights; {setting.dtype}\n")
    print("| phase | TRL, s | ours, s | TRL, GB | ours, GB |\n|---|---|---|---|---|")
    for phase in (*PHASES, "step"):
        cells = [f"{median(rows[who], 'seconds', phase):.2f}" for who in ("TRL", "ours")]
        for who in ("TRL", "ours"):
            known = [row["memory_gb"][phase] for row in rows[who] if phase in row["memory_gb"]]
            cells.append(f"{max(known):.2f}" if known else "-")
        print(f"| {phase} | {' | '.join(cells)} |")
    print(f"\n{ratio_line(name, rows)}", flush=True)


def ratio_line(name, rows):
    seconds = {who: median(rows[who], "seconds", "step") for who in rows}
    cpu_seconds = {who: median(rows[who], "seconds", "cpu") for who in rows}
    line = (f"ratio {seconds['TRL'] / seconds['ours']:.2f}   {name} (TRL {seconds['TRL']:.2f} s, "
            f"ours {seconds['ours']:.2f} s a step, {len(rows['ours'])} steps")
    if torch.cuda.is_available():
        return line + ")"
    return line + f"; in CPU time {cpu_seconds['TRL'] / cpu_seconds['ours']:.2f})"


def show_skipping(results):
    """results: {setting's name: (rows where all groups teach, rows where half do)}"""
    print("\nHalf of the groups without variance: ours skips them in the update.\n")
    print("| setting | skipped, ours | TRL, s | ours, s | ratio | ratio if all teach |\n|---|---|---|---|---|---|")
    for name, (all_teach, half) in results.items():
        ratios = []
        for rows in (half, all_teach):
            seconds = {who: median(rows[who], "seconds", "step") for who in rows}
            ratios.append(seconds["TRL"] / seconds["ours"])
        print(f"| {name} | {half['ours'][0]['skipped']} | {median(half['TRL'], 'seconds', 'step'):.2f} | "
              f"{median(half['ours'], 'seconds', 'step'):.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def tune(name, setting, steps, threads):
    """Seconds of a step by rollouts per forward pass of the update."""
    print(f"\n{name}\n\n| rollouts at once | TRL, s | ours, s | TRL, GB | ours, GB |\n|---|---|---|---|---|")
    for size in setting.sizes:
        tried = replace(setting, micro_batch=size, trl_batch=size)
        try:
            rows, _ = measure(tried, steps, 0, threads)
        except Failed as error:
            print(f"| {size} | failed: {error} | | | |", flush=True)
            continue
        cells = [f"{median(rows[who], 'seconds', 'step'):.2f}" for who in ("TRL", "ours")]
        cells += [f"{max(row['memory_gb']['step'] for row in rows[who]):.2f}" for who in ("TRL", "ours")]
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


def where():
    """The machine and the versions, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; {packages}"
    return f"CPU, {torch.get_num_threads()} threads; {packages}"


def main():
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # TRL refuses several without a launcher
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = [name for name, setting in SETTINGS.items() if setting.drawn == torch.cuda.is_available()]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=here, metavar="NAME",
                        help=f"of {', '.join(SETTINGS)}; unless given, here: {' '.join(here)}")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed, after one that is not (5)")
    parser.add_argument("--half_steps", type=int, default=2,
                        help="then steps in which half of the groups have no variance (2; 0: no second table)")
    parser.add_argument("--threads", type=int, help="of each process; unless given, as PyTorch chooses")
    parser.add_argument("--tiny", action="store_true", help="the least of everything, to see it all run on a CPU")
    parser.add_argument("--tune", action="store_true", help="seconds by size of the micro-batch, and no ratio")
    args = parser.parse_args()
    if find_spec("trl") is None:
        sys.exit("TRL is not installed: pip install -r tests/requirements-more.txt")
    needs_gpu = [name for name in args.settings if SETTINGS[name].drawn]
    if needs_gpu and not (args.tiny or torch.cuda.is_available()):
        sys.exit(f"{' '.join(needs_gpu)}: needs a GPU and there is none. To see it run on a CPU: add --tiny")
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # the workers read it before torch starts
        torch.set_num_threads(args.threads)

    print(where() + ("; --tiny: nothing is measured" if args.tiny else ""), flush=True)
    results = {}
    failed = []
    for name in args.settings:
        setting = smaller(SETTINGS[name]) if args.tiny else SETTINGS[name]
        progress(f"{name} ...")
        if args.tune:
            tune(name, setting, args.steps, args.threads)
            continue
        try:
            rows, half = measure(setting, args.steps, args.half_steps, args.threads)
        except Failed as error:
            print(f"\nratio -   {name} failed: {error}", flush=True)
            failed.append(name)
            continue
        show(name, setting, rows)
        if args.half_steps:
            results[name] = rows, half
    if results:
        show_skipping(results)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
