"""Checkpoints: weights that fit their model, and the pixels with which a model was trained.

Who needs it: policy.py and teachers/, whenever they load; every script that asks a trained model.

Weights. The library fills what a folder lacks with random numbers, leaves out what it does not know, and
warns. A run on such noise looks like any other and ends in a table of zeros. So `load_weights` compares the
names, and what does not fit is one line that names the folder.

Pixels. Points are pixels of the picture as the policy saw it, so they mean something only together with the
pixel budget, which decides in what size it sees a picture. A trained checkpoint keeps its budget in two places:

    argos.json              {"min_pixels": .., "image_pixels": .., "video_pixels": .., "max_frames": ..}
    processor_config.json   the same as `size`, which the library, vLLM and other trainers follow by themselves

The first is ours to read, and marks a checkpoint that was trained with this budget; the second cannot do that,
since every published checkpoint has some size there (Qwen2.5-VL-7B's: 4 to 16,384 tokens, meant as limits).
A folder without argos.json states nothing, and any budget will do.

Before: runs/settings.py. Next: train_sft.py, or policy.py
"""
import json
import sys
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import cached_file, logging

from runs.errors import BadInput
from runs.settings import TOKEN

BUDGET_FILE = "argos.json"
BUDGET_FLAGS = ("min_pixels", "image_pixels", "video_pixels", "max_frames")  # of runs.settings.Settings

NO_CODE = dict(trust_remote_code=False)  # else the library asks on the terminal whether to run a folder's Python


# ---- 1. Weights that fit -----------------------------------------------------------------------------------
def load_weights(kind, folder, extra=False, **options):
    """kind.from_pretrained(folder, **options), where every weight of the model comes from the folder.

    extra: the folder may hold more than the model takes: a published checkpoint often carries other parts, as
    CLIP's does for its text encoder alone

    Raises BadInput for weights that are missing, of another shape or (without `extra`) not the model's. What the
    library itself renames, ties or ignores fits. Other errors are the library's.
    """
    with _without_report():
        model, report = kind.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True,
                                             **options)
    shapes = {name: (given, wanted) for name, given, wanted in report["mismatched_keys"]}
    unexpected = [] if extra else report["unexpected_keys"]
    check_fit(folder, report["missing_keys"], unexpected, shapes | _four_bit_shapes(model))
    return model


def _four_bit_shapes(model):
    """4-bit layers whose weight has another shape than theirs: the library compares packed bits, which have none."""
    shapes = {}
    for name, layer in model.named_modules():
        packed = getattr(getattr(layer, "weight", None), "quant_state", None)
        if packed is not None and tuple(packed.shape) != (layer.out_features, layer.in_features):
            shapes[f"{name}.weight"] = packed.shape, (layer.out_features, layer.in_features)
    return shapes


def check_fit(folder, missing, unexpected, shapes=()):
    """Raise BadInput, one line, if anything is given: names of weights; shapes: {name: (in the file, wanted)}."""
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing (such as {min(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} not the model's (such as {min(unexpected)})")
    if shapes:
        name = min(shapes)
        given, wanted = shapes[name]
        problems.append(f"{len(shapes)} of another shape (such as {name}: {tuple(given)}, not {tuple(wanted)})")
    if problems:
        raise BadInput(f"{folder}: its weights do not fit the model: {', '.join(problems)}; "
                       "give a folder whose files belong together, or download or write it again")


def cause_of(error):
    """An error's type and its cause in one line: libraries write pages, and the first line names it."""
    text = str(error).strip() or "no reason given"
    if "trust_remote_code" in text:
        return "it needs Python code of its own, which is not run here; name a model that transformers has"
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"


@contextmanager
def _without_report():
    """Inside, the library does not print its own table of the names that do not fit: we say it in one line."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
