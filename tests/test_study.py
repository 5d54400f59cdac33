"""The longer experiments: which commands they run, what they skip, the numbers in their tables. No training here."""
import json
import sys

import pytest

from runs.errors import BadInput
from tiny import study


def finished(folder, seed, evals):
    (folder / "merged").mkdir(parents=True)
    rows = [dict(kind="config", seed=seed, foils=0, lr=.002, steps=40)]
    for i, (answers, grounding) in enumerate(evals):
        rows.append(dict(kind="eval", step=10 * i, answers=answers, grounding=grounding))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def call(monkeypatch, tmp_path, *arguments):
    """Run the study with commands recorded instead of run -> [command, ...]."""
    ran = []

    def record(jobs):
        for command, folder in jobs:
            ran.append(command)
            if "evaluate.py" in command:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "table.md").write_text("table of " + folder.name)
    monkeypatch.setattr(study, "run", record)
    monkeypatch.setattr(sys, "argv", ["study", *arguments, "--out", str(tmp_path)])
    study.main()
    return ran


def test_seeds_trains_what_is_missing_and_compares_all(monkeypatch, tmp_path, capsys):
    finished(tmp_path / "grpo-argos", 1, [(.5, .5)])  # the whole line was run with seed 1
    finished(tmp_path / "study/outcome-seed2", 2, [(.5, .5)])
    half = tmp_path / "study/argos-seed2"
    half.mkdir(parents=True)
    (half / "metrics.jsonl").write_text("{}\n")
    ran = call(monkeypatch, tmp_path, "seeds", "--seeds", "1", "2", "--rewards", "argos", "outcome")
    trained = [c for c in ran if "train_grpo.py" in c]
    assert len(trained) == 2  # outcome with seed 1, and argos with seed 2, which was stopped and continues
    assert any("--reward outcome --seed 1" in command for command in trained)
    assert sum(c.endswith("--resume") and "--reward argos --seed 2" in c for c in trained) == 1
    val, at_one, greedy, ood = (c for c in ran if "evaluate.py" in c)
    assert "--temperature 1" in at_one and f"sft:greedy={tmp_path}/sft/merged" in greedy and "--foils 0" in val
    for folder in ("grpo-argos", "study/outcome-seed1", "study/argos-seed2", "study/outcome-seed2"):
        assert f"{tmp_path}/{folder}/merged" in val and f"{tmp_path}/{folder}/merged" in ood
    assert f"sft={tmp_path}/sft/merged" in val and "ood-pairs.jsonl" in ood and "--curves" in val
    out = capsys.readouterr().out
    assert "table of seeds" in out and "table of ood" in out


def test_flags_never_mix_with_the_lines_own_run(monkeypatch, tmp_path):
    finished(tmp_path / "grpo-argos", 0, [(.5, .5)])
    ran = call(monkeypatch, tmp_path, "seeds", "--seeds", "0", "--rewards", "argos", "--flags", "--steps 3")
    assert any("--reward argos --seed 0" in c and "--steps 3" in c for c in ran)
    with pytest.raises(BadInput):  # nor may a second study with other flags use this one's folders
        call(monkeypatch, tmp_path, "seeds", "--seeds", "0", "--flags", "--steps 4")


def test_sweep_reads_start_end_and_lowest(monkeypatch, tmp_path):
    for reward, evals in (("argos", [(.7, .6), (.6, .7), (.8, .9)]), ("outcome", [(.7, .6), (.6, .3), (.5, .4)])):
        finished(tmp_path / f"study/{reward}-lr0.002-steps40", 0, evals)
    assert call(monkeypatch, tmp_path, "sweep", "--settings", "2e-3:40") == []
    table = (tmp_path / "study/sweep.md").read_text()
    assert "| 0.002 | 40 | argos | 0.700 | 0.800 | 0.800 | 0.600 | 0.900 | 0.600 |" in table
    assert "| 0.002 | 40 | outcome | 0.700 | 0.500 | 0.500 | 0.600 | 0.400 | 0.300 |" in table
    assert (tmp_path / "study/sweep.png").stat().st_size > 5_000
    with pytest.raises(BadInput, match="learning rate:steps"):
        call(monkeypatch, tmp_path, "sweep", "--settings", "2e-3")


def test_sweep_takes_the_seeds_studys_run_where_settings_agree(tmp_path):
    finished(tmp_path / "grpo-argos", 0, [(.5, .5), (.6, .6)])
    finished(tmp_path / "study/outcome-seed0", 0, [(.5, .5), (.4, .4)])
    cfg = study.Config(study="sweep", out=str(tmp_path), settings=["2e-3:40", "1e-3:40"])
    folders = study.sweep_folders(cfg, tmp_path / "study")
    assert folders[.002, 40, "argos"] == tmp_path / "grpo-argos"
    assert folders[.002, 40, "outcome"] == tmp_path / "study/outcome-seed0"
    assert folders[.001, 40, "argos"] == tmp_path / "study/argos-lr0.001-steps40"
    cfg.flags = "--beta 1"
    assert study.sweep_folders(cfg, tmp_path / "study")[.002, 40, "argos"].parent == tmp_path / "study"


def test_foils_have_folders_of_their_own(monkeypatch, tmp_path):
    finished(tmp_path / "grpo-argos", 0, [(.5, .5)])
    ran = call(monkeypatch, tmp_path, "seeds", "--seeds", "0", "--rewards", "argos", "--foils", "2", "--name", "foils")
    assert "--foils 2" in ran[0] and f"--out {tmp_path}/foils/argos-seed0" in ran[0]  # the line's run had no foils
    with pytest.raises(BadInput):
        call(monkeypatch, tmp_path, "seeds", "--seeds", "0", "--rewards", "argos", "--name", "foils")


def test_run_says_which_job_failed(tmp_path):
    with pytest.raises(SystemExit) as stop:
        study.run([("python -c pass", tmp_path / "good"), ("python -c 1/0", tmp_path / "bad")])
    assert str(tmp_path / "bad") in str(stop.value) and "good" not in str(stop.value)
    assert "ZeroDivisionError" in (tmp_path / "bad/log.txt").read_text()
