"""Flags and presets: what every script shares on its command line.

A preset is a set of values for the scripts' own flags and nothing more: no code asks for its name, and a flag that is typed wins.
"""
import argparse
import sys
from dataclasses import dataclass, field

from transformers import HfArgumentParser

from runs.errors import BadInput


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


def pixel_budget(cfg):
    """The pixel budget of the settings, as argos.load_media and argos.Argos take it."""
    return dict(min_pixels=cfg.min_pixels, max_pixels=cfg.image_pixels, video_pixels=cfg.video_pixels, max_frames=cfg.max_frames)


def verifier_options(cfg):
    """What argos.Argos takes from TeacherSettings."""
    return dict(**pixel_budget(cfg), extract=cfg.extract)


def vision_tokens(cfg):
    """Most tokens of a picture and of a clip: 28 x 28 pixels each, in clips of two frames each (Qwen2.5-VL report, section 2.1)."""
    return cfg.image_pixels // 784, min(cfg.video_pixels, cfg.max_frames * cfg.image_pixels) // 1568


# ---- 6. The command line ---------------------------------------------------------------------------------------------
class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """--help keeps the layout of the script's head comment and shows every default."""


def parse_config(kind, doc, arguments=None):
    """Command line -> one dataclass of settings; an unusable value ends with argparse's one line and exit code 2."""
    return HfArgumentParser(kind, description=doc, formatter_class=Help).parse_args_into_dataclasses(arguments)[0]


# ---- 2. Loading and saving ------------------------------------------------------------------------------------------
# Attention and MLP matrices of the language model; the vision tower has layers of the same names and must stay frozen.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def parse_model(spec, modes=("direct", "greedy", "overlay")):
    """"name:mode=folder" -> (name, mode, folder)."""
    name, _, folder = spec.partition("=")
    name, _, mode = name.partition(":")
    if not name or not folder or mode not in ("", *modes):
        raise BadInput(f"--models {spec}: write name=folder, with :{', :'.join(modes)} after the name if wanted")
    return name, mode or "sampled", folder
