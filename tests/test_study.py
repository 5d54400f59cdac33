"""The longer experiments: which commands they run, what they skip, the numbers in their tables. No training here."""
import json
import shlex
import sys

import pytest

import train_grpo
from runs.errors import BadInput
from runs.processes import FREE_ON_RESUME
from runs.settings import parse_config
from tiny import study


def finished(folder, evals=((.5, .5),), flags="", judged=None):
    """Leave what a finished run of this folder's reward and these flags leaves. tmp_path: folder's grandparent."""
    (folder / "merged").mkdir(parents=True)
    out = folder.parent if folder.name.startswith("grpo-") else folder.parent.parent
    typed = f"--policy {out}/sft/merged --data {out}/data/rl.jsonl --val {out}/data/val.jsonl --foils 0 {flags}"
    settings = vars(parse_config(train_grpo.Config, "", shlex.split(typed)))
    logged = {name: value for name, value in settings.items() if name not in FREE_ON_RESUME}  # as processes.claim
    rows = [dict(kind="config", **logged)]
    for i, (answers, grounding) in enumerate(evals):
        rows.append(dict(kind="eval", step=10 * i, answers=answers, grounding=grounding, judged=judged or answers))
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
    finished(tmp_path / "grpo-argos", flags="--reward argos --seed 1")  # the whole line was run with seed 1
    finished(tmp_path / "study/outcome-seed2", flags="--reward outcome --seed 2")
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


def test_one_run_is_another_only_with_all_its_settings(tmp_path):
    """Steps or a judge that have changed since would silently become the new table."""
    folder = tmp_path / "study/argos-seed0"
    finished(folder, flags="--reward argos --seed 0")
    command = (f"python train_grpo.py --policy {tmp_path}/sft/merged --data {tmp_path}/data/rl.jsonl "
               f"--val {tmp_path}/data/val.jsonl --foils 0 --reward argos --seed 0")
    assert study.is_run_of(f"{command} --out anywhere", folder)
    for more in ("--steps 3", "--foils 2", "--seed 1", "--lr 1e-9", "--reward outcome", "--beta 1"):
        assert not study.is_run_of(f"{command} {more}", folder)
    assert not study.is_run_of(command, tmp_path / "nowhere")
    log = folder / "metrics.jsonl"  # a log from before a flag was there does not know its value
    log.write_text(log.read_text().replace('"foils": 0, ', ""))
    assert not study.is_run_of(command, folder)


@pytest.mark.parametrize("more", [["--flags", "--steps 4"], ["--foils", "2"]])
def test_runs_with_other_settings_never_mix(monkeypatch, tmp_path, more):
    finished(tmp_path / "grpo-argos", flags="--reward argos --seed 0")
    ran = call(monkeypatch, tmp_path, "seeds", "--seeds", "0", "--rewards", "argos", "--name", "new", *more)
    assert f"--out {tmp_path}/new/argos-seed0" in ran[0] and " ".join(more).replace("--flags ", "") in ran[0]
    finished(tmp_path / "new/argos-seed0", flags="--reward argos --seed 0")
    with pytest.raises(BadInput, match="new/argos-seed0: was trained with other settings"):
        call(monkeypatch, tmp_path, "seeds", "--seeds", "0", "--rewards", "argos", "--name", "new", *more)


@pytest.mark.parametrize("flags", ["--foils 2", "--judge x", "--beta 1 --eval_judge x"])
def test_another_judge_is_not_smuggled_in(monkeypatch, tmp_path, flags):
    with pytest.raises(BadInput, match="another judge"):
        call(monkeypatch, tmp_path, "seeds", "--flags", flags)


def test_sweep_reads_start_end_and_lowest(monkeypatch, tmp_path):
    flags = "--lr 2e-3 --steps 40 --reward"
    finished(tmp_path / "study/argos-lr0.002-steps40", [(.7, .6), (.6, .7), (.8, .9)], f"{flags} argos")
    finished(tmp_path / "study/outcome-lr0.002-steps40", [(.7, .6), (.6, .3), (.5, .4)], f"{flags} outcome", judged=.9)
    assert call(monkeypatch, tmp_path, "sweep", "--settings", "2e-3:40") == []
    table = (tmp_path / "study/sweep.md").read_text()
    assert "| 0.002 | 40 | argos | 0.700 | 0.800 | 0.800 | 0.600 | 0.900 | 0.600 |" in table
    assert "| 0.002 | 40 | outcome | 0.700 | 0.500 | 0.900 | 0.600 | 0.400 | 0.300 |" in table
    assert (tmp_path / "study/sweep.png").stat().st_size > 5_000
    with pytest.raises(BadInput, match="learning rate:steps"):
        call(monkeypatch, tmp_path, "sweep", "--settings", "2e-3")


def test_sweep_takes_the_seeds_studys_runs_where_settings_agree(tmp_path):
    finished(tmp_path / "grpo-argos", flags="--lr 2e-3 --steps 40 --reward argos")
    finished(tmp_path / "study/outcome-seed0", flags="--lr 2e-3 --steps 40 --reward outcome")
    cfg = study.Config(study="sweep", out=str(tmp_path), settings=["2e-3:40", "1e-3:40"])

    def folders(more):
        grpo = (f"python train_grpo.py --policy {tmp_path}/sft/merged --data {tmp_path}/data/rl.jsonl "
                f"--val {tmp_path}/data/val.jsonl --foils 0 {more}")
        return {key: folder for key, (_, folder) in study.sweep_jobs(cfg, tmp_path / "study", grpo).items()}

    here = folders("")
    assert here[.002, 40, "argos"] == tmp_path / "grpo-argos"
    assert here[.002, 40, "outcome"] == tmp_path / "study/outcome-seed0"
    assert here[.001, 40, "argos"] == tmp_path / "study/argos-lr0.001-steps40"
    assert folders("--beta 1")[.002, 40, "argos"].parent == tmp_path / "study"


def test_run_says_which_job_failed(tmp_path):
    with pytest.raises(SystemExit) as stop:
        study.run([("python -c pass", tmp_path / "good"), ("python -c 1/0", tmp_path / "bad")])
    assert str(tmp_path / "bad") in str(stop.value) and "good" not in str(stop.value)
    assert "ZeroDivisionError" in (tmp_path / "bad/log.txt").read_text()
