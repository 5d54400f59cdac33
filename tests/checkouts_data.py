"""The engines' own data sets, from a user's checkouts, on what benchmarks/engines.py writes for them.

As tests/checkouts.py, not among the tests that run by themselves:

    ARGOS_EASYR1=DIR ARGOS_VERL=DIR python -m pytest tests/checkouts_data.py -n 0

in an environment of the engine: EasyR1 (b44b311) and verl (1dda039) ran with transformers 4.57.6, omegaconf 2.3.0,
qwen_vl_utils 0.0.14, ray 2.60.0 and tensordict. None of their code is in this repository. Where a variable is not
set, its tests are skipped and say so. What is exported here is made by this project's own environment, so name its
Python: ARGOS_PYTHON (else the one that runs the tests).
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
BUDGET = dict(min_pixels=7056, max_pixels=28224)  # of tiny/base


def needs(name):
    """Skips a test, before anything is made for it."""
    return pytest.mark.skipif(not os.environ.get(name), reason=f"{name} is not set: the folder of a checkout of it")


def checkout(name, monkeypatch):
    """Let `import verl` find the checkout that this variable names: both engines call their package so."""
    folder = os.environ[name]
    for loaded in [module for module in sys.modules if module.split(".")[0] == "verl"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.syspath_prepend(folder)


# ---- Data sets ---------------------------------------------------------------------------------------------
MAKE = """
import sys; sys.path.insert(0, sys.argv[1])
import json, policy as P
from benchmarks import engines
from verifier.samples import read_samples
from verifier.media import load_media
root, work = sys.argv[1:3]
model = P.load_policy(root + "/tiny/base")
model.budget = dict(min_pixels=7056, image_pixels=28224, video_pixels=225792, max_frames=32)
P.save_policy(model, work + "/merged", merged=True)
for engine in ("easyr1", "verl"):
    sys.argv[1:] = ["--engine", engine, "--data", work + "/rl.jsonl", "--policy", work + "/merged", "--out", work + "/out"]
    engines.main()
ids = []
for sample in read_samples(work + "/rl.jsonl"):
    row = json.loads(open(work + "/out/rl-easyr1.jsonl").readlines()[len(ids)])
    prompts = P.encode_prompts(model, [(load_media(row["images"][0]), P.prompt("tiny", "reason", question=sample.question))])
    ids.append(prompts.input_ids[0].tolist())
json.dump(ids, open(work + "/ids.json", "w"))
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with merged/, and out/ as exported: 40 pictures of random sizes, turned, clear and grey ones among them."""
    work = tmp_path_factory.mktemp("made")
    draw = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6  # by 90 degrees
    rows = []
    for i in range(40):
        height, width = np.exp(draw.uniform(np.log(8), np.log(1500), 2)).astype(int).tolist()
        height = max(height, width // 60)
        width = max(width, height // 60)
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
        name, mode = (f"{i}.jpg", "RGB") if i % 4 == 0 else (f"{i}.png", ("RGB", "RGBA", "L")[i % 3])
        picture.convert("RGB" if mode == "L" else mode).convert(mode).save(
            work / name, **({"exif": turned} if i % 8 == 0 else {}))
        rows.append({"id": f"q{i}", "image": name, "kind": "free", "answer": f"a thing {i}", "question":
                     f"What is in picture {i}? \u00e9 <|im_end|>"})
    (work / "rl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    python = os.environ.get("ARGOS_PYTHON", sys.executable)
    subprocess.run([python, "-c", MAKE, ROOT, work], check=True)
    return work


def expected(made):
    """What each row must be: (tokens of its prompt, its picture, its row as JSON)."""
    for ids, line in zip(json.loads((made / "ids.json").read_text()), open(made / "out/rl-easyr1.jsonl")):
        row = json.loads(line)
        yield ids, np.array(Image.open(row["images"][0])), row["answer"]


@needs("ARGOS_EASYR1")
def test_easyr1s_data_set_shows_the_policy_our_pictures_and_prompts(made, monkeypatch):
    checkout("ARGOS_EASYR1", monkeypatch)
    from transformers import AutoProcessor
    from verl.utils.dataset import RLHFDataset, process_image
    processor = AutoProcessor.from_pretrained(made / "merged")
    longest = max(len(ids) for ids, _, _ in expected(made))
    data = RLHFDataset(str(made / "out/rl-easyr1.jsonl"), processor.tokenizer, processor, prompt_key="problem",
                       answer_key="answer", image_key="images", max_prompt_length=longest, **BUDGET,
                       filter_overlong_prompts_workers=1)
    assert len(data) == 40
    for got, (ids, pixels, row) in zip(data, expected(made)):
        assert got["input_ids"][got["attention_mask"].bool()].tolist() == ids
        shown = process_image(got["multi_modal_data"]["images"][0], **BUDGET)
        assert np.array_equal(np.asarray(shown), pixels)
        read = processor.image_processor(images=[shown], return_tensors="pt")["image_grid_thw"]
        assert (read * 14).tolist() == [[14, *pixels.shape[:2]]]
        assert got["ground_truth"] == row


@needs("ARGOS_VERL")
def test_verls_data_set_shows_the_policy_our_pictures_and_prompts(made, monkeypatch, tmp_path):
    checkout("ARGOS_VERL", monkeypatch)
    from omegaconf import OmegaConf
    from transformers import AutoProcessor
    from verl.utils.dataset.rl_dataset import RLHFDataset
    processor = AutoProcessor.from_pretrained(made / "merged")
    longest = max(len(ids) for ids, _, _ in expected(made))
    cfg = OmegaConf.create(dict(cache_dir=str(tmp_path), image_key="images", max_prompt_length=longest,
                                filter_overlong_prompts_workers=None))
    data = RLHFDataset(str(made / "out/rl-verl.parquet"), processor.tokenizer, cfg, processor)
    assert len(data) == 40
    for i, (ids, pixels, row) in enumerate(expected(made)):
        got = data[i]
        shown, videos, _ = data._process_multi_modal_info(got["raw_prompt"], 14, cfg)
        assert videos is None and np.array_equal(np.asarray(shown[0]), pixels)
        chat = processor.apply_chat_template(got["raw_prompt"], add_generation_prompt=True, tokenize=False)
        assert processor(text=[chat], images=shown)["input_ids"][0] == ids
        assert got["reward_model"]["ground_truth"] == row and got["data_source"] == "argos" and got["index"] == i
