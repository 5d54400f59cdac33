"""Detectors: a label in, boxes out. They find any label (open vocabulary), since a policy may write any.

The paper's text names none, a figure of its blog post Grounding DINO: the 7B presets' default. By two classes:

    ZeroShotDetector   GroundingDINO, arXiv:2303.05499           transformers, Apache-2.0
                       MM-GroundingDINO, arXiv:2401.02361
                       OWLv2, arXiv:2306.09683
    YoloWorld          YOLO-World, arXiv:2401.17270              ultralytics, AGPL-3.0

The traps, each closed below: labels asked together compete for the boxes; GroundingDINO reads "a. b" as two
labels; boxes come in pixels of a padded, resized input, or as fractions of it; YOLO takes an array for BGR.

Thresholds are our choice, near what the models' authors show: lower ones invent boxes, which a policy learns
to seek.

Read:  before, teachers/__init__.py, teachers/loading.py; next, teachers/segmenters.py
"""
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import (AutoModelForZeroShotObjectDetection, AutoProcessor, AutoTokenizer,
                          CLIPTextModelWithProjection)

from runs.errors import BadInput, first_line
from teachers.loading import MAX_BOXES, device_of, load, load_model, need_package
from verifier.coordinates import Box


class _Detector:
    """What detectors share. See teachers.Detector.

    A subclass has `batch`, how many phrases to ask at once, and find(image, phrases) -> for each phrase
    (boxes (N, 4): x1, y1, x2, y2 in pixels of the image, scores (N,)), tensors, of that phrase alone.
    """

    def detect(self, image, labels):
        """Each different phrase is asked once, and by itself, in a row of its own.

        Asked together, labels compete for the boxes (the library keeps one label per box) and colour each
        other's features, and the reward would depend on what else the group of responses has named.
        """
        phrases = [_phrase(label) for label in labels]
        asked = [phrase for phrase in dict.fromkeys(phrases) if phrase]  # each once, in order
        found = {}  # phrase -> (boxes, scores)
        for i in range(0, len(asked), self.batch):
            batch = asked[i:i + self.batch]
            with torch.inference_mode():
                answers = self.find(image, batch)
            for phrase, answer in zip(batch, answers, strict=True):
                found[phrase] = answer

        result = []
        for phrase, label in zip(phrases, labels):
            if phrase:
                corners, scores = found[phrase]
                result.append(self._boxes(corners, scores, image, label))
            else:  # a label of punctuation names nothing
                result.append([])
        return result

    @staticmethod
    def _boxes(corners, scores, image, label):
        """Tensors (N, 4), (N,) -> the MAX_BOXES surest Boxes, cut off at the border.

        A box without area, or whose numbers are none, is dropped.
        """
        width, height = image.size
        boxes = []
        for (x1, y1, x2, y2), score in zip(corners.tolist(), scores.tolist()):
            box = Box(max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)), score, label)
            if box.x1 < box.x2 and box.y1 < box.y2 and math.isfinite(score):  # comparing with nan gives False
                boxes.append(box)
        boxes.sort(key=lambda box: -box.score)
        return boxes[:MAX_BOXES]


def _phrase(label):
    """A label as a detector may read it: 100 characters, without the signs that one of the models takes for a
    separator (GroundingDINO's full stop) or for a special token ("[SEP]")."""
    words = re.sub(r"[^\w\s'&/,+%#-]", " ", label[:100])
    return " ".join(words.split())


class YoloWorld(_Detector):
    """YOLO-World by ultralytics, which is under AGPL-3.0: imported inside this class only.

    name: a .pt file.
    text: CLIP's text encoder, which reads the labels; it is transformers' (the same ViT-B/32, without the clip
    package from git), from the folder clip-vit-base-patch32 beside the file, else from the hub.
    threshold: least score of a box. side: pixels of the model's input. batch: phrases at a time.
    """

    def __init__(self, name="yolov8x-worldv2.pt", device=None, threshold=.25, side=640, batch=8, text=None):
        if not Path(name).is_file():
            releases = "https://github.com/ultralytics/assets/releases/download/v8.3.0"
            raise BadInput(f"yolo-world: {name} is missing; download {releases}/{Path(name).name}, "
                           "and pass yolo-world:FILE")
        _import_ultralytics()
        if text is None:
            beside = Path(name).parent / "clip-vit-base-patch32"
            text = str(beside) if beside.is_dir() else "openai/clip-vit-base-patch32"
        self.tokenizer = load("yolo-world's text encoder", text, AutoTokenizer)
        self.text = load_model("yolo-world's text encoder", text, CLIPTextModelWithProjection)
        self.model = _load_world_model(name)
        self.device = device_of(device)
        self.model.to(self.device)
        self.text.to(self.device).eval()
        self.threshold = threshold
        self.side = side
        self.batch = batch
        self.identity = f"yolo-world {name} {text} {threshold} {side}"

    def find(self, image, phrases):
        from ultralytics.utils import nms, ops  # optional, AGPL-3.0
        pixels = self._pixels(image)           # (1, 3, h, w)
        features = self._features(phrases)     # (B, 1, 512)
        rows = pixels.expand(len(phrases), -1, -1, -1)
        # The model carries the text features of its last call; given each time, nothing is left over.
        predicted, _ = self.model(rows, txt_feats=features)  # (B, 5, anchors): four corners, one score
        found = []
        for row in predicted:  # one at a time: given many, it gives up on the last ones when it is late
            kept, = nms.non_max_suppression(row[None], self.threshold, iou_thres=.7, max_det=MAX_BOXES)
            # kept: (N, 6), the corners in pixels of the padded input, the score, the class
            boxes = ops.scale_boxes(pixels.shape[2:], kept[:, :4], (image.height, image.width))
            found.append((boxes, kept[:, 4]))
        return found

    def _features(self, phrases):
        """What the text encoder makes of each phrase, of length 1: (B, 1, 512)."""
        tokens = self.tokenizer(phrases, padding=True, truncation=True, max_length=77, return_tensors="pt")
        embeds = self.text(**tokens.to(self.device)).text_embeds  # (B, 512)
        return torch.nn.functional.normalize(embeds, dim=-1)[:, None]

    def _pixels(self, image):
        """The picture resized and padded as ultralytics' own predictor does, 0..1: (1, 3, h, w).

        But RGB all the way: that predictor takes an array for BGR.
        """
        from ultralytics.data.augment import LetterBox  # optional, AGPL-3.0
        pad = LetterBox(self.side, auto=True, stride=32)
        pixels = pad(image=np.asarray(image.convert("RGB")))  # (h, w, 3)
        pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        return pixels.permute(2, 0, 1)[None] / 255


