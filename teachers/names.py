"""Teachers by name."""
from functools import partial

from transformers import AutoConfig

import policy as P
from runs.errors import BadInput
from teachers.cache import Cached
from teachers.detectors import YoloWorld, ZeroShotDetector
from teachers.judges import PlainJudge, VLMJudge
from teachers.loading import device_of, load
from teachers.pointers import MolmoPointer, VLMPointer
from teachers.segmenters import Sam2, Sam2HF
from tiny import pixels


def _pixels(kind):
    def make(device=None):
        return getattr(pixels, kind)()
    return make


def _qwen(name="Qwen/Qwen2.5-VL-7B-Instruct", device=None):
    dtype = "bfloat16" if device_of(device).type == "cuda" else "float32"
    pointer = VLMPointer(P.load_policy(name, dtype=dtype, device=device))
    pointer.identity = f"qwen {name} {dtype}"
    return pointer


# name -> how to make it: make(device=...), make(name=..., device=...)
DETECTORS = {"pixels": _pixels("PixelDetector"), "yolo-world": YoloWorld,
             "grounding-dino": partial(ZeroShotDetector, name="IDEA-Research/grounding-dino-base"),
             "mm-grounding-dino": partial(ZeroShotDetector, name="openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det"),
             "owlv2": partial(ZeroShotDetector, name="google/owlv2-base-patch16-ensemble", threshold=.2)}
SEGMENTERS = {"pixels": _pixels("PixelSegmenter"), "sam2": Sam2, "sam2-hf": Sam2HF}
POINTERS = {"pixels": _pixels("PixelPointer"), "molmo": MolmoPointer, "qwen": _qwen}


def load_teachers(detector="pixels", segmenter="pixels", pointer="pixels", device=None, cache=None, base=None):
    """-> (detector, segmenter, pointer). Each is asked for by NAME or NAME:FOLDER_OR_HUB_ID; without a checkpoint, a published one.

    device: "cuda" where there is one, unless given. cache: a folder that keeps their answers (see Cached). base: a policy that is
    loaded anyway, which the pointer "base" asks with its adapter off. Nothing is downloaded: argos.BadInput says what to, for a name or
    checkpoint that is not there.
    """
    made, makers = [], POINTERS | ({"base": lambda device: VLMPointer(base, adapter_off=True)} if base else {})
    for role, asked, makers in (("detector", detector, DETECTORS), ("segmenter", segmenter, SEGMENTERS), ("pointer", pointer, makers)):
        name, _, checkpoint = asked.partition(":")
        if name not in makers or name in ("pixels", "base") and checkpoint:
            raise BadInput(f"--{role} {asked}: choose {', '.join(makers)}; real ones take a checkpoint, as NAME:FOLDER_OR_HUB_ID")
        teacher = makers[name](device=device, **({"name": checkpoint} if checkpoint else {}))
        made.append(Cached(teacher, cache) if cache and name != "base" else teacher)
    return tuple(made)


def load_judge(name, preset=None, device=None, dtype="float32"):
    """Any vision-language model as a judge: a folder or hub id. Qwen2.5-VL takes the fast path of policy.py, with weights of this
    dtype (see P.load_policy); others the library's, with weights as they were published."""
    try:
        kind = load("judge", name, AutoConfig)[0].model_type
    except BadInput:
        kind = "qwen2_5_vl"  # load_policy says what is wrong, or fetches it
    if kind == "qwen2_5_vl":
        return VLMJudge(P.load_policy(name, dtype=dtype, device=device), preset)
    return PlainJudge(name, preset or "7b", device)
