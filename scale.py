"""From a laptop to a GPU, or several: what the scripts share for it. A reader of the embedded world alone can skip this file.

  PRESETS          what differs between the tiny models and Qwen2.5-VL-7B: values of the scripts' flags, no code
  start .. finish  `accelerate launch`: each process takes its share of a batch, gradients are summed, one process writes
  ledger           how much memory a run will take, part by part, before any weight is loaded

The paper trained on 8 H100 and 8 A100; here LoRA or QLoRA on one GPU, or one replica a GPU. No sharding, no offloading.

Run:   python train_grpo.py --preset 7b --dry_run --memory_gb 24      # the ledger: what fits into 24 GB, and what to lower
       python tests/benchmark_memory.py                              # on a GPU: the ledger beside what was measured
"""
import argparse
import importlib.util
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

from argos import BadInput, append_jsonl, claim_run
from policy import LORA_TARGETS, save_policy

# ---- 1. Presets -----------------------------------------------------------------------------------------------------
# A preset is a set of values for the scripts' own flags and nothing more: no code asks for its name, and a flag that is typed wins.
# "all" goes to every script that has the field. "tiny" is the scripts' own defaults. Where no source is named, the value is our choice.
QWEN_7B = "Qwen/Qwen2.5-VL-7B-Instruct"
_7B = {
    "all": dict(dtype="nf4", lora_rank=64, checkpointing=True,
                min_pixels=4 * 784, image_pixels=512 * 784,  # 512 tokens a picture
                video_pixels=32 * 128 * 784,  # 128 * 28 * 28 a frame, as Video-R1 trains: 2,048 tokens, since frames go in pairs
                detector="yolo-world", segmenter="sam2", pointer="base", extract=True),  # base: the model itself points (charts, maps, curation)
    "curate": dict(teacher=QWEN_7B, max_new_tokens=1024, batch=4, keep=1, made_up=0., extract_tokens=256),  # real data errs enough
    "train_sft": dict(policy=QWEN_7B, batch=256, epochs=3., micro_batch=1, max_new_tokens=1024, lr=1e-4, warmup=30),  # paper: 256
    "train_grpo": dict(policy=QWEN_7B, judge="base", prompts=7, group_size=8,  # paper: batches of 56
                       max_new_tokens=768, sample_batch=24, micro_batch=1, lr=1e-5, warmup=5, beta=.01, eval_samples=64, save_every=10),
    "embodied": dict(model=QWEN_7B, max_new_tokens=2048),
    "evaluate": dict(judge=QWEN_7B, max_new_tokens=1024, temperature=.6, batch=8),  # paper: 0.6, up to 8192 tokens
    "benchmark": dict(judge=QWEN_7B, max_new_tokens=8192, temperature=.6, batch=8),  # evaluate.py --benchmark; paper: these two
}
_7B_BF16 = {script: values | dict(dtype="bfloat16") if script == "all" else values for script, values in _7B.items()}
PRESETS = {"tiny": {}, "7b": _7B, "7b-bf16": _7B_BF16}  # the paper points with Molmo: --pointer molmo:FOLDER


@dataclass
class Settings:
    """What every script shares: which model, how many bits, how many pixels."""
    preset: str = field(default="tiny", metadata={"help": "tiny, 7b (4 bits) or 7b-bf16: values for these flags (scale.py, section 1)"})
    dtype: str = field(default="float32", metadata={"help": "weights: float32, bfloat16, or nf4 (QLoRA: 4 bits, bfloat16 arithmetic)"})
    min_pixels: int = field(default=7056, metadata={"help": "a smaller picture or frame is enlarged; 28 x 28 = 784 pixels are one token"})
    image_pixels: int = field(default=28224, metadata={"help": "most pixels of a picture or frame; a larger one is shrunk"})
    video_pixels: int = field(default=32 * 7056, metadata={"help": "most pixels of all frames of a clip together; 2 x 784 are one token"})
    max_frames: int = field(default=32, metadata={"help": "frames of a clip (paper: at most 32)"})


@dataclass
class TeacherSettings(Settings):
    """What every script shares that asks teachers (see teachers.load_teachers)."""
    detector: str = field(default="pixels", metadata={"help": "who finds what a label names: pixels, yolo-world, grounding-dino, mm-grounding-dino, owlv2; or NAME:FOLDER"})
    segmenter: str = field(default="pixels", metadata={"help": "who turns boxes into masks: pixels, sam2 or sam2-hf"})
    pointer: str = field(default="pixels", metadata={"help": "who points: pixels, molmo, qwen; or base: the model that is loaded anyway (train_grpo.py: the policy, its adapter off)"})
    extract: bool = field(default=False, metadata={"help": "the judge lists the claims of a clip's free prose where rules find none (app. D)"})
    verdict_seconds: float = field(default=0., metadata={"help": "seconds that a verdict may take, on average over a batch (0: any)"})
    teacher_cache: str = field(default="", metadata={"help": "folder that keeps their answers, for several runs at once (default: none)"})


