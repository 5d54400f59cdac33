"""`python -m tiny`: where its time went, in a new run and in a resumed one. Its commands are played, not run."""
import json
import shlex

import pytest

from tiny import __main__ as whole

SECONDS = {"tiny.world": 10, "curate.py": 80, "train_sft.py": 40, "train_grpo.py": 60, "evaluate.py": 10}
WRITES = {"curate.py": "curated/rollouts.jsonl", "tiny.world": "data/ood-clips.jsonl", "evaluate.py": "eval/answers.jsonl"}


def rows_of(words):
    """What a command appends to its log: of GRPO, an evaluation, and two steps of its arm."""
    if "train_grpo.py" not in words:
        return [{"kind": "config"}]
    step = dict(kind="train", seconds=dict(sample=5, verify=4 if "argos" in words else 1, update=3.5))
    return [dict(kind="config"), dict(kind="eval", seconds=dict(evaluate=2)), step, step]


@pytest.fixture
def line(tmp_path, monkeypatch, capsys):
    """line(done, *flags) plays the whole line -> the rows of its last table. done: commands that find nothing to do."""
    def play(done, *flags):
        def act(command):
            words = shlex.split(command)
            script = next(word for word in words if word in SECONDS)
            out = tmp_path / WRITES.get(script, f"{words[words.index('--out') + 1]}/metrics.jsonl")
            out.parent.mkdir(parents=True, exist_ok=True)
            if script not in done:
                with open(out, "a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows_of(words))
            return SECONDS[script]

        def run(*chains):
            seconds = max(sum(map(act, chain)) for chain in chains)
            clock[0] += seconds
            return seconds
        clock = [0]
        monkeypatch.setattr(whole, "run", run)
        monkeypatch.setattr(whole.time, "time", lambda: clock[0])
        monkeypatch.setattr(whole.sys, "argv", ["tiny", "--out", str(tmp_path), *flags])
        capsys.readouterr()
        whole.main()
        printed = capsys.readouterr().out
        assert "minutes. Look at:" in printed
        return printed[printed.index("phase  "):printed.index("\n\nAll of it")].splitlines()[1:]
    return play


def test_the_line_says_where_its_time_went(line):
    """Kills: an arm's parts that are the other arm's, steps that are not summed, a share of something else."""
    rows = [row.rsplit(maxsplit=3) for row in line([])]
    shares = {name.strip(): (int(seconds), int(share)) for name, seconds, share, _ in rows}
    assert shares == {
        "data": (10, 5), "curation": (80, 38), "SFT": (40, 19), "GRPO, both arms at once": (70, 33), "evaluation": (10, 5),
        "argos: sample": (10, 5), "argos: verify": (8, 4), "argos: update": (7, 3), "argos: evaluate": (2, 1),
        "outcome: sample": (10, 5), "outcome: verify": (2, 1), "outcome: update": (7, 3), "outcome: evaluate": (2, 1)}
    assert list(shares)[3:5] == ["GRPO, both arms at once", "argos: sample"] and list(shares)[-1] == "evaluation"


def test_what_a_resumed_line_skips_is_said(line):
    line(["train_grpo.py", "evaluate.py"])
    rows = line(["curate.py", "train_sft.py"], "--resume")  # ended in SFT, say
    skipped = {row.split("  ")[0] for row in rows if row.endswith("skipped: done before")}
    assert skipped == {"data", "curation", "SFT"}
    assert "  argos: verify" in {row[:15] for row in rows}
    rows = line(["curate.py", "train_sft.py", "train_grpo.py", "evaluate.py"], "--resume")
    assert len(rows) == 5 and all(row.endswith("skipped: done before") for row in rows)  # an arm's old steps took none
