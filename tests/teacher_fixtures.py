"""What the tests of several teachers share: pictures, and small models of the real architectures with random weights.

Each is saved to disk and loaded from there, as a real one is. Random weights say nothing about mugs; what they show is
what goes wrong silently: which label a box belongs to, what a box's numbers are fractions of, red for blue.
"""
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import policy as P
from tiny import models

torch.set_num_threads(1)


# ---- Pictures ----------------------------------------------------------------------------------------------
def picture(width=200, height=100, seed=0):
    """Wide, and far more red than blue: what is swapped or squared shows."""
    pixels = np.random.default_rng(seed).integers(0, 120, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels + np.uint8([120, 0, 0]))
    ImageDraw.Draw(image).rectangle([width // 2, height // 4, width // 2 + 30, height // 4 + 30], fill=(20, 40, 250))
    return image


def corners(boxes):
    """(N, 5): x1, y1, x2, y2, score."""
    return np.array([(b.x1, b.y1, b.x2, b.y2, b.score) for b in boxes]).reshape(-1, 5)


def same(found, expected, atol=1e-4):
    """Equal lists of boxes, label by label."""
    return len(found) == len(expected) and all(len(f) == len(e) and np.allclose(corners(f), corners(e), atol=atol)
                                               for f, e in zip(found, expected))


def drawing(*drawn, size=(84, 84), ground=(235, 232, 225)):
    """A picture with (kind, corners, colour) drawn on it by PIL: "box", "disc" or "poly", corners inclusive."""
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    for kind, corners, color in drawn:
        {"box": pen.rectangle, "disc": pen.ellipse, "poly": pen.polygon}[kind](corners, fill=color)
    return image


RED = (225, 30, 30)
BLUE = (30, 50, 225)
TEAL = (0, 128, 128)
TWO_SQUARES = drawing(("box", (10, 10, 24, 24), RED), ("box", (50, 10, 64, 24), RED), ("box", (10, 50, 24, 64), BLUE))


def scene(seed=0):
    """Two red squares of the embedded world."""
    image = Image.new("RGB", (84, 84), (235, 232, 225 - seed))
    for x in (10, 50):
        ImageDraw.Draw(image).rectangle([x, 10, x + 14, 24], fill=(225, 30, 30))
    return image


# ---- Small models on disk ----------------------------------------------------------------------------------
CLIP_TEXT = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)


def clip_tokenizer():
    """CLIP's own class, every byte a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer
    letters = sorted(ByteLevel.alphabet())
    pieces = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    pytest.importorskip("ultralytics", reason="ultralytics is not installed (tests/requirements-extra.txt)")
    os.environ |= dict(YOLO_AUTOINSTALL="0", YOLO_OFFLINE="1")
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection
    from ultralytics import YOLOWorld
    torch.manual_seed(0)
    file, tokenizer = tmp_path_factory.mktemp("yolo") / "yolov8n-worldv2.pt", clip_tokenizer()
    model = YOLOWorld("yolov8n-worldv2.yaml")
    for layer in model.model.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # random features fade away in 60 layers; these keep them alive
            torch.nn.init.uniform_(layer.weight, 2, 3)
    for head in model.model.model[-1].cv4:  # scores over all of 0..1
        torch.nn.init.zeros_(head.bias)
        torch.nn.init.constant_(head.logit_scale, 2)
    for head in model.model.model[-1].cv2:  # boxes of all sizes
        torch.nn.init.normal_(head[-1].weight, std=.3)
    model.save(str(file))
    tokenizer.save_pretrained(file.parent / "clip-vit-base-patch32")
    text = CLIPTextConfig(**CLIP_TEXT, projection_dim=512, vocab_size=len(tokenizer), max_position_embeddings=77,
                          eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id)
    CLIPTextModelWithProjection(text).save_pretrained(file.parent / "clip-vit-base-patch32")
    return file


def dino(kind, folder):
    from transformers import (BertTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection,
                              GroundingDinoImageProcessor, GroundingDinoProcessor, MMGroundingDinoConfig,
                              MMGroundingDinoForObjectDetection, SwinConfig)
    torch.manual_seed(0)
    words = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += "abcdefghijklmnopqrstuvwxyz"
    words += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"] + ["red", "mug", "dog", "blue"]
    words += [f"[unused{i}]" for i in range(len(words), 1012)]
    words += ["."]  # GroundingDINO knows BERT's ids of [CLS], [SEP] and the full stop: 101, 102 and 1012
    tokenizer = BertTokenizer(vocab={w: i for i, w in enumerate(words)})
    assert tokenizer("red mug.")["input_ids"][0] == 101 and tokenizer("red mug.")["input_ids"][-2:] == [1012, 102]
    config, model = ((GroundingDinoConfig, GroundingDinoForObjectDetection) if kind == "grounding-dino" else
                     (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection))
    config = config(
        backbone_config=SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2],
                                   window_size=2, out_features=["stage2", "stage3", "stage4"]),
        text_config=dict(model_type="bert", vocab_size=len(words), hidden_size=16, num_hidden_layers=1,
                         num_attention_heads=2, intermediate_size=32),
        num_queries=12, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=32,
        encoder_attention_heads=2, decoder_attention_heads=2)
    model = model(config).eval()
    for name, weight in model.named_parameters():
        if "bbox_embed" in name and name.endswith("weight"):
            torch.nn.init.normal_(weight, std=.5)
    model.save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def owl(folder):
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    config = Owlv2Config(
        text_config=dict(**CLIP_TEXT, vocab_size=len(tokenizer), max_position_embeddings=16,
                         eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
                         pad_token_id=tokenizer.eos_token_id),
        vision_config=dict(**CLIP_TEXT, image_size=64, patch_size=16), projection_dim=16)
    Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    Owlv2Processor(Owlv2ImageProcessor(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino", "owlv2"])
def zero_shot(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "model"
    owl(folder) if request.param == "owlv2" else dino(request.param, folder)
    return request.param, folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Qwen2.5-VL on disk."""
    torch.manual_seed(0)
    words = ['Same meaning? "a red square" Is this true? In frame 5 the red square is gone. yes no Yes No',
             "How many are there?",
             '<think>I see <point x1="44" y1="28" alt="red square">red square</point>.</think><answer>2</answer>',
             "Think and point."]
    tokenizer = models.build_tokenizer(words)
    path = tmp_path_factory.mktemp("model") / "tiny"
    models.save(models.build_model(tokenizer, "base"), models.build_processor(tokenizer), path)
    return path


@pytest.fixture(scope="module")
def policy(folder):
    return P.load_policy(folder)
