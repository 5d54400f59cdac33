"""Segmenters."""
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from transformers import Sam2Model, Sam2Processor

from runs.errors import BadInput
from teachers.loading import cause_of, device_of, image_digest, load, need_package


# ---- 4. Segmenters --------------------------------------------------------------------------------------------------------
class _Segmenter:
    """See Segmenter. A picture is embedded once and serves all labels and all rollouts: the last `remember` pictures are kept by
    content. A box that several labels share is asked once.

    A box asks for one mask; a point is ambiguous (the bar, or the chart?), so three are asked for and the one that the model thinks
    best is taken, as SAM's authors advise. Subclasses give embed(image) and masks(embedded, prompts (N, 4), points) ->
    bool (N, K, H, W) and the model's own scores (N, K).
    """
    remember, batch = 4, 32

    def segment(self, image, boxes):
        places = [(float(b.x1), float(b.y1), float(b.x2), float(b.y2)) for b in boxes]
        masks = {}
        for points in (False, True):
            asked = [p for p in dict.fromkeys(places) if (p[:2] == p[2:]) == points]
            for i in range(0, len(asked), self.batch):
                prompts = np.array(asked[i:i + self.batch], np.float32)  # (N, 4), also for N = 1
                with torch.inference_mode():
                    found, scores = (np.asarray(a) for a in self.masks(self._embedded(image), prompts, points))
                masks |= zip(asked[i:i + self.batch], found[np.arange(len(prompts)), scores.argmax(1)], strict=True)
        return np.stack([masks[p] for p in places]) if places else np.zeros((0, image.height, image.width), bool)

    def _embedded(self, image):
        known, key = self.__dict__.setdefault("known", OrderedDict()), image_digest(image)
        if key not in known:
            known[key] = self.embed(image.convert("RGB"))
        known.move_to_end(key)
        while len(known) > self.remember:
            known.popitem(last=False)
        return known[key]


class Sam2(_Segmenter):
    """SAM 2.1 by the sam2 package. name: a .pt file that keeps its published name, a folder that holds one, or a hub id.

    overrides: hydra overrides of the published configuration, for a model of another size.
    """

    def __init__(self, name="facebook/sam2.1-hiera-large", device=None, overrides=()):
        build = need_package("sam2", "sam2.build_sam", "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0")
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra
        configs = {file: config for config, file in build.HF_MODEL_ID_TO_FILENAMES.values()}
        file, self.device = Path(name), device_of(device)
        if not file.is_file():
            file = Path(load("sam2", name))
            file = next((file / f for f in configs if (file / f).is_file()), file)
        if not file.is_file() or file.name not in configs:
            raise BadInput(f"sam2: {name} is no checkpoint; download one with `hf download facebook/sam2.1-hiera-large "
                           "sam2.1_hiera_large.pt --local-dir FOLDER` and pass sam2:FOLDER")
        try:
            GlobalHydra.instance().clear()  # whoever used hydra before: sam2's configurations must be found
            with initialize_config_module("sam2", version_base="1.2"):
                self.model = build.build_sam2(configs[file.name], str(file), self.device, hydra_overrides_extra=list(overrides))
        except Exception as error:  # a truncated file, or weights of another size than the name says
            raise BadInput(f"sam2: {file} cannot be loaded ({cause_of(error)}); download it again") from error
        self.identity = f"sam2 {file}"

    def embed(self, image):
        from sam2.sam2_image_predictor import SAM2ImagePredictor
        predictor = SAM2ImagePredictor(self.model)  # holds one picture's features; the weights are shared
        predictor.set_image(np.array(image))
        return predictor

    def masks(self, predictor, prompts, points):
        asked = dict(point_coords=prompts[:, None, :2], point_labels=np.ones((len(prompts), 1))) if points else dict(box=prompts)
        masks, scores, _ = predictor.predict(**asked, multimask_output=points)  # the first axis is missing where N = 1
        return masks.reshape(len(prompts), -1, *masks.shape[-2:]) > 0, scores.reshape(len(prompts), -1)


class Sam2HF(_Segmenter):
    """SAM 2.1 as transformers has it: no further package, no hydra. name: a folder or a hub id."""

    def __init__(self, name="facebook/sam2.1-hiera-large", device=None):
        self.processor, self.model = load("sam2-hf", name, Sam2Processor, Sam2Model)
        self.device = device_of(device)
        self.model.to(self.device).eval()
        self.identity = f"sam2-hf {name}"

    def embed(self, image):
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        return self.model.get_image_embeddings(inputs["pixel_values"]), [(image.height, image.width)]

    def masks(self, embedded, prompts, points):
        embeddings, size = embedded
        asked = (dict(input_points=[[[xy] for xy in prompts[:, :2].tolist()]], input_labels=[[[1]] * len(prompts)]) if points
                 else dict(input_boxes=[prompts.tolist()]))
        asked = self.processor(original_sizes=size, return_tensors="pt", **asked).to(self.device)
        del asked["original_sizes"]
        out = self.model(image_embeddings=list(embeddings), multimask_output=points, **asked)
        return self.processor.post_process_masks(out.pred_masks, size)[0].cpu(), out.iou_scores[0].float().cpu()