def preset_arguments(script, kind, typed=None):
    """The command line with the preset's values put before what was typed, so that what was typed wins. -> list of strings.

    script: a key of PRESETS' sets, such as "train_sft"; kind: its dataclass; typed: sys.argv unless given. Raises argos.BadInput.
    """
    typed = list(sys.argv[1:] if typed is None else typed)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", nargs="?", default="tiny")
    name = parser.parse_known_args(typed)[0].preset
    if name not in PRESETS:
        raise BadInput(f"--preset {name}: choose {', '.join(PRESETS)}")
    values = PRESETS[name].get("all", {}) | PRESETS[name].get(script, {})
    return [word for k, v in values.items() if k in kind.__dataclass_fields__ for word in (f"--{k}", str(v))] + typed


def budget(cfg):
    """The pixel budget of the settings, as argos.load_media and argos.Argos take it."""
    return dict(min_pixels=cfg.min_pixels, max_pixels=cfg.image_pixels, video_pixels=cfg.video_pixels, max_frames=cfg.max_frames)


def verifier_options(cfg):
    """What argos.Argos takes from TeacherSettings."""
    return dict(**budget(cfg), extract=cfg.extract, budget=cfg.verdict_seconds or None)


def vision_tokens(cfg):
    """Most tokens of a picture and of a clip: 28 x 28 pixels each, in clips of two frames each (Qwen2.5-VL report, section 2.1)."""
    return cfg.image_pixels // 784, min(cfg.video_pixels, cfg.max_frames * cfg.image_pixels) // 1568


# ---- 2. Several processes, and what a step costs ---------------------------------------------------------------------
# `accelerate launch train_grpo.py ...` starts one process a GPU. Each holds the whole model and takes every n-th prompt of a batch;
# losses are divided by the counts of the whole batch, so gradients only need to be added up. That is all that is shared, and it is
# done by hand: DistributedDataParallel would hook into forwards, and here one loss takes several (prompt, completion, reference).
# On CPUs: ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_grpo.py ...
def start(cfg):
    """One process, or one of those that `accelerate launch` started, with the tracker that was asked for. -> Accelerator."""
    tracker = getattr(cfg, "tracker", "none")
    if tracker not in ("none", "tensorboard", "wandb"):
        raise BadInput(f"--tracker {tracker}: choose none, tensorboard or wandb")
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise BadInput(f"--tracker {tracker}: the package is missing; pip install {tracker}")
    patient = InitProcessGroupKwargs(timeout=timedelta(days=1))  # one may have longer videos than the other
    return Accelerator(log_with=None if tracker == "none" else tracker, project_dir=cfg.out, kwargs_handlers=[patient])


def claim(accelerator, cfg):
    """Begin or continue the run in --out: once for all processes."""
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            Path(cfg.out).mkdir(parents=True, exist_ok=True)
            free = ("dry_run", "memory_gb", "tracker", "teacher_cache")  # what --resume may change
            claim_run(Path(cfg.out, "metrics.jsonl"), {k: v for k, v in vars(cfg).items() if k not in free}
                      | dict(num_processes=accelerator.num_processes))  # each draws and sums its own share: another number, another run
    if cfg.tracker != "none":
        accelerator.init_trackers("argos", config=vars(cfg))
    picture, clip = vision_tokens(cfg)
    accelerator.print(f"{cfg.dtype}; a picture is at most {picture:,} tokens, a clip {clip:,}; {accelerator.num_processes} process(es)")


def log(accelerator, out, row):
    """One row of metrics: to metrics.jsonl, and its numbers to the tracker (nested ones as "train/seconds/sample")."""
    if accelerator.is_main_process:
        append_jsonl(Path(out, "metrics.jsonl"), row)
    flat = {f"{k}/{name}".rstrip("/"): n for k, v in row.items() for name, n in (v.items() if isinstance(v, dict) else [("", v)])}
    accelerator.log({f"{row['kind']}/{k}": n for k, n in flat.items() if isinstance(n, (int, float)) and k != "step"}, step=row["step"])


