"""TRL's GRPOTrainer in two processes, with the groups split over them, against a real serve.py.

(tests/requirements-more.txt installs TRL. EasyR1 and verl: tests/checkouts.py.)
"""
import json
import os
import re
import runpy
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from teachers.names import load_judge, load_teachers
from verifier.samples import Sample
import argos
import rewards
from test_processes import free_port
from test_training import as_command, fork, forking, join

ROOT = Path(__file__).parent.parent
ROW = {"id": "red", "image": "red.png", "question": "How many red squares are there?", "answer": "1",
       "kind": "count"}
LOST = ROW | {"id": "lost", "image": "nowhere.png"}  # its outcome cannot be scored
TOGETHER = 4  # rollouts of a group; each process has two of them


@pytest.fixture
def folder(tmp_path):
    image = Image.new("RGB", (84, 84), (215, 215, 210))
    image.paste((225, 30, 30), (14, 14, 36, 36))
    image.save(tmp_path / "red.png")
    return tmp_path


def address_in(said, server):
    """Where serve.py says that it verifies."""
    for _ in range(1200):
        found = re.search(r"http://\S+", said.read_text() if said.exists() else "")
        if found or not server.is_alive():
            break
        time.sleep(.05)
    assert found, said.read_text()
    return found[0]


def train(rank, port, folder, url):
    """One of TRL's two processes, as torchrun would start it. Leaves folder/RANK: what it scored and logged."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true", ARGOS_URL=url)
    torch.set_num_threads(1)
    import datasets  # these two only here: they take seconds
    import trl
    processor = AutoProcessor.from_pretrained(ROOT / "tiny/teacher")
    processor.image_processor.size = {"shortest_edge": 7056, "longest_edge": 28224}
    asked = [{"role": "user", "content": f"{ROW['question']} Think and point."}]
    table = dict(prompt=[asked] * 2, images=[[Image.open(folder / "red.png").convert("RGB")]] * 2,
                 row=[json.dumps(ROW), json.dumps(LOST)])
    seen = []

    def argos_reward(completions, row, **columns):
        scores = rewards.trl(completions, row, **columns)
        seen.append([list(map(rewards.text_of, completions)), row, scores])
        return scores

    config = trl.GRPOConfig(output_dir=str(folder / "out"), use_cpu=True, bf16=False, report_to=[],
                            max_steps=2, num_generations=TOGETHER, logging_steps=1,
                            per_device_train_batch_size=TOGETHER // 2, max_completion_length=60,
                            temperature=1.3, save_strategy="no", shuffle_dataset=False)
    model = AutoModelForImageTextToText.from_pretrained(ROOT / "tiny/teacher")
    trainer = trl.GRPOTrainer(model=model, args=config, reward_funcs=argos_reward, processing_class=processor,
                              train_dataset=datasets.Dataset.from_dict(table))
    trainer.train()
    (folder / str(rank)).write_text(json.dumps({"seen": seen, "log": trainer.state.log_history}))


def test_trl_in_two_processes_gets_the_reward_of_one(folder):
    """What TRL logs over both is what one process finds for the whole group; what was not scored is left out.
    Kills a group scored by who is in its half, and None taken for 0."""
    pytest.importorskip("trl", reason="TRL is not installed")
    said = folder / "said"
    server = fork("serve", said, "--data", folder, "--judge", ROOT / "tiny/teacher", "--port", 0)
    try:
        url, port = address_in(said, server), free_port()
        children = [forking().Process(target=train, args=(rank, port, folder, url)) for rank in range(2)]
        for child in children:
            child.start()
        for child in children:
            join(child, said)
    finally:
        server.terminate()
        server.join(60)
    assert server.exitcode == 0, said.read_text()

    own = [json.loads((folder / str(rank)).read_text()) for rank in range(2)]
    assert len(own[0]["seen"]) == len(own[1]["seen"]) == 2
    verifier = argos.Argos(*load_teachers(), load_judge(str(ROOT / "tiny/teacher"), "tiny"))
    logged = own[0]["log"]
    for step in range(2):
        texts = own[0]["seen"][step][0] + own[1]["seen"][step][0]
        rows = own[0]["seen"][step][1] + own[1]["seen"][step][1]
        scores = own[0]["seen"][step][2] + own[1]["seen"][step][2]
        assert len(set(rows)) == 1 and len(texts) == TOGETHER  # one group, half of it in each process
        mean = logged[step]["rewards/argos_reward/mean"]
        if json.loads(rows[0])["id"] == "lost":
            assert scores == [None] * TOGETHER and mean is None  # NaN, as the log writes it
            assert logged[step]["loss"] == pytest.approx(0, abs=1e-6)
        else:
            sample = Sample.from_row(ROW, folder, "row")
            expected = [one.reward for one in verifier.verify_group(sample, texts)]
            assert scores == pytest.approx(expected, abs=1e-5) and max(scores) > 0
            assert mean == pytest.approx(sum(expected) / TOGETHER, abs=1e-5)
            terms = {name for name in logged[step] if name.startswith("argos/")}
            assert {"argos/outcome", "argos/grounding"} <= terms
    assert {json.loads(one["seen"][step][1][0])["id"] for one in own for step in range(2)} == {"red", "lost"}


# ---- ms-swift ----------------------------------------------------------------------------------------------
def test_the_pages_plugin_for_swift(tmp_path, monkeypatch):
    """The plugin as the page has it, loaded and called as ms-swift's code does (swift/utils: import_external_file;
    swift/rl_core/grpo_algorithm.py). Its package is played by a stub: this tests the plugin, not ms-swift."""
    page = (ROOT / "benchmarks/engines.md").read_text()
    code = re.search(r"```python\n(# argos_swift\.py.*?)```", page, re.S)[1]
    stub = ModuleType("swift.rewards")
    stub.ORM = type("ORM", (), {"__init__": lambda self, args=None, **options: None})
    stub.orms = {}
    monkeypatch.setitem(sys.modules, "swift", ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", stub)
    (tmp_path / "argos_swift.py").write_text(code)
    runpy.run_path(str(tmp_path / "argos_swift.py"))

    results = [{"reward": .75, "not_scored": {}}, {"reward": None, "not_scored": {"outcome": "no judge"}}]
    monkeypatch.setattr(rewards, "verify", lambda items, *rest, **options: results[:len(items)])
    function = stub.orms["argos"](args=SimpleNamespace())
    columns = {"trainer_state": None, "messages": [[], []], "request_id": ["a", "b"], "images": [["x"], ["x"]]}
    assert function(["<answer>1</answer>", "?"], row=[json.dumps(ROW)] * 2, **columns) == [.75, 0.0]
