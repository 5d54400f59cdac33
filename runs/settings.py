"""Flags and presets: what every script shares on its command line.

Who needs it: every script; a reader, when a flag is to be added or the 7B to be trained. A script's settings
are a dataclass, and each field is a flag: `lr: float = flag(1e-4, "...")` becomes `--lr`, its default and its
line in --help.

A preset is a set of values for those flags and nothing more: no code asks for a preset's name, and a flag
that is typed wins. So `--preset 7b` is a laptop's command line made ready for a GPU:

    python train_grpo.py --preset 7b --lora_rank 8

Before: runs/files.py. Next: train_sft.py (the first script that has settings), or runs/processes.py
"""
import argparse
import sys
from dataclasses import dataclass, field

from transformers import HfArgumentParser

from runs.errors import BadInput

QWEN_7B = "Qwen/Qwen2.5-VL-7B-Instruct"
TOKEN = 28 * 28  # pixels of one vision token: 2 x 2 patches of 14 x 14 (Qwen2.5-VL report, section 2.1)

# Where LoRA adapts the model: attention and MLP matrices of the language model. The vision tower has layers
# of the same names; it must stay frozen, as prompts are encoded once and not again after a step.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


# ---- 1. Presets --------------------------------------------------------------------------------------------
# {preset: {script: {flag: value}}}. "all" goes to every script that has the flag. Where no source is named,
# the value is our choice.
SEVEN_B = {
    "all": dict(
        dtype="nf4",
        lora_rank=64,
        checkpointing=True,
        min_pixels=4 * TOKEN,
        image_pixels=512 * TOKEN,
        video_pixels=32 * 128 * TOKEN,  # 128 for each frame, as Video-R1 trains; in pairs: 2,048 tokens
        detector="grounding-dino",  # a figure of the paper's blog post names it; Apache-2.0, no further package
        segmenter="sam2",
        pointer="base",  # the model itself (charts, maps, curation); the paper has Molmo: molmo:FOLDER
        extract=True,
    ),
    "curate": dict(
        teacher=QWEN_7B,
        max_new_tokens=1024,
        batch=4,
        keep=1,
        made_up=0.,  # real data errs enough
        extract_tokens=256,
    ),
    "train_sft": dict(
        policy=QWEN_7B,
        batch=256,  # paper
        epochs=3.,
        micro_batch=4,  # as many as fit, by the ledger, into 24 GB
        max_new_tokens=1024,
        lr=1e-4,
        warmup=30,
    ),
    "train_grpo": dict(
        policy=QWEN_7B,
        judge="base",  # the policy with its adapter off: no second model in memory
        steps=80,      # paper: about 80
        prompts=7,     # times 8 rollouts: the paper's batches of 56
        group_size=8,
        max_new_tokens=768,
        sample_batch=56,  # all of a step: a group shares its prompt's cache, so they fit
        micro_batch=8,    # a whole group, whose prompt is then read once
        lr=1e-5,
        warmup=5,
        beta=.01,
        eval_samples=64,
        save_every=10,
    ),
    "serve": dict(
        judge=QWEN_7B,
        batch=56,  # the paper's rollouts of a step
    ),
    "embodied": dict(
        model=QWEN_7B,
        max_new_tokens=2048,
    ),
    "evaluate": dict(
        judge=QWEN_7B,
        max_new_tokens=1024,  # paper: up to 8192
        batch=8,
    ),
    "benchmark": dict(  # evaluate.py --benchmark
        judge=QWEN_7B,
        max_new_tokens=8192,  # paper
        temperature=.6,       # paper
        batch=8,
    ),
}

SEVEN_B_IN_BFLOAT16 = SEVEN_B | {"all": SEVEN_B["all"] | dict(dtype="bfloat16")}

# "tiny" has no values of its own: the scripts' defaults are made for the tiny models.
PRESETS = {"tiny": {}, "7b": SEVEN_B, "7b-bf16": SEVEN_B_IN_BFLOAT16}


# ---- 2. Flags that several scripts share -------------------------------------------------------------------
def flag(default, help):
    """A field of a settings dataclass, with its line in --help."""
    return field(default=default, metadata={"help": help})


@dataclass
class Settings:
    """What every script shares: which model, how many bits, how many pixels."""
    preset: str = flag("tiny", "tiny, 7b (4 bits) or 7b-bf16: values for these flags (see runs/settings.py)")
    dtype: str = flag("float32", "weights: float32, bfloat16, or nf4 (QLoRA: 4 bits, bfloat16 arithmetic)")
    # Pixels decide how many tokens the model reads, and so memory and time.
    min_pixels: int = flag(9 * TOKEN, "a smaller picture or frame is enlarged; 28 x 28 = 784 pixels are one "
                                      "token")
    image_pixels: int = flag(36 * TOKEN, "most pixels of a picture or frame; a larger one is shrunk")
    # A clip's frames go in pairs, and a pair shares its tokens.
    video_pixels: int = flag(32 * 9 * TOKEN, "most pixels of all frames of a clip together; 2 x 784 are one "
                                             "token")
    max_frames: int = flag(32, "frames of a clip (paper: at most 32)")


