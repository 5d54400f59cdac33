"""Segmenters: a box in, a mask out: which pixels of the box belong to the thing.

The paper uses SAM-2 (M_i = S(I, D(I, o_i)), eq. 1): a point is grounded if it lies on the mask, not merely in
the box. Here SAM 2.1 by two ways with the same weights: Sam2 by its own package (with hydra for its
configuration), Sam2HF by transformers.

A box has one mask. A point is ambiguous (the bar, or the whole chart?), so three masks are asked for and the
one that the model thinks best is taken, as SAM's authors advise.

What costs time is the picture, not the box: embedding it takes most of it. So a picture is embedded once and
serves all labels of all rollouts (a rollout is one sampled response), as long as it is among the last few.

Read:  before, teachers/detectors.py; next, teachers/pointers.py
"""
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from transformers import Sam2Model, Sam2Processor

from runs.errors import BadInput, first_line, out_of_memory
from teachers.loading import device_of, find_folder, image_digest, load, load_model, need_package

REMEMBERED = 4   # pictures whose embeddings are kept
BATCH = 32       # prompts at a time


class _Segmenter:
    """What segmenters share. See teachers.Segmenter.

    A subclass has two methods:
    embed(image) -> whatever it needs of a picture
    masks(embedded, prompts (N, 4), as_points) -> K masks per prompt, bool (N, K, H, W), and how good the model
    thinks each is, (N, K). as_points: all prompts are points (x1 = x2, y1 = y2), else all are boxes.
    """

    def __init__(self):
        self.known = OrderedDict()  # image_digest -> embedding; the latest used last

    def segment(self, image, boxes):
        if not boxes:
            return np.zeros((0, image.height, image.width), bool)
        places = [(float(box.x1), float(box.y1), float(box.x2), float(box.y2)) for box in boxes]
        masks = {}  # place -> its mask (H, W); a box that several labels share is asked once
        for as_points in (False, True):
            asked = [place for place in dict.fromkeys(places) if _is_point(place) == as_points]
            for i in range(0, len(asked), BATCH):
                batch = asked[i:i + BATCH]
                for place, mask in zip(batch, self._best(image, batch, as_points), strict=True):
                    masks[place] = mask
        return np.stack([masks[place] for place in places])

    def _best(self, image, places, as_points):
        """The best mask of each place: (N, H, W)."""
        prompts = np.array(places, np.float32)  # (N, 4), also for N = 1
        with torch.inference_mode():
            masks, scores = self.masks(self._embedded(image), prompts, as_points)
        masks, scores = np.asarray(masks), np.asarray(scores)  # (N, K, H, W), (N, K)
        return masks[np.arange(len(places)), scores.argmax(1)]

    def _embedded(self, image):
        """The embedding of a picture, found again by its content."""
        key = image_digest(image)
        if key not in self.known:
            self.known[key] = self.embed(image.convert("RGB"))
        self.known.move_to_end(key)
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)
        return self.known[key]


def _is_point(place):
    x1, y1, x2, y2 = place
    return (x1, y1) == (x2, y2)


class Sam2(_Segmenter):
    """SAM 2.1 by the sam2 package. name: a .pt file that keeps its published name, a folder that holds one,
    or a hub id.

    overrides: hydra overrides of the published configuration, for a model of another size.
    """

    def __init__(self, name="facebook/sam2.1-hiera-large", device=None, overrides=()):
        super().__init__()
        install = "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0"
        build = need_package("sam2", "sam2.build_sam", install)  # optional; sets hydra up as it is imported
        from hydra import initialize_config_module  # comes with sam2
        from hydra.core.global_hydra import GlobalHydra
        configs = {file: config for config, file in build.HF_MODEL_ID_TO_FILENAMES.values()}
        file = _find_checkpoint(name, configs)
        self.device = device_of(device)
        try:
            GlobalHydra.instance().clear()  # whoever used hydra before: sam2's configurations must be found
            with initialize_config_module("sam2", version_base="1.2"):
                self.model = build.build_sam2(configs[file.name], str(file), self.device,
                                              hydra_overrides_extra=list(overrides))
        except Exception as error:  # a truncated file, or weights of another size than the name says
            if out_of_memory(error):
                raise
            raise BadInput(f"sam2: {file} cannot be loaded ({first_line(error)}); download it again") from error
        self.identity = f"sam2 {file}"

    def embed(self, image):
        from sam2.sam2_image_predictor import SAM2ImagePredictor  # optional, as above
        predictor = SAM2ImagePredictor(self.model)  # holds one picture's features; the weights are shared
        predictor.set_image(np.array(image))
        return predictor

    def masks(self, predictor, prompts, as_points):
        if as_points:
            foreground = np.ones((len(prompts), 1))  # 1: the point is on the thing; 0: beside it
            asked = dict(point_coords=prompts[:, None, :2], point_labels=foreground)
        else:
            asked = dict(box=prompts)
        masks, scores, _ = predictor.predict(**asked, multimask_output=as_points)
        count = len(prompts)  # for one prompt the package leaves the first axis out
        masks = masks.reshape(count, -1, *masks.shape[-2:])  # (N, K, H, W)
        return masks > 0, scores.reshape(count, -1)


def _find_checkpoint(name, configs):
    """The .pt file of a published model. configs: {file name: its configuration}."""
    file = Path(name)
    if not file.is_file():
        folder = Path(find_folder("sam2", name))
        present = [folder / published for published in configs if (folder / published).is_file()]
        file = present[0] if present else folder
    if not file.is_file() or file.name not in configs:
        raise BadInput(f"sam2: {name} is no checkpoint; download one with "
                       "`hf download facebook/sam2.1-hiera-large sam2.1_hiera_large.pt --local-dir FOLDER` "
                       "and pass sam2:FOLDER")
    return file


class Sam2HF(_Segmenter):
    """SAM 2.1 as transformers has it: no further package, no hydra. name: a folder or a hub id."""

    def __init__(self, name="facebook/sam2.1-hiera-large", device=None):
        super().__init__()
        self.processor = load("sam2-hf", name, Sam2Processor)
        self.model = load_model("sam2-hf", name, Sam2Model)
        self.device = device_of(device)
        self.model.to(self.device).eval()
        self.identity = f"sam2-hf {name}"

    def embed(self, image):
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        sizes = [(image.height, image.width)]
        return self.model.get_image_embeddings(inputs["pixel_values"]), sizes

    def masks(self, embedded, prompts, as_points):
        embeddings, sizes = embedded
        if as_points:  # lists in lists: pictures, things, the points of each thing
            points = [[xy] for xy in prompts[:, :2].tolist()]
            foreground = [[1]] * len(prompts)
            asked = dict(input_points=[points], input_labels=[foreground])
        else:
            asked = dict(input_boxes=[prompts.tolist()])
        asked = self.processor(original_sizes=sizes, return_tensors="pt", **asked).to(self.device)
        del asked["original_sizes"]
        out = self.model(image_embeddings=list(embeddings), multimask_output=as_points, **asked)
        masks = self.processor.post_process_masks(out.pred_masks, sizes)[0]  # (N, K, H, W)
        return masks.cpu(), out.iou_scores[0].float().cpu()
