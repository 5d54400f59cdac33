"""Pointers."""
import re
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoProcessor, GenerationConfig

import policy as P
from runs.errors import BadInput
from teachers.judges import VLM, one_frame, quoted
from teachers.loading import MAX_BOXES, device_of, load
from verifier.claims import parse
from verifier.coordinates import convert


class VLMPointer(VLM):
    """See Pointer. The model answers in absolute pixels of the picture that it saw; what falls outside is dropped."""

    def point(self, image, label, max_new_tokens=256):
        reply = self._ask(lambda prompt: P.sample(self.policy, prompt, 1, max_new_tokens=max_new_tokens, greedy=True).texts[0],
                          [(one_frame(image), "point", dict(label=quoted(label, self.policy.tokenizer, 100)))])
        return [(p.x, p.y) for p in parse(reply).points if 0 <= p.x < image.width and 0 <= p.y < image.height]


class MolmoPointer:
    """See Pointer. Molmo answers in percent of the picture; what falls outside is dropped.

    Its checkpoint brings its own Python code, which runs when it is loaded: so only from a folder, which a person can read first.
    pair: (processor, model) already loaded.
    """

    def __init__(self, name=None, device=None, max_new_tokens=512, pair=None):
        self.identity, self.max_new_tokens, device = f"molmo {name} {max_new_tokens}", max_new_tokens, device_of(device)
        if pair is None:
            if not name or not Path(name, "config.json").is_file():
                raise BadInput("molmo: it runs Python code that comes with the checkpoint; download it (hf download "
                               "allenai/Molmo-7B-D-0924 --local-dir FOLDER), read its .py files, and pass molmo:FOLDER")
            pair = load("molmo", name, AutoProcessor, AutoModelForCausalLM, trust_remote_code=True, dtype="auto")
            pair[1].to(device).eval()
        (self.processor, self.model), self.device = pair, device

    def point(self, image, label):
        points = [convert(x, y, "percent", "seen", image.size, image.size) for x, y in read_molmo(self._reply(image, label))]
        return [(x, y) for x, y in points if 0 <= x < image.width and 0 <= y < image.height]

    def _reply(self, image, label):
        tokenizer = self.processor.tokenizer
        inputs = self.processor.process(images=[image], text=f"Point to {quoted(label, None, 100)}.")
        inputs = {name: value.to(self.device)[None] for name, value in inputs.items()}
        config = GenerationConfig(max_new_tokens=self.max_new_tokens, stop_strings="<|endoftext|>")
        with torch.no_grad():
            ids = self.model.generate_from_batch(inputs, config, tokenizer=tokenizer)
        return tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)


_MOLMO_TAG = re.compile(r"<points?\s([^<>]*)>", re.I | re.A)
_MOLMO_XY = re.compile(r"\b([xy])(\d{0,4})\s{0,3}=\s{0,3}[\"']?\s{0,3}(\d{1,3}(?:\.\d{1,6})?)(?![\d.])", re.I | re.A)


def read_molmo(text):
    """`<point x="61.5" y="40.4" alt="..">` and `<points x1="10" y1="20" x2=..>` -> [(x, y)], percent; bounded and linear.

    The first 20,000 characters and 64 points count. A coordinate without its partner is dropped.
    """
    points = []
    for tag in _MOLMO_TAG.finditer(text[:20_000]):
        pairs = {}
        for axis, number, value in _MOLMO_XY.findall(re.split(r"\balt\s*=", tag[1])[0]):  # an alt text may say x="5", too
            pairs.setdefault(number, {}).setdefault(axis.lower(), float(value))
        points += [(p["x"], p["y"]) for p in pairs.values() if len(p) == 2]
    return points[:MAX_BOXES]