def _import_ultralytics():
    os.environ["YOLO_AUTOINSTALL"] = "0"  # before the import: install nothing,
    os.environ["YOLO_OFFLINE"] = "1"      # look nothing up,
    ultralytics = need_package("yolo-world", "ultralytics", "pip install ultralytics==8.4.190  # AGPL-3.0")
    ultralytics.settings.update({"sync": False})  # and send no statistics


def _load_world_model(name):
    """The network in a .pt file: a pickle, which could run a program, so it is read as data and calls nothing."""
    from ultralytics.nn.tasks import WorldModel, torch_safe_load  # optional, AGPL-3.0
    try:
        checkpoint, _ = torch_safe_load(name, safe_only=True)
        model = checkpoint.get("ema") or checkpoint["model"]  # "ema": the average over training
        model = model.float().eval()
        if not isinstance(model, WorldModel):
            raise ValueError(f"it holds a {type(model).__name__}")
        model.model[-1].nc = 1  # the number of classes: one label per row
    except Exception as error:  # many kinds, from a truncated file to another library's checkpoint
        raise BadInput(f"yolo-world: {name} is no YOLO-World checkpoint ({first_line(error)}); "
                       "download yolov8x-worldv2.pt again") from error
    return model


class ZeroShotDetector(_Detector):
    """GroundingDINO, MM-GroundingDINO or OWLv2, as transformers has them.

    name: a folder or a hub id. threshold: least score of a box (the authors' demos use .3 to .4; their second one,
    for which words a box has touched, plays no part where a row has one phrase). batch: phrases at a time.
    """

    def __init__(self, name, device=None, threshold=.3, batch=4):
        self.processor = load("detector", name, AutoProcessor)
        self.model = load_model("detector", name, AutoModelForZeroShotObjectDetection)
        self.device = device_of(device)
        self.model.to(self.device).eval()
        self.kind = self.model.config.model_type
        self.threshold = threshold
        self.batch = batch
        self.identity = f"{self.kind} {name} {threshold}"

    def find(self, image, phrases):
        image = image.convert("RGB")
        if self.kind in ("owlv2", "owlvit"):
            return self._find_owl(image, phrases)
        return self._find_dino(image, phrases)

    def _find_dino(self, image, phrases):
        """One row per phrase: its boxes are the phrase's, without a guess from the tokens that a box has touched.

        The full stop does two things: it ends a phrase, and without it the processor would merge the list
        into one text.
        """
        count = len(phrases)
        inputs = self.processor(images=[image] * count, text=[f"{phrase.lower()}." for phrase in phrases],
                                padding=True, return_tensors="pt").to(self.device)
        out = self.model(**inputs)
        sizes = [(image.height, image.width)] * count
        results = self.processor.post_process_grounded_object_detection(
            out, inputs["input_ids"], threshold=self.threshold, target_sizes=sizes)
        return [(result["boxes"], result["scores"]) for result in results]

    def _find_owl(self, image, phrases):
        """All phrases on one picture: OWLv2's queries do not see each other. But the library would give a box
        to its best phrase only, so each phrase gets its own slice of the logits.

        Boxes are fractions of the picture padded to a square; the processor turns them into pixels.
        """
        longest = self.model.config.text_config.max_position_embeddings
        inputs = self.processor(images=image, text=[phrases], return_tensors="pt",
                                text_kwargs=dict(truncation=True, max_length=longest)).to(self.device)
        out = self.model(**inputs)  # logits (1, patches, phrases), pred_boxes (1, patches, 4)
        found = []
        for k in range(len(phrases)):
            one = SimpleNamespace(logits=out.logits[..., k:k + 1], pred_boxes=out.pred_boxes)
            size = [(image.height, image.width)]
            result, = self.processor.post_process_grounded_object_detection(one, self.threshold, size)
            found.append((result["boxes"], result["scores"]))
        return found
