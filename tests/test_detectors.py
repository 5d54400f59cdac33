"""teachers/detectors.py: each class with a small model of the same architecture and random weights, loaded from disk.

The oracle is the library's own plain path where there is one, and outputs made by hand where meaning matters. Last come
two checks with real weights, of packages that bring them along. What is not installed is skipped
(tests/requirements-extra.txt).
"""
import os
from types import SimpleNamespace as Has

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import argos
from runs.errors import BadInput
from teacher_fixtures import corners, dino, owl, picture, same, yolo, zero_shot  # noqa: F401  (fixtures)
from teachers.cache import Cached
from teachers.detectors import YoloWorld, ZeroShotDetector, _Detector
from teachers.loading import MAX_BOXES
from verifier.cards import load_font
from verifier.coordinates import Box, convert
from verifier.samples import Sample


def test_yolo_world_finds_what_ultralytics_own_predictor_finds(yolo):
    """Kills: BGR for RGB, boxes left in the padded input's pixels, another threshold or suppression."""
    from ultralytics import YOLOWorld
    detector, image = YoloWorld(str(yolo), "cpu", threshold=.25, side=160), picture()
    (ours,) = detector.detect(image, ["red mug"])
    tokens = detector.tokenizer(["red mug"], return_tensors="pt")
    features = detector.text(**tokens).text_embeds.detach()
    theirs = YOLOWorld(str(yolo))
    theirs.model.txt_feats, theirs.model.model[-1].nc = (features / features.norm(dim=-1, keepdim=True))[None], 1
    theirs.model.names = ["red mug"]
    options = dict(imgsz=160, conf=.25, iou=.7, max_det=64, verbose=False, device="cpu")
    found = theirs.predict(image, **options)[0].boxes
    expected = [Box(*xyxy, score) for xyxy, score in zip(found.xyxy.tolist(), found.conf.tolist())]
    assert len(ours) >= 5 and same([ours], [expected], atol=.005)
    swapped = theirs.predict(np.asarray(image), **options)[0].boxes  # BGR: must differ, or this test sees nothing
    assert found.data.shape != swapped.data.shape or not torch.allclose(found.data, swapped.data, atol=.01)


def test_a_labels_boxes_do_not_depend_on_the_other_labels(yolo):
    detector, image = YoloWorld(str(yolo), "cpu", threshold=.25, side=160), picture()
    labels = ["red mug", "dog", "a chair", "red mug", "..."]
    together = detector.detect(image, labels)
    assert same(together, [detector.detect(image, [label])[0] for label in labels], atol=.01)
    assert together[4] == [] and [b.label for b in together[1]] == ["dog"] * len(together[1])
    assert not same(together[:1], together[1:2])  # or the text would not matter at all
    detector.batch = 2
    assert same(detector.detect(image, labels), together, atol=.01)


def test_yolo_world_needs_its_files(yolo, tmp_path):
    with pytest.raises(BadInput, match="download https://github.com/.*yolov8x-worldv2.pt"):
        YoloWorld(str(tmp_path / "yolov8x-worldv2.pt"))
    torn = tmp_path / "torn.pt"
    torn.write_bytes(yolo.read_bytes()[:5000])
    with pytest.raises(BadInput, match="clip-vit-base-patch32.*hf download openai/clip-vit-base-patch32"):
        YoloWorld(str(torn))
    with pytest.raises(BadInput, match="torn.pt is no YOLO-World checkpoint"):
        YoloWorld(str(torn), text=str(yolo.parent / "clip-vit-base-patch32"))


def test_a_checkpoint_is_data_and_runs_nothing(yolo, tmp_path):
    """ultralytics' files are pickles: one that would run a command must not get to."""
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="evil.pt is no YOLO-World checkpoint"):
        YoloWorld(str(tmp_path / "evil.pt"), text=str(yolo.parent / "clip-vit-base-patch32"))
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "ran").exists()  # or the trap was none


