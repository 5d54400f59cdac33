"""What the teachers share: loading without downloading, and one clear line for what is missing.

Nothing is fetched behind a person's back: a checkpoint is in a folder, or on this machine because `hf
download` put it there. Whatever goes wrong while loading becomes a BadInput: one line that names the thing
and its cure.

Read:  before, teachers/__init__.py (the roles); next, teachers/detectors.py
"""
import hashlib
import importlib
import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from runs.checkpoints import NO_CODE, load_weights
from runs.errors import BadInput, first_line

MAX_BOXES = 64  # boxes or points per label, the surest first; verifier/ counts as many (our choice)


def device_of(device):
    """A torch.device; where none is named, the GPU if there is one."""
    if device:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_folder(what, name):
    """The folder of a model: `name` itself, or where that hub id was downloaded to. what: who asks."""
    try:
        return name if Path(name).is_dir() else snapshot_download(name, local_files_only=True)
    except Exception as error:  # many kinds, from a name that is none to a download that was never finished
        raise _cannot_load(what, name, error) from error


def load(what, name, kind, **options):
    """kind.from_pretrained(folder, **options). name: a folder, or a hub id that was downloaded; else BadInput.

    The hub's name is turned into its folder first, since from_pretrained asks the network for files even if
    told not to.
    """
    folder = find_folder(what, name)
    try:
        return kind.from_pretrained(folder, **(NO_CODE | options))
    except Exception as error:  # many kinds, from a missing file to weights of another size
        raise _cannot_load(what, name, error) from error


def load_model(what, name, kind, **options):
    """`load` for a model, whose weights must all be there (see runs/checkpoints.py).

    More than the model's own may be: published checkpoints carry other parts, too.
    """
    folder = find_folder(what, name)
    try:
        return load_weights(kind, folder, extra=True, **(NO_CODE | options))
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    except Exception as error:  # many kinds, from a missing file to one that was cut off
        raise _cannot_load(what, name, error) from error


def _cannot_load(what, name, error):
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
    hub = name if is_hub_id else "OWNER/NAME"
    return BadInput(f"{what}: {name} cannot be loaded; download it with `hf download {hub}`, "
                    f"or pass a folder that holds it ({first_line(error)})")


def need_package(what, module, install):
    """Import a package that only one teacher needs -> the module. BadInput says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise BadInput(f"{what}: the package {package} is missing ({error}); run `{install}`") from error


def image_digest(image):
    """The content of a PIL picture as a short key: mode, size and pixels, whatever file it came from."""
    header = f"{image.mode} {image.size} ".encode()
    return hashlib.blake2b(header + image.tobytes(), digest_size=16).hexdigest()
