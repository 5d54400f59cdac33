"""teachers/segmenters.py: boxes and points in, masks out, each in its place. SAM 2.1, small and random, from disk.

The oracle is the library's own plain path, and masks made by hand. What is not installed is skipped
(tests/requirements-extra.txt).
"""
from pathlib import Path

import numpy as np
import pytest
import torch

import argos
from runs.errors import BadInput
from teacher_fixtures import picture
from teachers.segmenters import Sam2, Sam2HF, _Segmenter
from verifier.coordinates import Box
from verifier.samples import Sample

ROOT = Path(__file__).parent.parent


SAM2_TINY = ["++model.image_encoder.trunk.embed_dim=8", "++model.image_encoder.trunk.stages=[1,1,2,1]",
             "++model.image_encoder.trunk.global_att_blocks=[3]",
             "++model.image_encoder.neck.backbone_channel_list=[64,32,16,8]",
             "++model.memory_attention.num_layers=1"]  # the package's predictor takes 1024 px only


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    build = pytest.importorskip("sam2.build_sam", reason="sam2 is not installed (tests/requirements-extra.txt)")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam2")
    model = build.build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", None, "cpu", hydra_overrides_extra=list(SAM2_TINY))
    torch.save({"model": model.state_dict()}, folder / "sam2.1_hiera_tiny.pt")
    from hydra import initialize_config_module  # somebody else's hydra, which must not hide sam2's configurations
    from hydra.core.global_hydra import GlobalHydra
    GlobalHydra.instance().clear()
    initialize_config_module("hydra", version_base="1.2")
    return Sam2(str(folder), "cpu", SAM2_TINY)


@pytest.fixture(scope="module")
def sam2_hf(tmp_path_factory):
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam2hf") / "model"
    config = Sam2Config(
        vision_config=dict(backbone_config=dict(hidden_size=8, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1],
                                                embed_dim_per_stage=[8, 16, 32, 64],
                                                num_attention_heads_per_stage=[1, 1, 1, 1],
                                                window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3]),
                           backbone_channel_list=[64, 32, 16, 8],
                           backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]], fpn_hidden_size=32),
        prompt_encoder_config=dict(hidden_size=32, image_size=128), mask_decoder_config=dict(
            hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32))
    Sam2Model(config).save_pretrained(folder)
    images = Sam2ImageProcessor(size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32})
    Sam2Processor(images).save_pretrained(folder)
    return Sam2HF(str(folder), "cpu")


BOXES = [Box(10, 10, 60, 60), Box(100, 20, 180, 90), Box(10, 10, 60, 60, .3, "the same place")]
POINTS = [Box(30, 30, 30, 30, 1, "bar"), Box(150, 50, 150, 50, 1, "bar")]


class Square(_Segmenter):
    """Boxes in, masks out, by hand: a box is its own mask; a point offers three, the middle one the best."""
    def __init__(self):
        super().__init__()
        self.log = []

    def embed(self, image):
        self.log.append("embed")
        return image.size

    def masks(self, size, prompts, as_points):
        self.log.append(len(prompts))
        masks = np.zeros((len(prompts), 3 if as_points else 1, size[1], size[0]), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, prompts.astype(int)):
            if as_points:
                mask[0], mask[1, y1:y1 + 2, x1:x1 + 2] = True, True
            else:
                mask[0, y1:y2, x1:x2] = True
        return torch.from_numpy(masks), torch.tensor([[.3, .9, .1][:masks.shape[1]]] * len(prompts))


def test_boxes_in_masks_out_each_in_its_place():
    square, image = Square(), picture()
    masks = square.segment(image, [POINTS[0], *BOXES, POINTS[1]])
    assert masks.shape == (5, 100, 200) and masks.dtype == bool
    assert masks.sum((1, 2)).tolist() == [4, 2500, 80 * 70, 2500, 4]
    assert masks[0, 30:32, 30:32].all() and masks[4, 50:52, 150:152].all() and masks[1, 10:60, 10:60].all()
    assert square.log == ["embed", 2, 2]  # one picture, two different boxes, two points
    square.segment(image.copy(), BOXES[:1])
    assert square.log[3:] == [1] and square.segment(image, []).shape == (0, 100, 200)
    for k in range(5):
        square.segment(picture(seed=k + 1), BOXES[:1])
    assert len(square.known) == 4  # the last four pictures
    square.segment(image, BOXES[:1])
    assert square.log.count("embed") == 7  # so this one was embedded again