def test_zero_shot_detectors_from_disk(zero_shot):
    """Every box is inside the picture, carries the label as asked, and is the one that the label gets by itself."""
    kind, folder = zero_shot
    detector, image = ZeroShotDetector(str(folder), "cpu", threshold=0.0), picture()
    labels = ["red mug", "dog", "red. mug", "[SEP] dog", "Dog", "x" * 5000, "\ud800?", ""]
    found = detector.detect(image, labels)
    assert len(found) == len(labels) and found[-1] == found[-2] == [] and all(found[:6])
    for label, boxes in zip(labels, found):
        for b in boxes:
            assert b.label == label and 0 <= b.x1 < b.x2 <= 200 and 0 <= b.y1 < b.y2 <= 100 and 0 < b.score <= 1
        assert [b.score for b in boxes] == sorted((b.score for b in boxes), reverse=True)
    assert same(found, [detector.detect(image, [label])[0] for label in labels])  # padding and batching change nothing
    assert same(found[:1], found[2:3]) and not same(found[:1], found[1:2])  # a full stop does not end a label
    assert detector.detect(image, []) == []
    assert kind in detector.identity and str(folder) in detector.identity


def test_dino_gives_each_row_to_its_label_in_pixels(tmp_path, monkeypatch):
    """Made by hand: row 0 finds nothing, row 1 one box, in fractions (cx, cy, w, h) of a picture of 200 x 100."""
    detector = ZeroShotDetector(str(dino("grounding-dino", tmp_path / "m")), "cpu", threshold=.3)
    logits = torch.full((2, 3, 256), -9.0)
    logits[1, 2, 1:3] = torch.tensor([1.0, 2.0])
    monkeypatch.setattr(detector.model, "forward", lambda **inputs: Has(
        logits=logits, pred_boxes=torch.tensor([.5, .25, .2, .4]).expand(2, 3, 4), input_ids=inputs["input_ids"]))
    none, one = detector.detect(picture(), ["red mug", "blue dog"])
    assert none == [] and np.allclose(corners(one), [[80, 5, 120, 45, torch.sigmoid(torch.tensor(2.0))]], atol=1e-4)
    assert one[0].label == "blue dog"


def test_owl_boxes_are_fractions_of_the_padded_square(tmp_path, monkeypatch):
    """Made by hand: on 200 x 100 the square has 200, so y = .25 is 50 px. And a box is not only its best label's."""
    detector = ZeroShotDetector(str(owl(tmp_path / "m")), "cpu", threshold=.2)
    seen = detector.processor(images=Image.new("RGB", (200, 100), "white"), return_tensors="pt")["pixel_values"][0, 0]
    assert seen[:30].std() < .01 < seen.std()
    assert seen[:30].mean() > seen[34:].mean() + 1  # the picture lies in the upper half
    logits = torch.full((1, 16, 3), -9.0)
    logits[0, 5] = torch.tensor([2.0, 1.0, -3.0])
    monkeypatch.setattr(detector.model, "forward", lambda **inputs: Has(
        logits=logits, pred_boxes=torch.tensor([.5, .25, .2, .2]).expand(1, 16, 4)))
    mug, cup, dog = detector.detect(picture(), ["mug", "cup", "dog"])
    assert np.allclose(corners(mug)[:, :4], [[80, 30, 120, 70]], atol=1e-3)
    assert np.allclose(corners(cup)[:, :4], corners(mug)[:, :4])
    assert dog == [] and cup[0].score < mug[0].score and cup[0].label == "cup"


def test_boxes_are_cut_at_the_border_and_nonsense_is_dropped():
    rows = [[-5, -5, 50, 400], [10, 10, 10, 20], [30, 30, 20, 40], [0, float("nan"), 5, 5], [190, 90, 300, 300]]
    boxes = _Detector._boxes(torch.tensor(rows), torch.tensor([.5, .9, .9, .9, .7]), picture(), "x")
    assert np.allclose(corners(boxes), [[190, 90, 200, 100, .7], [0, 0, 50, 100, .5]])
    many = _Detector._boxes(torch.tensor([[0., 0, 9, 9]] * 500), torch.linspace(0, 1, 500), picture(), "x")
    assert len(many) == MAX_BOXES and many[0].score == 1


