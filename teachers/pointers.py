"""Pointers: a label in, the centre of each such thing out. For charts and drawings, where boxes fail.

    MolmoPointer   the paper's, Molmo-7B; answers in percent: <point x="61.5" y="40.4" alt="mug">mug</point>
    VLMPointer     a Qwen2.5-VL, also the policy's own frozen base; answers in pixels of what it saw

Two models, two coordinate spaces, and the numbers look alike: verifier/coordinates.py maps the one to the
other.

Read:  before, teachers/segmenters.py; next, teachers/judges.py (VLM, which VLMPointer builds on)
"""
import re
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoProcessor, GenerationConfig

from runs.errors import BadInput
from teachers.judges import VLM, Question, one_frame, quoted
from teachers.loading import MAX_BOXES, device_of, load, load_model
from verifier.claims import parse
from verifier.coordinates import convert

MAX_LABEL = 100  # characters of a label that a model is asked for


class VLMPointer(VLM):
    """See teachers.Pointer. A point outside the picture is dropped."""

    def point(self, image, label, max_new_tokens=256):
        label = quoted(label, self.policy.tokenizer, MAX_LABEL)
        question = Question(one_frame(image), "point", dict(label=label))
        reply, = self._replies([question], max_new_tokens)
        return _inside(image, [(point.x, point.y) for point in parse(reply).points])


class MolmoPointer:
    """See teachers.Pointer. A point outside the picture is dropped.

    name: a folder. The checkpoint brings its own Python code, which runs when it is loaded: so no hub id is
    taken, only a folder, which a person can read first. pair: (processor, model) already loaded.
    """

    def __init__(self, name=None, device=None, max_new_tokens=512, pair=None):
        self.max_new_tokens = max_new_tokens
        self.device = device_of(device)
        self.identity = f"molmo {name} {max_new_tokens}"
        if pair is None:
            pair = _load_molmo(name, self.device)
        self.processor, self.model = pair

    def point(self, image, label):
        reply = self._reply(image, label)
        points = [convert(x, y, "percent", "seen", image.size, image.size) for x, y in read_molmo(reply)]
        return _inside(image, points)

    def _reply(self, image, label):
        """What Molmo writes, greedily. process and generate_from_batch are its own code's."""
        tokenizer = self.processor.tokenizer
        request = f"Point to {quoted(label, None, MAX_LABEL)}."
        inputs = self.processor.process(images=[image], text=request)
        inputs = {name: value.to(self.device)[None] for name, value in inputs.items()}  # a batch of one
        config = GenerationConfig(max_new_tokens=self.max_new_tokens, stop_strings="<|endoftext|>")
        with torch.no_grad():
            ids = self.model.generate_from_batch(inputs, config, tokenizer=tokenizer)
        prompt_length = inputs["input_ids"].shape[1]
        return tokenizer.decode(ids[0, prompt_length:], skip_special_tokens=True)


def _load_molmo(name, device):
    """-> (processor, model)."""
    if not name or not Path(name, "config.json").is_file():
        raise BadInput("molmo: it runs Python code that comes with the checkpoint; "
                       "download it (hf download allenai/Molmo-7B-D-0924 --local-dir FOLDER), "
                       "read its .py files, and pass molmo:FOLDER")
    options = dict(trust_remote_code=True, dtype="auto")
    processor = load("molmo", name, AutoProcessor, **options)
    model = load_model("molmo", name, AutoModelForCausalLM, **options)
    model.to(device).eval()
    return processor, model


def _inside(image, points):
    """Those of the points (x, y) that lie in the picture: 100 percent is already the first pixel outside."""
    return [(x, y) for x, y in points if 0 <= x < image.width and 0 <= y < image.height]


# Every quantifier is bounded or cannot cross the next "<": a reply of any size is read in linear time.
_MOLMO_TAG = re.compile(r"<points?\s([^<>]*)>", re.I | re.A)
_MOLMO_XY = re.compile(r"\b([xy])(\d{0,4})"                                        # x, y, x1, y1 ...
                       r"\s{0,3}=\s{0,3}[\"']?\s{0,3}"
                       r"(\d{1,3}(?:\.\d{1,6})?)(?![\d.])", re.I | re.A)  # 61.5, but not 1.2.3
_MOLMO_ALT = re.compile(r"\balt\s*=")
MAX_REPLY = 20_000  # characters of a reply that are read


def read_molmo(text):
    """Molmo's tags -> [(x, y)], percent, MAX_BOXES at most. A coordinate without its partner is dropped.

        <point x="61.5" y="40.4" alt="mug">mug</point>                 -> [(61.5, 40.4)]
        <points x1="10.0" y1="20.5" x2="30" y2="40.1" alt="mugs">      -> [(10.0, 20.5), (30.0, 40.1)]
    """
    points = []
    for tag in _MOLMO_TAG.finditer(text[:MAX_REPLY]):
        before_alt = _MOLMO_ALT.split(tag[1])[0]  # an alt text may say x="5", too
        numbered = {}  # "1" of x1 and y1 -> {"x": .., "y": ..}
        for axis, number, value in _MOLMO_XY.findall(before_alt):
            pair = numbered.setdefault(number, {})
            pair.setdefault(axis.lower(), float(value))  # of two x1 the first counts
        for pair in numbered.values():
            if len(pair) == 2:
                points.append((pair["x"], pair["y"]))
    return points[:MAX_BOXES]
