"""Checkpoints: weights that fit their model, and the pixels with which a model was trained.

Who needs it: policy.py and teachers/, whenever they load; every script that asks a trained model.

Weights. The library fills what a folder lacks with random numbers, leaves out what it does not know, and
warns. A run on such noise looks like any other and ends in a table of zeros; so does one on weights that are no
numbers. So `load_weights` compares the names and looks at the numbers, and what does not fit is one line that
names the folder.

Pixels. Points are pixels of the picture as the policy saw it, so they mean something only together with the
pixel budget, which decides in what size it sees a picture. A trained checkpoint keeps its budget in two places:

    argos.json              {"min_pixels": .., "image_pixels": .., "video_pixels": .., "max_frames": ..}
    processor_config.json   the same as `size`, which the library, vLLM and other trainers follow by themselves

The second cannot mark a checkpoint that was trained so, since every published one has some size there
(Qwen2.5-VL-7B's own: 4 to 16,384 tokens). So the first is what our scripts read: flags that were left at their
default follow it, others must agree (`follow_budget`). A folder without it states nothing, and any budget will
do; whoever wants to try a trained checkpoint in other sizes deletes it. Curated data has the first, too: its
responses hold points.

Older versions. Trainers such as EasyR1 run transformers 4, which looks for some settings under other names: a
saved model has both (`add_older_names`).

Before: runs/settings.py. Next: train_sft.py, or policy.py
"""
import copy
import json
import sys
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers.utils import logging

from runs.errors import BadInput, warn
from runs.files import write_atomically
from runs.settings import TOKEN

BUDGET_FILE = "argos.json"
BUDGET_FLAGS = ("min_pixels", "image_pixels", "video_pixels", "max_frames")  # of runs.settings.Settings

NO_CODE = dict(trust_remote_code=False)  # else the library asks on the terminal whether to run a folder's Python


# ---- 1. Weights that fit -----------------------------------------------------------------------------------
def load_weights(kind, folder, extra=False, **options):
    """kind.from_pretrained(folder, **options), where every weight of the model comes from the folder.

    extra: the folder may hold more than the model takes: a published checkpoint often carries other parts, as
    CLIP's does for its text encoder alone

    Raises BadInput for weights that are missing, of another shape, not numbers or (without `extra`) not the
    model's. What the library itself renames, ties or ignores fits. Other errors are the library's.
    """
    with _without_report():
        model, report = kind.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True,
                                             **options)
    shapes = {name: (given, wanted) for name, given, wanted in report["mismatched_keys"]}
    unexpected = [] if extra else report["unexpected_keys"]
    check_fit(folder, report["missing_keys"], unexpected, shapes | _four_bit_shapes(model))
    check_finite(folder, dict(model.named_parameters()))
    return model


def _four_bit_shapes(model):
    """4-bit layers whose weight has another shape than theirs: the library cannot tell from packed bits."""
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
        example = f"{name}: {tuple(given)}, not {tuple(wanted)}"
        problems.append(f"{len(shapes)} of another shape (such as {example})")
    if problems:
        raise BadInput(f"{folder}: its weights do not fit the model: {', '.join(problems)}; "
                       "give a folder whose files belong together, or download or write it again")


def check_finite(path, weights):
    """Raise BadInput where some are NaN or infinite: training went astray. weights: {name: tensor}."""
    for name, weight in weights.items():
        whole = not weight.is_floating_point() or weight.element_size() == 1  # packed; 8-bit floats have no inf
        if not (whole or weight.isfinite().all()):
            raise BadInput(f"{path}: {name} is not finite: its training went astray; take an older checkpoint, or "
                           "train again with a lower --lr")


@contextmanager
def _without_report():
    """Inside, the library does not print its own table of the names that do not fit: we say it in one line."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


# ---- 2. The pixels of training -----------------------------------------------------------------------------
def budget_of(cfg):
    """The pixel budget of a script's settings, as argos.json holds it."""
    return {name: getattr(cfg, name) for name in BUDGET_FLAGS}


def write_budget(folder, budget):
    """State with which pixel budget a folder was made."""
    write_atomically(Path(folder, BUDGET_FILE), json.dumps(budget, indent=2) + "\n")