def share(accelerator, n):
    """Which of n things are this process's: every num_processes-th."""
    return list(range(accelerator.process_index, n, accelerator.num_processes))


def gather(accelerator, things):
    """The lists of all processes as one, in every process."""
    return gather_object(list(things)) if accelerator.num_processes > 1 else list(things)


def sum_gradients(accelerator, parameters):
    """Every process gets the sum of all processes' gradients; one without any counts as zero. Nothing happens in a single process."""
    if accelerator.num_processes > 1:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        summed = accelerator.reduce(torch.cat([g.flatten() for g in grads]), "sum")
        for p, g in zip(parameters, summed.split([p.numel() for p in parameters])):
            p.grad = g.view_as(p)


class Phases:
    """Seconds and, on a GPU, peak memory in GB (10^9 bytes) of the phases of a step, in this process."""

    def __init__(self, device):
        self.device, self.seconds, self.memory_gb = device, {}, {}
        self._restart()

    def _restart(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.clock = time.time()

    def done(self, name):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.memory_gb[name] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        self.seconds[name] = round(time.time() - self.clock, 3)
        self._restart()

    def report(self):
        return dict(seconds=self.seconds, memory_gb=self.memory_gb or None)


def finish(accelerator, cfg, policy, trained):
    """Write adapter/ and merged/. A finished run that is resumed (trained=False) keeps its files, and their dates."""
    out, merged = Path(cfg.out), cfg.merge or not cfg.lora_rank
    if accelerator.is_main_process and (trained or not (out / ("merged" if merged else "adapter")).exists()):
        if cfg.lora_rank:
            save_policy(policy, out / "adapter")
        if merged:
            save_policy(policy, out / "merged", merged=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    accelerator.print(f"wrote {out}/{'merged' if merged else 'adapter'}; metrics in {out}/metrics.jsonl")


# ---- 3. The memory ledger ----------------------------------------------------------------------------------------------
# Predicted bytes of every part of every phase of a run, from the model's config and the script's flags: nothing is loaded. The sum
# of a column is what the phase needs, the largest sum decides. Weights, adapter, optimizer and cache are exact; activations are
# counted tensor by tensor (the method of Korthikanti et al., arXiv:2205.05198, for this model with LoRA and this scorer). Both are
# held against the real tensors on a CPU by tests/test_ledger.py; a GPU's own measurement: tests/benchmark_memory.py.
TEXT_TOKENS = 256  # of a prompt beside its picture: template and question (our allowance)
CONTEXT_GB = 1.0   # the driver's context, workspaces, fragmentation (our allowance)
TEACHER_GB = {"pixels": 0, "base": 0, "yolo-world": .3, "grounding-dino": 1.0, "mm-grounding-dino": 1.0, "owlv2": 1.0, "sam2": .5,
              "sam2-hf": .5, "molmo": 17., "qwen": 18.}  # parameters and a picture's activations (ours, rounded up from published sizes)
# Bytes a token and layer, in multiples of (hidden, MLP width), by the bytes of a weight. KEPT until the backward pass; MORE at worst.
# 2: the norms and LoRA work in float32, so 8 copies of the stream (2 norms, inputs of q k v o gate up: 32) beside q, attention and
#    residuals (8); gate, silu(gate) and up in bfloat16 (6), the input of down in float32 (4); at worst LoRA's output twice in float32.
# 4: nothing is cast: norms' outputs, q, attention, rotated parts and residuals (32); gate, silu(gate), up and their product (16).
KEPT, MORE = {2: (40, 10), 4: (32, 16)}, {2: (8, 4), 4: (0, 8)}
LOGIT_COPIES = 12  # bytes a token and vocabulary entry: three float32 copies (log-probabilities, and two more in entropy or backward)


def model_config(path):
    """The config of a model. QWEN_7B's is written out here, as published with the checkpoint, so that a ledger needs no download."""
    if str(path) == QWEN_7B:
        return AutoConfig.for_model(
            "qwen2_5_vl", image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
            tie_word_embeddings=False,
            text_config=dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                             num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=128000, rms_norm_eps=1e-6,
                             tie_word_embeddings=False, eos_token_id=151645, pad_token_id=151643, bos_token_id=151643,
                             rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24])),
            vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, patch_size=14,
                               spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[7, 15, 23, 31],
                               tokens_per_second=2))
    try:
        return AutoConfig.from_pretrained(path)
    except Exception as error:
        raise BadInput(f"{path}: no config can be read here ({type(error).__name__}); give a model folder or a Hugging Face name") from None


