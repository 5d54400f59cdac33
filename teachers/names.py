"""Teachers by name: what --detector, --segmenter, --pointer and --judge mean.

    NAME                       with a published checkpoint, if it was downloaded before
    NAME:FOLDER_OR_HUB_ID      with this one

The table of all names and licences stands in teachers/__init__.py. Nothing is downloaded here: what is
missing is a BadInput that says how to get it. (Except a Qwen2.5-VL as judge or pointer: it is loaded as the
policy is, which may fetch a hub id.)

Try:   python -c "from teachers.names import load_teachers; print(load_teachers())"
Read:  before, teachers/detectors.py, segmenters.py, pointers.py, judges.py; next, teachers/cache.py
"""
from functools import partial

from transformers import AutoConfig

import policy as P
from runs.errors import BadInput
from teachers.cache import Cached
from teachers.detectors import YoloWorld, ZeroShotDetector
from teachers.judges import PlainJudge, VLMJudge
from teachers.loading import device_of, load
from teachers.pointers import READING, MolmoPointer, VLMPointer
from teachers.segmenters import Sam2, Sam2HF
from tiny.pixels import PixelDetector, PixelPointer, PixelSegmenter


# The makers. Each takes device=..., and name=... where it has a checkpoint. Rules for pixels need neither.
def _pixel_detector(device=None):
    return PixelDetector()


def _pixel_segmenter(device=None):
    return PixelSegmenter()


def _pixel_pointer(device=None):
    return PixelPointer()


def _qwen_pointer(name="Qwen/Qwen2.5-VL-7B-Instruct", device=None):
    on_gpu = device_of(device).type == "cuda"
    dtype = "bfloat16" if on_gpu else "float32"
    pointer = VLMPointer(P.load_policy(name, dtype=dtype, device=device))
    pointer.identity = f"qwen {name} {dtype} {READING}"  # rounding may move a point: the cache tells two apart
    return pointer


def _base_pointer(base, device=None):
    return VLMPointer(base, adapter_off=True)


MM_GROUNDING_DINO = "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det"

DETECTORS = {
    "pixels": _pixel_detector,
    # These two look at the picture anew for every phrase, and each look takes 1 to 2 GB: so one at a time.
    "grounding-dino": partial(ZeroShotDetector, name="IDEA-Research/grounding-dino-base", batch=1),
    "mm-grounding-dino": partial(ZeroShotDetector, name=MM_GROUNDING_DINO, batch=1),
    "owlv2": partial(ZeroShotDetector, name="google/owlv2-base-patch16-ensemble", threshold=.2),
    "yolo-world": YoloWorld,
}
SEGMENTERS = {"pixels": _pixel_segmenter, "sam2": Sam2, "sam2-hf": Sam2HF}
POINTERS = {"pixels": _pixel_pointer, "molmo": MolmoPointer, "qwen": _qwen_pointer}
WITHOUT_CHECKPOINT = ("pixels", "base")


def load_teachers(detector="pixels", segmenter="pixels", pointer="pixels", device=None, cache=None,
                  base=None):
    """-> (detector, segmenter, pointer). Each is asked for by NAME or NAME:FOLDER_OR_HUB_ID.

    device: "cuda" where there is one, unless given.
    cache: a folder that keeps their answers (see teachers/cache.py).
    base: a policy that is loaded anyway; the pointer called "base" asks it, its adapter off.
    Raises BadInput for a name, a checkpoint or a package that is not there, and says what to do.
    """
    pointers = dict(POINTERS)
    if base is not None:
        pointers["base"] = partial(_base_pointer, base)
    return (_make("detector", detector, DETECTORS, device, cache),
            _make("segmenter", segmenter, SEGMENTERS, device, cache),
            _make("pointer", pointer, pointers, device, cache))


def _make(role, asked, makers, device, cache):
    """One teacher. asked: NAME or NAME:FOLDER_OR_HUB_ID; makers: {name: how to make it}."""
    name, _, checkpoint = asked.partition(":")
    if name not in makers or (checkpoint and name in WITHOUT_CHECKPOINT):
        raise BadInput(f"--{role} {asked}: choose {', '.join(makers)}; "
                       "real ones take a checkpoint, as NAME:FOLDER_OR_HUB_ID")
    if checkpoint:
        teacher = makers[name](name=checkpoint, device=device)
    else:
        teacher = makers[name](device=device)
    if cache and name != "base":  # the base has no name that would tell its answers from another base's
        return Cached(teacher, cache)
    return teacher


def load_judge(name, preset=None, device=None, dtype="float32"):
    """Any vision-language model as a judge. name: a folder or hub id.

    Qwen2.5-VL takes the fast path of policy.py, with weights of this dtype (see policy.load_policy); others
    take the library's plain path, with weights as they were published. preset: whose prompts ("tiny" or
    "7b"), unless given by size.
    """
    try:
        kind = load("judge", name, AutoConfig).model_type
    except BadInput:
        kind = "qwen2_5_vl"  # load_policy says what is wrong, or fetches it
    if kind == "qwen2_5_vl":
        return VLMJudge(P.load_policy(name, dtype=dtype, device=device), preset)
    return PlainJudge(name, preset or "7b", device)