def test_argos_takes_the_union_of_the_instances(tmp_path):
    class Two:
        def detect(self, image, labels):
            return [BOXES[:2] for _ in labels]
    picture(224, 112).save(tmp_path / "p.png")
    verifier = argos.Argos(Two(), Square(), None, None, max_pixels=224 * 112)
    sample = Sample("s", "Where?", "x", "phrase", str(tmp_path / "p.png"))
    points = "".join(f'<point x1="{x}" y1="{y}" alt="mug">mug</point>' for x, y in [(20, 20), (150, 50), (80, 50)])
    assert [p.score for p in verifier.verify(sample, f"<think>{points}</think><answer>x</answer>").points] == [1, 1, 0]


@pytest.fixture(params=["sam2", "sam2_hf"])
def segmenter(request):
    made = request.getfixturevalue(request.param)
    made.known.clear()
    return made


def test_one_box_or_many_boxes_give_the_same_mask(segmenter):
    """Kills: the package's missing first axis for one box, a mask of another box, points as boxes."""
    image = picture()
    together = segmenter.segment(image, [*BOXES, *POINTS])
    assert together.shape == (5, 100, 200) and together.dtype == bool and (together[0] == together[2]).all()
    for mask, prompt in zip(together, [*BOXES, *POINTS]):
        assert (segmenter.segment(image, [prompt])[0] != mask).mean() < .001
    assert 0 < together.mean() < 1 and (together[0] != together[1]).any()
    prompts = np.float32([[30, 30, 30, 30], [9, 9, 9, 9]])
    for as_points, offered in ((True, 3), (False, 1)):  # a point may mean several things, a box one
        masks, _ = segmenter.masks(segmenter._embedded(image), prompts, as_points)
        assert masks.shape == (2, offered, 100, 200)


def test_an_image_is_embedded_once_for_all_labels_and_rollouts(segmenter, monkeypatch):
    name = "forward_image" if isinstance(segmenter, Sam2) else "get_image_embeddings"
    calls, real = [], getattr(segmenter.model, name)

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(segmenter.model, name, counted)
    image = picture(seed=3)
    for _ in range(3):
        segmenter.segment(image.copy(), BOXES)
        segmenter.segment(image, POINTS)
    assert len(calls) == 1


def test_sam2_masks_are_the_packages_own(sam2):
    from sam2.sam2_image_predictor import SAM2ImagePredictor
    predictor, image = SAM2ImagePredictor(sam2.model), picture()
    predictor.set_image(image)
    for box in BOXES[:2]:
        mask, _, _ = predictor.predict(box=np.array([box.x1, box.y1, box.x2, box.y2]), multimask_output=False)
        assert (sam2.segment(image, [box])[0] != mask[0].astype(bool)).mean() < .001
    masks, scores, _ = predictor.predict(point_coords=np.array([[30, 30]]), point_labels=np.array([1]),
                                         multimask_output=True)
    assert (sam2.segment(image, POINTS[:1])[0] != masks[scores.argmax()].astype(bool)).mean() < .001


def test_sam2_hf_masks_are_the_librarys_plain_path(sam2_hf):
    """From pixels in one call, instead of from an embedding."""
    image = picture()
    boxes = [[[b.x1, b.y1, b.x2, b.y2] for b in BOXES]]
    inputs = sam2_hf.processor(images=image, input_boxes=boxes, return_tensors="pt")
    with torch.no_grad():
        out = sam2_hf.model(pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"],
                            multimask_output=False)
    masks = sam2_hf.processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0]
    assert masks.shape == (3, 1, 100, 200)
    assert (sam2_hf.segment(image, BOXES) != masks[:, 0].numpy()).mean() < .001


def test_a_damaged_or_misnamed_sam2_checkpoint_is_one_line(sam2, tmp_path):
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match="cannot be loaded"):
        Sam2(str(tmp_path), "cpu")
    with pytest.raises(BadInput, match="is no checkpoint; .*hf download facebook/sam2.1-hiera-large"):
        Sam2(str(ROOT), "cpu")
    with pytest.raises(BadInput, match="pass a folder that holds it"):
        Sam2(str(tmp_path / "other"), "cpu")