@lru_cache
def weight_bytes(path, dtype, lora_rank):
    """(bytes of the base's weights, bytes of what is trained), from the model itself, built without storage.

    nf4 (QLoRA, arXiv:2305.14314, section 3): half a byte a weight, a byte of scale for every 64, 4 bytes for every 256 scales.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(model_config(path))
    if hasattr(model.model, "visual"):  # another family is only ever a judge, and frozen
        model.model.visual.requires_grad_(False)
    width, four_bits = 4 if dtype == "float32" else 2, 0
    total = sum(p.numel() for p in model.parameters()) * width
    for name, layer in model.named_modules():
        if dtype == "nf4" and isinstance(layer, torch.nn.Linear) and not name.startswith("model.visual") and name != "lm_head":
            n = layer.weight.numel()
            total -= n * width
            four_bits += -(-n // 2) + -(-n // 64) + 4 * -(-n // (64 * 256)) + 4 * (16 + 256 + 1)  # and two code tables, an offset
    if lora_rank:
        model = get_peft_model(model, LoraConfig(r=lora_rank, target_modules=LORA_TARGETS))
        width = 4  # peft keeps the adapter in float32
    return total + four_bits, width * sum(p.numel() for p in model.parameters() if p.requires_grad)


def cache_bytes(text, tokens, width):
    """Keys and values of so many tokens in all layers: 2 x layers x key-value heads x head size."""
    return tokens * 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads) * width


def ledger(cfg, processes=1):
    """{phase: {part: bytes}} of one process. cfg: the settings of train_sft.py or train_grpo.py."""
    config = model_config(cfg.policy)
    text, vision, width = config.text_config, config.vision_config, 4 if cfg.dtype == "float32" else 2
    hidden, mlp, layers, vocab = text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size
    weights, trained = weight_bytes(str(cfg.policy), cfg.dtype, cfg.lora_rank)
    grpo, new, prompt = hasattr(cfg, "group_size"), cfg.max_new_tokens, max(vision_tokens(cfg)) + TEXT_TOKENS
    group, prompts = (cfg.group_size, -(-cfg.prompts // processes)) if grpo else (1, cfg.micro_batch)
    per_layer = lambda table: table[width][0] * hidden + table[width][1] * mlp
    lora = 4 * 7 * cfg.lora_rank  # the narrow outputs of seven A matrices
    passing = (4 * width + 8) * hidden + (2 * width + 8) * mlp  # one layer without gradient, a token
    unpacked = hidden * mlp * 2 * (cfg.dtype == "nf4")  # the largest matrix, while it is in use

    resting = {"weights": weights, "adapter": trained * bool(cfg.lora_rank), "optimizer": 2 * trained}  # AdamW: two moments a weight
    if grpo:
        own = cfg.judge == "base" or model_config(cfg.judge).model_type == "qwen2_5_vl"  # others are loaded as published, in 16 bits
        judge = 0 if cfg.judge == "base" else weight_bytes(str(cfg.judge), cfg.dtype if own else "bfloat16", 0)[0]
        asked = {name.partition(":")[0] for name in (cfg.detector, cfg.segmenter, cfg.pointer)}
        resting["teachers"] = judge + int(1e9 * sum(TEACHER_GB.get(name, 0) for name in asked))
    patches = 4 * (prompt - TEXT_TOKENS) * prompts  # 14 x 14 pixels; pixels in float32, then a layer of the tower
    tower = 4 * 3 * 2 * 14 ** 2 + width * (8 * vision.hidden_size + 3 * vision.intermediate_size)
    phases = {"encode": {"activations": patches * tower}}
    if grpo:
        at_once = group * max(1, min(prompts, cfg.sample_batch // group))
        phases["prefill"] = {"cache": cache_bytes(text, at_once // group * prompt, width),
                             "activations": at_once // group * prompt * passing + unpacked,
                             "logits": at_once // group * vocab * LOGIT_COPIES}
        phases["decode"] = {"cache": cache_bytes(text, at_once * (prompt + new + 32), width),  # 32: RoomyLayer's room
                            "activations": at_once * (prompt + new) * 2 * hidden * width,  # one layer's keys and values, for every head
                            "logits": at_once * vocab * LOGIT_COPIES}
        phases["verify"] = {"cache": cache_bytes(text, prompt + new, width), "activations": (prompt + new) * passing + unpacked,
                            "logits": new * vocab * LOGIT_COPIES}  # the judge reads one rollout at a time
    rows = cfg.micro_batch if cfg.micro_batch < group else min(prompts, cfg.micro_batch // group) * group
    if cfg.checkpointing:  # every row reads its own prompt; kept is the stream between layers; the backward pass redoes one layer
        tokens = rows * (prompt + new)
        kept, again = tokens * layers * hidden * width, tokens * (per_layer(KEPT) + lora)
    else:  # the prompt is read once a group, and its cache is copied
        tokens = max(1, rows // group) * prompt + rows * new
        kept, again = tokens * layers * (per_layer(KEPT) + lora) + cache_bytes(text, rows * (prompt + new), width), 0
    if rows > 1 or not cfg.checkpointing:  # under a mask attention repeats keys and values for every head
        repeated = 2 * hidden * width * rows * (prompt + new)
        kept, again = (kept, again + repeated) if cfg.checkpointing else (kept + layers * repeated, again)
    reference = 4 * bool(grpo and cfg.beta)  # the reference is scored while the policy's log-probabilities wait
    phases["loss"] = {"gradients": trained, "activations": kept, "logits": rows * new * vocab * (LOGIT_COPIES + reference)}
    phases["backward"] = {"gradients": trained, "activations": kept + again + tokens * per_layer(MORE) + unpacked}
    return {name: resting | parts for name, parts in phases.items()}


def peak_gb(cfg, processes=1):
    """What the largest phase needs, the driver's allowance included: GB (10^9 bytes)."""
    return max(sum(parts.values()) for parts in ledger(cfg, processes).values()) / 1e9 + CONTEXT_GB


