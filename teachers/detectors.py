"""Detectors."""
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, AutoTokenizer, CLIPTextModelWithProjection

from runs.errors import BadInput
from teachers.loading import MAX_BOXES, cause_of, device_of, load, need_package
from verifier.coordinates import Box


def _phrase(label):
    """A label as a detector may read it: 100 characters, without the signs that one of the models takes for a separator or
    for a special token (GroundingDINO reads "a. b" as two labels)."""
    return " ".join(re.sub(r"[^\w\s'&/,+%#-]", " ", label[:100]).split())


class _Detector:
    """See Detector. Every phrase is asked by itself, `batch` rows at a time: asked together, labels compete for the boxes (the
    library keeps one label a box) and colour each other's features, and the reward would depend on the rest of the group.

    Subclasses give find(image, phrases) -> [(boxes (N, 4) in pixels, scores (N,)) per phrase], tensors.
    """

    def detect(self, image, labels):
        phrases = [_phrase(label) for label in labels]
        asked, found = list(dict.fromkeys(filter(None, phrases))), {}
        for i in range(0, len(asked), self.batch):
            with torch.inference_mode():
                found |= zip(asked[i:i + self.batch], self.find(image, asked[i:i + self.batch]), strict=True)
        return [self._boxes(*found[phrase], image, label) if phrase else [] for phrase, label in zip(phrases, labels)]

    @staticmethod
    def _boxes(corners, scores, image, label):
        """The best MAX_BOXES, cut off at the border; a box without area, or of numbers that are none, is dropped."""
        (w, h), boxes = image.size, []
        for (x1, y1, x2, y2), score in zip(corners.tolist(), scores.tolist()):
            box = Box(max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h)), score, label)
            if box.x1 < box.x2 and box.y1 < box.y2 and math.isfinite(score):  # a comparison with nan is False
                boxes.append(box)
        return sorted(boxes, key=lambda b: -b.score)[:MAX_BOXES]


class YoloWorld(_Detector):
    """YOLO-World (arXiv:2401.17270) by ultralytics, which is under AGPL-3.0: imported here only.

    name: a .pt file. Its labels are read by CLIP's text encoder, here as transformers has it (the same ViT-B/32, without the clip package
    from git): the folder clip-vit-base-patch32 beside the file, else the hub's. threshold: least score. side: pixels of its input.
    """

    def __init__(self, name="yolov8x-worldv2.pt", device=None, threshold=.25, side=640, batch=8, text=None):
        os.environ |= dict(YOLO_AUTOINSTALL="0", YOLO_OFFLINE="1")  # before the import: install nothing, look nothing up
        if not Path(name).is_file():
            raise BadInput(f"yolo-world: {name} is missing; download https://github.com/ultralytics/assets/releases/download/v8.3.0/"
                           f"{Path(name).name}, and pass yolo-world:FILE")
        ultralytics = need_package("yolo-world", "ultralytics", "pip install ultralytics==8.4.190  # AGPL-3.0")
        ultralytics.settings.update({"sync": False})  # and send no statistics
        from ultralytics.nn.tasks import WorldModel, torch_safe_load
        beside = Path(name).parent / "clip-vit-base-patch32"
        text = text or (str(beside) if beside.is_dir() else "openai/clip-vit-base-patch32")
        self.tokenizer, self.text = load("yolo-world's text encoder", text, AutoTokenizer, CLIPTextModelWithProjection)
        try:
            checkpoint, _ = torch_safe_load(name, safe_only=True)  # a pickle, read as data: it may call nothing
            self.model = (checkpoint.get("ema") or checkpoint["model"]).float().eval()
            if not isinstance(self.model, WorldModel):
                raise ValueError(f"it holds a {type(self.model).__name__}")
            self.model.model[-1].nc = 1  # one label a row
        except Exception as error:
            raise BadInput(f"yolo-world: {name} is no YOLO-World checkpoint ({cause_of(error)}); download yolov8x-worldv2.pt "
                           "again") from error
        self.device = device_of(device)
        self.model.to(self.device), self.text.to(self.device).eval()
        self.identity, self.threshold, self.side, self.batch = f"yolo-world {name} {text} {threshold} {side}", threshold, side, batch

    def find(self, image, phrases):
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils import nms, ops
        tokens = self.tokenizer(phrases, padding=True, truncation=True, max_length=77, return_tensors="pt").to(self.device)
        features = torch.nn.functional.normalize(self.text(**tokens).text_embeds, dim=-1)[:, None]  # (B, 1, 512)
        # Padded as ultralytics' own predictor does, but RGB all the way: that one takes an array for BGR.
        pixels = LetterBox(self.side, auto=True, stride=32)(image=np.asarray(image.convert("RGB")))  # (h, w, 3)
        pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(2, 0, 1)[None] / 255
        # The model carries the text features of its last call: given each time, nothing is left over.
        predicted, _ = self.model(pixels.expand(len(phrases), -1, -1, -1), txt_feats=features)  # (B, 5, anchors)
        found = []
        for row in predicted:  # one at a time: given many, non_max_suppression gives up on the last ones when it is late
            kept = nms.non_max_suppression(row[None], self.threshold, iou_thres=.7, max_det=MAX_BOXES)[0]  # (N, 6)
            found.append((ops.scale_boxes(pixels.shape[2:], kept[:, :4], (image.height, image.width)), kept[:, 4]))
        return found


class ZeroShotDetector(_Detector):
    """GroundingDINO (arXiv:2303.05499), MM-GroundingDINO (2401.02361) or OWLv2 (2306.09683), as transformers has them."""

    def __init__(self, name, device=None, threshold=.3, batch=4):
        self.processor, self.model = load("detector", name, AutoProcessor, AutoModelForZeroShotObjectDetection)
        self.device = device_of(device)
        self.model.to(self.device).eval()
        self.owl = self.model.config.model_type in ("owlv2", "owlvit")
        self.identity, self.threshold, self.batch = f"{self.model.config.model_type} {name} {threshold}", threshold, batch

    def find(self, image, phrases):
        return (self._owl if self.owl else self._dino)(image.convert("RGB"), phrases)

    def _dino(self, image, phrases):
        """One row a phrase, so a row's boxes are its phrase's, exactly: no guess from the tokens that a box has touched.

        The full stop does two things: it ends a phrase, and without it the processor would merge the list into one text."""
        inputs = self.processor(images=[image] * len(phrases), text=[f"{p.lower()}." for p in phrases], padding=True,
                                return_tensors="pt").to(self.device)
        results = self.processor.post_process_grounded_object_detection(
            self.model(**inputs), inputs["input_ids"], threshold=self.threshold, target_sizes=[(image.height, image.width)] * len(phrases))
        return [(r["boxes"], r["scores"]) for r in results]

    def _owl(self, image, phrases):
        """All phrases on one picture: its queries do not see each other. The library would give a box to its best phrase only, so
        each phrase gets its own slice. Boxes are fractions of the picture padded to a square, which the processor knows."""
        longest = self.model.config.text_config.max_position_embeddings
        inputs = self.processor(images=image, text=[phrases], return_tensors="pt",
                                text_kwargs=dict(truncation=True, max_length=longest)).to(self.device)
        out = self.model(**inputs)  # logits (1, patches, phrases), pred_boxes (1, patches, 4)
        found = []
        for k in range(len(phrases)):
            one = SimpleNamespace(logits=out.logits[..., k:k + 1], pred_boxes=out.pred_boxes)
            result, = self.processor.post_process_grounded_object_detection(one, self.threshold, [(image.height, image.width)])
            found.append((result["boxes"], result["scores"]))
        return found