@dataclass
class TeacherSettings(Settings):
    """What every script shares that asks teachers: the models that check a rollout (teachers/names.py)."""
    detector: str = flag("pixels", "who finds what a label names: pixels, grounding-dino, "
                                   "mm-grounding-dino, owlv2, yolo-world; or NAME:FOLDER")
    segmenter: str = flag("pixels", "who turns boxes into masks: pixels, sam2 or sam2-hf")
    pointer: str = flag("pixels", "who points: pixels, molmo, qwen; or base: the model that is loaded anyway "
                                  "(train_grpo.py: the policy, its adapter off)")
    foils: int = flag(2, "other truths that a free answer must not mean (verifier/foils.py); 0: the paper's "
                         "judge, as in `python -m tiny`; benchmarks use none")
    extract: bool = flag(False, "the judge lists the claims of a clip's free prose where rules find none "
                                "(app. D)")
    teacher_cache: str = flag("", "folder that keeps the teachers' answers, for several runs at once; "
                                  "empty: none")


def pixel_budget(cfg):
    """The pixel budget of the settings, as load_media and argos.Argos take it."""
    return dict(min_pixels=cfg.min_pixels, max_pixels=cfg.image_pixels, video_pixels=cfg.video_pixels,
                max_frames=cfg.max_frames)


def verifier_options(cfg):
    """What argos.Argos takes from TeacherSettings."""
    return dict(**pixel_budget(cfg), extract=cfg.extract, foils=cfg.foils)


def vision_tokens(cfg):
    """Most tokens of a picture, and of a clip.

    Example: the defaults give 36 tokens for a picture of 168 x 168, and 144 for a clip of 32 frames of 84 x
        84: nine tokens per pair of frames, 16 pairs.
    """
    picture = cfg.image_pixels // TOKEN
    all_frames = min(cfg.video_pixels, cfg.max_frames * cfg.image_pixels)
    return picture, all_frames // (2 * TOKEN)


# ---- 3. The command line -----------------------------------------------------------------------------------
class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """--help keeps the layout of the script's head comment and shows every default."""


def parse_config(kind, doc, arguments=None):
    """Command line -> one dataclass of settings.

    kind: the dataclass; doc: the script's head comment; arguments: sys.argv unless given

    An unusable value ends with argparse's one line and exit code 2; BadInput: an unusable seed.
    """
    parser = HfArgumentParser(kind, description=doc, formatter_class=Help)
    cfg = parser.parse_args_into_dataclasses(arguments)[0]
    seed = getattr(cfg, "seed", 0)
    if not 0 <= seed < 2 ** 32:  # what numpy takes
        raise BadInput(f"--seed {seed}: give a whole number from 0 to {2 ** 32 - 1}")
    return cfg


def preset_arguments(script, kind, typed=None):
    """The command line with the preset's values put before what was typed, so that what was typed wins.

    script: a key of the presets, such as "train_sft"; kind: its dataclass; typed: sys.argv unless given

    -> list of strings: ["--preset", "7b", "--lr", "1"] becomes [..., "--lr", "0.0001", ..., "--preset", "7b",
    "--lr", "1"]. Raises BadInput for a preset that there is not.
    """
    typed = list(sys.argv[1:] if typed is None else typed)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", nargs="?", default="tiny")
    known, _ = parser.parse_known_args(typed)
    if known.preset not in PRESETS:
        raise BadInput(f"--preset {known.preset}: choose {', '.join(PRESETS)}")
    preset = PRESETS[known.preset]
    values = preset.get("all", {}) | preset.get(script, {})
    words = []
    for name, value in values.items():
        if name in kind.__dataclass_fields__:
            words += [f"--{name}", str(value)]
    return words + typed


def parse_model(spec, modes=("direct", "greedy", "overlay")):
    """Read "name:mode=folder", as --models takes it. -> name, mode ("sampled" unless given), folder.

    Example: "base:direct=tiny/base" -> "base", "direct", "tiny/base". Raises BadInput for another form.
    """
    name, _, folder = spec.partition("=")
    name, _, mode = name.partition(":")
    if not name or not folder or mode not in ("", *modes):
        wanted = ", :".join(modes)
        raise BadInput(f"--models {spec}: write name=folder, with :{wanted} after the name if wanted")
    return name, mode or "sampled", folder
