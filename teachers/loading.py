"""What the teachers share: loading without downloading, one clear line for what is missing."""
import hashlib
import importlib
import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from runs.errors import BadInput


# ---- 3. Detectors ---------------------------------------------------------------------------------------------------------
# The thresholds below are our choice, near what the models' authors show: lower ones invent boxes, which a policy learns to seek.
MAX_BOXES = 64  # boxes or points per label, best first, as many as argos counts points


def device_of(device):
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def load(what, name, *kinds, **options):
    """Each of kinds from a folder, or from a hub id that was downloaded before -> list; without kinds, the folder itself.

    Nothing is downloaded: BadInput says what to. The hub's name is turned into its folder first, since from_pretrained asks the
    network for files even if told not to.
    """
    try:
        folder = name if Path(name).is_dir() else snapshot_download(name, local_files_only=True)
        return [kind.from_pretrained(folder, **options) for kind in kinds] or folder
    except Exception as error:  # many kinds, from a missing file to weights of another size; the first line names the cause
        hub = name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else "OWNER/NAME"
        raise BadInput(f"{what}: {name} cannot be loaded; download it with `hf download {hub}`, or pass a folder that holds it "
                       f"({cause_of(error)})") from error


def cause_of(error):
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}"


def need_package(what, module, install):
    """Import a package that only this teacher needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"{what}: the package {module.split('.')[0]} is missing ({error}); run `{install}`") from error


# ---- 5. Teachers by name, and what they said remembered on disk -------------------------------------------------------------
def image_digest(image):
    """The content of a PIL picture as a key: mode, size, pixels."""
    return hashlib.blake2b(f"{image.mode} {image.size} ".encode() + image.tobytes(), digest_size=16).hexdigest()
