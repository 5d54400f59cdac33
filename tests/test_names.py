"""teachers/names.py and loading.py: who is meant, and that whatever is missing is one line with its cure."""
import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import curate
import evaluate
import train_grpo
from runs.errors import BadInput
from runs.settings import parse_config, preset_arguments
from teacher_fixtures import dino, scene, zero_shot  # noqa: F401  (fixtures)
from teachers import loading
from teachers.cache import Cached
from teachers.detectors import YoloWorld, ZeroShotDetector
from teachers.names import load_teachers
from teachers.pointers import VLMPointer
from teachers.segmenters import Sam2
from tiny.pixels import PixelDetector, PixelPointer, PixelSegmenter

ROOT = Path(__file__).parent.parent


def test_teachers_by_name(zero_shot, tmp_path):
    kind, folder = zero_shot
    detector, segmenter, pointer = load_teachers(detector=f"{kind}:{folder}", device="cpu")
    assert isinstance(detector, ZeroShotDetector)
    assert isinstance(segmenter, PixelSegmenter) and isinstance(pointer, PixelPointer)
    assert detector.threshold == (.2 if kind == "owlv2" else .3)
    assert isinstance(load_teachers()[0], PixelDetector) and isinstance(load_teachers(cache=tmp_path)[0], Cached)


def test_the_policys_own_base_points_and_is_not_cached(tmp_path):
    """Kills: one base's points handed out for another's, as it has no name that would tell them apart."""
    base = SimpleNamespace(preset="tiny")
    _, _, pointer = load_teachers(pointer="base", base=base, cache=tmp_path)
    assert isinstance(pointer, VLMPointer) and pointer.policy is base and pointer.adapter_off
    with pytest.raises(BadInput, match="--pointer base: choose pixels, molmo, qwen;"):
        load_teachers(pointer="base")


@pytest.mark.parametrize("flags, cure", [
    (dict(detector="yolo"), "choose pixels, grounding-dino"),
    (dict(pointer="pixels:somewhere"), "real ones take a checkpoint"),
    (dict(detector="owlv2:nobody/nothing"), "hf download nobody/nothing"),
    (dict(detector="owlv2:/nowhere/at/all"), "hf download OWNER/NAME"),
    (dict(segmenter="sam2-hf"), "hf download facebook/sam2.1-hiera-large"),
    (dict(pointer="molmo"), "hf download *allenai/Molmo"),
    (dict(pointer=f"qwen:{ROOT}"), "config.json is missing"),
    (dict(cache=__file__), "name a folder that can be written")])
def test_what_is_missing_is_one_line_with_its_cure(flags, cure, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match=cure) as caught:
        load_teachers(**flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package, make", [("sam2", lambda: Sam2("x")), ("ultralytics", lambda: YoloWorld(__file__))])
def test_a_missing_package_is_one_line(package, make, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # import raises
    with pytest.raises(BadInput, match=f"the package {package} is missing .* run .*pip install .*{package}=="):
        make()


def test_wrong_weights_are_one_line(tmp_path):
    folder = dino("grounding-dino", tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_teachers(detector=f"grounding-dino:{folder}")


def half(weights):
    return dict(sorted(weights.items())[::2])


def foreign(weights):
    return {f"other.{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize("change", [half, foreign])
def test_weights_that_do_not_fit_are_one_line(zero_shot, change, tmp_path):
    """Kills a teacher of random numbers: the library fills what a folder lacks, and only warns."""
    kind, folder = zero_shot
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    weights = change(load_file(wrong / "model.safetensors"))
    save_file(weights, wrong / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=f"^detector: {wrong}: its weights do not fit .* missing") as caught:
        load_teachers(detector=f"{kind}:{wrong}", device="cpu")
    assert "\n" not in str(caught.value)


def test_more_weights_than_a_teacher_takes_are_fine(zero_shot, tmp_path):
    """Published checkpoints carry other parts, as CLIP's does beside the text encoder."""
    kind, folder = zero_shot
    more = shutil.copytree(folder, tmp_path / "more")
    weights = load_file(more / "model.safetensors") | {"vision.weight": torch.zeros(2)}
    save_file(weights, more / "model.safetensors", metadata={"format": "pt"})
    assert load_teachers(detector=f"{kind}:{more}", device="cpu")


@pytest.mark.parametrize("flags", [dict(detector="owlv2"), dict(segmenter="sam2-hf"), dict(segmenter="sam2")], ids=str)
def test_a_hub_name_never_becomes_a_download(flags, monkeypatch):
    import socket
    if flags.get("segmenter") == "sam2":
        pytest.importorskip("sam2", reason="sam2 is not installed (tests/requirements-extra.txt)")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail(f"asked the network: {a}"))
    with pytest.raises(BadInput, match="hf download"):
        load_teachers(**flags)


@pytest.mark.parametrize("preset", ["7b", "7b-bf16"])
def test_the_presets_detector_is_the_papers(zero_shot, preset, monkeypatch):
    """A figure of the paper's blog post names Grounding DINO; it needs no package beyond requirements.txt."""
    for script, module in (("curate", curate), ("train_grpo", train_grpo), ("evaluate", evaluate)):
        arguments = preset_arguments(script, module.Config, ["--preset", preset])
        cfg = parse_config(module.Config, "", arguments)
        assert cfg.detector == "grounding-dino"
    kind, folder = zero_shot
    if kind == "grounding-dino":
        monkeypatch.setattr(loading, "snapshot_download", lambda name, **options: {
            "IDEA-Research/grounding-dino-base": str(folder)}[name])
        monkeypatch.setitem(sys.modules, "ultralytics", None)
        detector, _, _ = load_teachers(detector=cfg.detector, device="cpu")
        assert detector.kind == "grounding-dino" and detector.threshold == .3 and detector.batch == 1


@pytest.mark.parametrize("script", ["argos", "curate", "train_grpo", "evaluate"])
def test_every_script_names_its_teachers(script, tmp_path, monkeypatch):
    scene().save(tmp_path / "p.png")
    row = dict(image="p.png", question="How many?", answer="2", kind="count")
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    data, base = str(tmp_path / "d.jsonl"), str(ROOT / "tiny" / "base")
    flags = {"argos": [str(tmp_path / "p.png"), "q", "r", "--judge", "none"],
             "curate": ["--data", data, "--teacher", base],
             "train_grpo": ["--data", data, "--val", data, "--policy", base, "--eval_every", "0"],
             "evaluate": ["--data", data, "--models", f"x={base}"]}[script]
    out = [] if script == "argos" else ["--out", str(tmp_path / "o")]
    teachers = ["--detector", "yolov9", "--teacher_cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", [script, *flags, *out, *teachers])
    with pytest.raises(BadInput, match="^--detector yolov9: choose pixels, grounding-dino"):
        importlib.import_module(script).main()