# ---- Real weights, from packages that bring them -----------------------------------------------------------
class WholeBox:
    """The mask of a box is the box: no segmenter's real weights come in a package."""
    def segment(self, image, boxes):
        masks = np.zeros((len(boxes), image.height, image.width), bool)
        for mask, b in zip(masks, boxes):
            mask[int(b.y1):int(b.y2) + 1, int(b.x1):int(b.x2) + 1] = True
        return masks


def grounded(detector, path, label, hits, misses, cache):
    """The whole way: file, the policy's pixels, detector, cache, mask, verdict. hits, misses: pixels of the file."""
    verifier = argos.Argos(Cached(detector, cache), WholeBox(), None, None, max_pixels=400_000)
    sample = Sample("real", "Where?", "x", "phrase", str(path))
    media = verifier.load(sample)
    points = [convert(*p, "original", "seen", media.original_size, media.frames[0].size) for p in (*hits, *misses)]
    tags = [f'<think><point x1="{x:.1f}" y1="{y:.1f}" alt="{label}">{label}</point></think>' for x, y in points]
    scores = [v.points[0].score for v in verifier.verify_group(sample, tags)]  # each alone: one thing counts once
    assert scores == [1] * len(hits) + [0] * len(misses)
    assert media.original_size != media.frames[0].size  # or a mix of the two spaces would not show


def test_real_weights_read_a_word_where_it_stands(tmp_path):
    """rapidocr-onnxruntime as a detector of words."""
    reason = "rapidocr-onnxruntime is not installed (tests/requirements-extra.txt)"
    rapidocr = pytest.importorskip("rapidocr_onnxruntime", reason=reason)

    class Words:
        identity, engine = "rapidocr 1.4.4", rapidocr.RapidOCR()

        def detect(self, image, labels):
            found, _ = self.engine(np.asarray(image)[..., ::-1])
            quads = [(np.array(quad, float), text.lower(), float(score)) for quad, text, score in found or []]
            result = []
            for label in labels:
                result.append([Box(*quad.min(0), *quad.max(0), score, label)
                               for quad, text, score in quads if label in text])
            return result

    image = Image.new("RGB", (1000, 500), "white")
    pen = ImageDraw.Draw(image)
    pen.text((100, 80), "EXIT", "black", load_font(70))
    pen.text((600, 330), "HOTEL", "black", load_font(70))
    image.save(tmp_path / "words.png")
    path, cache = tmp_path / "words.png", tmp_path / "cache"
    grounded(Words(), path, "exit", [(170, 125), (120, 120)], [(700, 370), (500, 250)], cache)
    grounded(Words(), path, "hotel", [(700, 370)], [(170, 125)], cache)


def test_real_weights_find_a_face(tmp_path):
    """facenet-pytorch's MTCNN on matplotlib's portrait of Grace Hopper."""
    reason = "facenet-pytorch is not installed (tests/requirements-extra.txt)"
    facenet = pytest.importorskip("facenet_pytorch", reason=reason)
    from matplotlib import cbook

    class Faces:
        identity, network = "mtcnn 2.6.0", facenet.MTCNN(keep_all=True, device="cpu")

        def detect(self, image, labels):
            boxes, scores = self.network.detect(image)
            found = [] if boxes is None else [Box(*map(float, b), float(s)) for b, s in zip(boxes, scores)]
            return [found if label == "face" else [] for label in labels]

    path = tmp_path / "hopper.png"
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        Image.open(file).resize((1024, 1200)).save(path)
    grounded(Faces(), path, "face", [(500, 360)], [(100, 100), (500, 1000)], tmp_path / "cache")