def save_budget(processor, folder, budget):
    """Write the processor and its pixel budget into a folder. budget: see budget_of, or None: not known.

    From then on AutoProcessor.from_pretrained(folder) sees a picture in the size in which we show it. Of clips
    the library's processor knows one size of frames whatever their number: it is that of a clip of max_frames
    frames. (Ours lets fewer frames be larger, up to the size of a picture.)
    """
    if budget:
        processor = copy.deepcopy(processor)  # the one in use keeps its own
        picture = budget["image_pixels"]
        frame = min(picture, max(TOKEN, budget["video_pixels"] // budget["max_frames"]))
        for part, most in ((processor.image_processor, picture), (processor.video_processor, frame)):
            part.size = {"shortest_edge": min(budget["min_pixels"], most), "longest_edge": most}
        write_budget(folder, budget)
    processor.save_pretrained(folder)


def shown_pixels(processor):
    """(fewest, most) pixels of a picture as a processor shows it. Raises BadInput where it states none."""
    size = getattr(getattr(processor, "image_processor", None), "size", None)
    names = ("shortest_edge", "longest_edge")  # pixels, whatever their names say
    bounds = [size.get(name) if hasattr(size, "get") else None for name in names]
    if None in bounds:
        raise BadInput(f"{type(processor).__name__}: states no fewest and most pixels of a picture, so nobody can "
                       "tell in which size the policy sees it; take a model of Qwen2.5-VL's kind")
    return tuple(bounds)


def read_budget(folder):
    """The pixel budget of a checkpoint or of curated data, or None where the folder states none.

    folder: also a hub id, if it was downloaded: nothing is asked of the network here. Raises BadInput for a
    file that holds something else.
    """
    path = Path(folder, BUDGET_FILE)
    if not Path(folder).exists():
        path = _downloaded(str(folder))
    if path is None or not path.is_file():
        return None
    try:
        budget = json.loads(path.read_text(encoding="utf-8"))
        good = budget.keys() == set(BUDGET_FLAGS) and all(type(n) is int and n > 0 for n in budget.values())
    except (OSError, ValueError, AttributeError, RecursionError):
        good = False
    if not good:
        raise BadInput(f"{path}: is no pixel budget ({', '.join(BUDGET_FLAGS)}, whole numbers above 0); "
                       "copy it again from where the folder was made, or delete it and give the flags")
    return budget


def _downloaded(hub_id):
    """Where `hf download` put argos.json of this hub id, or None."""
    try:
        path = try_to_load_from_cache(hub_id, BUDGET_FILE)
    except HFValidationError:  # a path that does not exist
        return None
    return Path(path) if isinstance(path, str) else None


def follow_budget(cfg, *folders):
    """Let cfg have the pixel budget with which these folders were made, and say so on stderr.

    folders: checkpoints, or where curated data lies. Only flags that nobody typed are changed. Raises BadInput for
    one that was typed and says something else, and for folders of different budgets: points of one would be read
    in the other's sizes. Also for sizes that no picture can have.
    """
    stated_by = {}  # flag -> the folder whose budget it has
    for folder in folders:
        for name, stated in (read_budget(folder) or {}).items():
            now = getattr(cfg, name)
            if stated != now and name in stated_by:
                raise BadInput(f"{folder} was made with --{name} {stated}, {stated_by[name]} with {now}; "
                               "use them in runs of their own")
            if stated != now and _typed(name):
                raise BadInput(f"--{name} {now}: {folder} was made with {stated}, and its points are pixels of "
                               f"such pictures; leave the flag out, or delete {folder}/{BUDGET_FILE}")
            if stated != now:
                warn(f"--{name} {stated}, as {folder} was made")
                setattr(cfg, name, stated)
            stated_by[name] = folder
    for name, least in (("image_pixels", TOKEN), ("video_pixels", TOKEN), ("max_frames", 1)):
        if getattr(cfg, name) < least:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least {least}")


def _typed(name):
    """Whether a flag is on the command line: --max_frames, --max-frames, or cut short as argparse allows."""
    for word in sys.argv[1:]:
        flag = word.partition("=")[0].replace("-", "_")
        if len(flag) > 2 and flag.startswith("__") and f"__{name}".startswith(flag):
            return True
    return False


# ---- 3. Version 4 of the library ---------------------------------------------------------------------------
def add_older_names(folder):
    """Let transformers 4 read a model that version 5 has saved. (EasyR1 and many a vLLM have 4.57.)

    Version 4 takes rope_parameters for an unknown setting, falls back to a base of 1,000,000 for its rotations and
    then misses mrope_section; and it does not know TokenizersBackend. So both are written under their older names,
    too. Version 5 reads the same model from them as before (tests/test_checkpoints.py asks both for their logits).
    What a model of another kind does not have is left alone: nothing may be lost here after a long training.
    """
    path = Path(folder, "config.json")
    if path.exists():  # an adapter has none
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config", {})
        rope = dict(text.get("rope_parameters") or {})
        if "rope_theta" in rope:
            text["rope_theta"] = rope.pop("rope_theta")
            text["rope_scaling"] = rope  # {"rope_type": "default", "mrope_section": [..]}
            text["architectures"] = config.get("architectures")  # where EasyR1's merger and vLLM find it
            write_atomically(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    path = Path(folder, "tokenizer_config.json")
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"  # in version 5 another word for the same
        write_atomically(path, json.dumps(tokenizer, indent=2, sort_keys=True) + "\n")
