"""Curated data in other people's hands: what TRL and LLaMA-Factory really make of the files that curate.py writes.

Neither is needed for anything here, so each test is skipped where its library is missing (tests/requirements-more.txt has TRL,
tests/requirements-extra.txt LLaMA-Factory).
Run: pytest tests/test_formats.py
"""
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from verifier.samples import read_samples
import curate
from tiny import world

ROOT = Path(curate.__file__).parent


def needs(*names):
    there = all(importlib.util.find_spec(name) for name in names)
    return pytest.mark.skipif(not there, reason=f"needs {' and '.join(names)}: see the head of this file")


@pytest.fixture
def curated(tmp_path, monkeypatch):
    """What curate.py writes about pictures and clips, with one rollout each; the working directory is its --out."""
    world.write_split("curate", 12, tmp_path)
    samples = read_samples(tmp_path / "curate.jsonl")
    samples = [s for s in samples if s.media == "image"][:2] + [s for s in samples if s.media == "video"][:2]
    out = tmp_path / "out"
    out.mkdir()
    with open(out / "rollouts.jsonl", "w") as log:
        for s in samples:
            text = f"<think>About {s.id}, an <image>.</think><answer>{s.answer}</answer>"
            rollout = dict(text=text, reward=1., outcome=1., grounding=1., reasoning=1.)
            log.write(json.dumps(dict(id=s.id, extracted=None, reason=None, rollouts=[rollout])) + "\n")
    cfg = SimpleNamespace(preset="tiny", keep=1, threshold=.7, seed=0, made_up=0.)
    curate.write_sft(out / "rollouts.jsonl", {s.id: s for s in samples}, cfg, None, out)
    monkeypatch.chdir(out)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return out, samples


@needs("datasets", "trl")
def test_trl_trains_on_the_pictures(curated):
    import trl
    from datasets import load_dataset
    from transformers import AutoProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling
    out, samples = curated
    data = load_dataset("json", data_files="sft.jsonl", split="train", cache_dir=str(out / "cache"))
    data = data.filter(lambda row: row["images"])
    assert len(data) == 2
    processor = AutoProcessor.from_pretrained(ROOT / "tiny/base")
    batch = DataCollatorForVisionLanguageModeling(processor)(list(data))
    for ids, sample in zip(batch["input_ids"], samples):
        text = processor.tokenizer.decode(ids)
        assert text.count("<|image_pad|>") == 9  # 84 x 84 px: 9 tokens
        assert f"{sample.question} Think and point.<|im_end|>" in text
        assert f"<think>About {sample.id}, an <image>.</think><answer>{sample.answer}</answer><|im_end|>" in text
    config = trl.SFTConfig(output_dir=str(out / "trl"), use_cpu=True, bf16=False, max_steps=1, report_to=[],
                           per_device_train_batch_size=2, max_length=None, save_strategy="no")
    assert 0 < trl.SFTTrainer(str(ROOT / "tiny/base"), args=config, train_dataset=data).train().training_loss < 20


@needs("datasets", "llamafactory")
def test_llamafactory_reads_pictures_and_clips(curated):
    from datasets import load_dataset
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.mm_plugin import get_mm_plugin
    from llamafactory.data.parser import get_dataset_list
    from transformers import AutoProcessor
    out, samples = curated
    entry, = get_dataset_list(["argos"], str(out))  # reads dataset_info.json
    data = load_dataset("json", data_files=entry.dataset_name, split="train", cache_dir=str(out / "cache"))
    convert = get_dataset_converter(entry.formatting, entry, SimpleNamespace(media_dir=str(out)))
    plugin = get_mm_plugin("qwen2_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
    processor = AutoProcessor.from_pretrained(ROOT / "tiny/base")
    budget = dict(image_max_pixels=84 * 84, image_min_pixels=84 * 84, video_max_pixels=84 * 84,
                  video_min_pixels=84 * 84, video_fps=2.0, video_maxlen=32)
    for name, value in budget.items():
        setattr(processor, name, value)
    assert len(data) == 4
    for row, sample in zip(data, samples):
        made = convert(row)
        images, videos = made["_images"] or [], made["_videos"] or []
        assert [Path(p).resolve() for p in images + videos] == [Path(sample.path).resolve()]
        assert bool(videos) == (sample.media == "video")
        messages = made["_prompt"] + made["_response"]
        if images:  # the library's own count of tags against files, and the tokens that it puts in their place
            turns = plugin.process_messages(messages, images, [], [], processor)
            assert turns[0]["content"].count("<|image_pad|>") == 9
            assert turns[0]["content"].endswith(f"{sample.question} Think and point.")
        else:
            plugin._validate_messages(messages, images, videos, [])
        said = f"<think>About {sample.id}, an < image>.</think><answer>{sample.answer}</answer>"
        assert messages[1] == {"role": "assistant", "content": said}