# What can be lowered, the harmless first: the first two cost time, not results. Each is halved down to its floor.
FLOORS = dict(sample_batch=1, micro_batch=1, prompts=1, max_new_tokens=64, video_pixels=32 * 3136, image_pixels=3136, lora_rank=8)


def what_to_lower(cfg, fits):
    """The flags that make it fit, as one sentence: each one that is enough alone, else all that are needed together."""
    def lowered(cfg, name):
        value = getattr(cfg, name)
        while value // 2 >= FLOORS[name] and not fits(replace(cfg, **{name: value})):
            value //= 2
        return replace(cfg, **{name: value})

    switches = [{"checkpointing": True}] + [{"dtype": "nf4"}] * (cfg.lora_rank > 0)
    names = [name for name in FLOORS if hasattr(cfg, name) and getattr(cfg, name) > FLOORS[name]]
    tries = [replace(cfg, **s) for s in switches] + [lowered(cfg, name) for name in names]
    alone = [c for c in tries if fits(c)]
    said = lambda c: " ".join(f"--{k} {v}" for k, v in vars(c).items() if v != getattr(cfg, k))
    if alone:
        return "change " + ", or ".join(said(c) for c in alone)
    all_of_it = cfg
    for change in [lambda c, s=s: replace(c, **s) for s in switches] + [lambda c, name=name: lowered(c, name) for name in names]:
        all_of_it = change(all_of_it)
        if fits(all_of_it):
            return f"it takes all of {said(all_of_it)}"
    return "no setting is small enough; take a larger card"


def check_memory(cfg, accelerator):
    """Refuse, before anything is loaded, what cannot fit into --memory_gb or the GPU; --dry_run prints the ledger. Raises argos.BadInput."""
    limit = cfg.memory_gb or (torch.cuda.mem_get_info()[0] / 1e9 if torch.cuda.is_available() else None)
    if not (cfg.dry_run or limit):
        return
    processes = accelerator.num_processes
    phases = ledger(cfg, processes)
    if cfg.dry_run and accelerator.is_main_process:
        parts = list(dict.fromkeys(part for phase in phases.values() for part in phase))
        print(f"GB{'':13}" + "".join(f"{name:>9}" for name in phases))
        for part in parts:
            print(f"{part:15}" + "".join(f"{phases[name].get(part, 0) / 1e9:9.2f}" for name in phases))
        print(f"{'sum':15}" + "".join(f"{sum(parts.values()) / 1e9:9.2f}" for parts in phases.values()))
        there = f"; there are {limit:.1f} GB" if limit else ""
        print(f"peak {peak_gb(cfg, processes):.1f} GB, with {CONTEXT_GB:.0f} GB for the driver{there}")
    if limit and peak_gb(cfg, processes) > limit:
        cure = what_to_lower(cfg, lambda c: peak_gb(c, processes) <= limit)
        raise BadInput(f"this needs {peak_gb(cfg, processes):.1f} GB and there are {limit:.1f}: {cure}")
