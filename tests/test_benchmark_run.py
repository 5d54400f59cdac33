"""Running benchmarks as a person does: stopped and resumed, scored again, compared, and read on a page. With the tiny model."""
import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import benchmark_fixtures
import numpy as np
import pytest

from runs.errors import BadInput, BadMedia
from runs.files import alone, read_jsonl, save_figure
from runs.settings import parse_config, preset_arguments
from verifier.media import load_media
import evaluate
import policy as P
from benchmarks import report, run, score, tasks
from benchmarks.stored import WHOLE_FIELDS, stored_rows
from tiny import world

ROOT = Path(__file__).parent.parent
BASE, TEACHER = str(ROOT / "tiny/base"), str(ROOT / "tiny/teacher")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 questions about drawn pictures and clips as video-r1, and a folder of easy-vqa with one picture that is none."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "video-r1").mkdir()
    world.write_split("val", 24, folder / "video-r1")
    pictures = folder / "easy-vqa/test/images"
    pictures.mkdir(parents=True)
    for i in range(4):
        save_figure(world.Image.fromarray(world.split_item("val", i).pixels[0]), pictures / f"{i}.png")
    (pictures / "2.png").write_bytes((pictures / "2.png").read_bytes()[:60])
    asked = [["what shape is shown?", "circle", i] for i in range(4)] + [["is there a circle?", "no", i] for i in range(4)]
    (folder / "easy-vqa/test/questions.json").write_text(json.dumps(asked))
    return folder


def words(data, out, *more):
    return ["--benchmark", "video-r1", "--data", str(data), "--out", str(out), "--batch", "4", "--max_new_tokens", "12", "--pages", "0", *more]


def call(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, args)])
    evaluate.main()


def stored(out):
    return [row for _, row in read_jsonl(Path(out, "answers.jsonl"), torn=True)]


def without_grounding(monkeypatch):
    """Most tests are about answers: the teachers may rest."""
    monkeypatch.setattr(run, "GROUNDED", ())


def must_not_load(*_, **__):
    raise AssertionError("a model was loaded")


# ---- 1. What is asked -----------------------------------------------------------------------------------------------------
def test_models_and_modes():
    cfg = run.Config(models=["base:direct=a", "cot:cot:greedy=b", "argos@20:greedy=c", "d=e=f"], model="g", mode="grounded", temperature=.5)
    assert [(m.name, m.folder, m.mode, m.temperature) for m in run.read_models(cfg)] == [
        ("base", "a", "direct", .5), ("cot", "b", "cot", 0), ("argos@20", "c", "grounded", 0), ("d", "e=f", "grounded", .5),
        ("ours", "g", "grounded", .5)]
    for bad in (dict(models=["a=x", "a:direct=x"]), dict(models=["a:overlay=x"]), dict(model="x", mode="think"), dict(model="x", temperature=-1.), {}):
        with pytest.raises(BadInput):
            run.read_models(run.Config(**bad))


@pytest.mark.parametrize("flags", [dict(batch=0), dict(limit=-1), dict(pages=-1), dict(temperature=float("nan"))])
def test_numbers_that_make_no_sense_are_told(flags):
    with pytest.raises(BadInput, match="--batch|--temperature"):
        run.read_models(run.Config(model=str(ROOT / "tiny/base"), **flags))


def test_lines_that_are_no_answers_are_passed_over(tmp_path):
    whole = dict.fromkeys(WHOLE_FIELDS, "x")
    (tmp_path / "log").write_text("\n".join(["5", "null", '{"model": "x"}', json.dumps(whole), '{"torn']))
    assert list(stored_rows(tmp_path / "log")) == [whole]


def test_flags_of_like_names_are_told_apart_and_presets_hold_the_papers_values():
    read = lambda *typed: parse_config(run.Config, "", preset_arguments("benchmark", run.Config, list(typed)))
    cfg = read("--benchmark", "all", "--data", "d", "--model", "m", "--mode", "cot")
    assert (cfg.model, cfg.models, cfg.mode, cfg.data) == ("m", [], "cot", "d")
    assert read("--models", "a=b", "c=d").models == ["a=b", "c=d"]
    seven = read("--preset", "7b", "--model", "m")
    assert (seven.temperature, seven.max_new_tokens, seven.dtype) == (.6, 8192, "nf4") and read().temperature == .6
    assert read("--preset", "7b", "--temperature", "0").temperature == 0


def test_a_shipped_instruction_serves_the_direct_mode_only():
    plain = tasks.Item("1", "Which? A. red B. blue", "A", [], ["red", "blue"], {}, "choice")
    shipped = tasks.Item("1", plain.question, "A", [], plain.options, {}, "choice", "By letter: which? A. red B. blue")
    text = lambda item, mode: run.question_text(item, mode, "7b")
    assert text(shipped, "direct") == "By letter: which? A. red B. blue"
    assert text(plain, "direct") == P.prompt("7b", "direct", question=plain.question)
    for mode, key in (("cot", "cot"), ("grounded", "reason")):
        assert text(shipped, mode) == P.prompt("7b", key, question=plain.question) and "By letter" not in text(shipped, mode)
    assert "<point" in text(plain, "grounded") and "<point" not in text(plain, "cot") and "<think>" in text(plain, "cot")


def test_a_sample_is_seeded_balanced_and_grows():
    entry = SimpleNamespace(part="task", together=(), metrics={"": tasks.Metric(over=("task",))})
    items = [SimpleNamespace(id=f"{task}{i}", groups={"task": task, "figure": i}) for task, n in (("a", 60), ("b", 30), ("c", 10)) for i in range(n)]
    for limit in (10, 20, 50):
        chosen = run.stratified(entry, items, limit, seed=1)
        assert [sum(i[0] == task for i in chosen) for task in "abc"] == [limit * 6 // 10, limit * 3 // 10, limit // 10]
        assert chosen <= run.stratified(entry, items, limit + 13, 1) and chosen == run.stratified(entry, items[::-1], limit, 1)
        assert chosen != run.stratified(entry, items, limit, seed=2)
    assert run.stratified(entry, items, 1000, 0) == {item.id for item in items}


def test_what_belongs_together_is_drawn_together():
    entry = tasks.BENCHMARKS["sugarcrepe"]
    items = [SimpleNamespace(id=f"{c}/{i}/{o}", groups={"category": c, "pair": f"{c}/{i}", "order": o})
             for c in ("add_att", "swap_obj") for i in range(20) for o in ("positive first", "negative first")]
    chosen = run.stratified(entry, items, 9, 0)
    assert len(chosen) == 8 and all(f"{i.rpartition('/')[0]}/{order}" in chosen for i in chosen for order in ("positive first", "negative first"))
    assert sum(i.startswith("add") for i in chosen) == 4


def test_missing_folders(data, tmp_path, monkeypatch, capsys):
    with pytest.raises(BadInput, match="blink.*hf:BLINK"):
        call(monkeypatch, "--benchmark", "video-r1,blink", "--data", data, "--model", BASE, "--out", tmp_path)
    with pytest.raises(BadInput, match="blonk"):
        call(monkeypatch, "--benchmark", "blonk", "--data", data, "--model", BASE, "--out", tmp_path)
    assert run.read_benchmarks(run.Config(data=str(data))) == ["video-r1", "easy-vqa"]
    skipped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(skipped) == len(tasks.BENCHMARKS) - 2 and any("blink" in line and "hf:BLINK" in line for line in skipped)
    with pytest.raises(BadInput, match="nothing is stored"):
        call(monkeypatch, "--benchmark", "all", "--rescore", "--out", tmp_path)


@pytest.mark.parametrize("flags", [["--benchmark", "easy-vqa"], ["--benchmark", "all"], ["--benchmark", "easy-vqa", "--rescore"]])
def test_a_data_folder_that_is_not_there_is_refused(flags, tmp_path, monkeypatch):
    """A typo must not leave easy-vqa alone, which its package brings."""
    monkeypatch.setattr(P, "load_policy", must_not_load)
    with pytest.raises(BadInput, match="--data .*nowhere: there is no such folder"):
        call(monkeypatch, *flags, "--data", tmp_path / "nowhere", "--model", BASE, "--out", tmp_path / "out")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(BadInput, match="--data .*a.json: is a file"):
        call(monkeypatch, *flags, "--data", tmp_path / "a.json", "--model", BASE, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_default_data_folder_is_needed_for_what_no_package_brings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for benchmark in ("all", "easy-vqa,blink"):
        with pytest.raises(BadInput, match=f"--data {run.DATA}: there is no such folder"):
            run.check_data(run.Config(benchmark=benchmark))
    run.check_data(run.Config(benchmark="easy-vqa"))
    run.check_data(run.Config(benchmark="all", rescore=True))


def test_when_nothing_can_be_asked_the_folders_and_the_reason_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(P, "load_policy", must_not_load)
    folder = tmp_path / "sugarcrepe"
    benchmark_fixtures.write_sugarcrepe(folder)
    cfg = run.Config(data=str(tmp_path))
    left_out = {}
    assert len(run.choose(cfg, "sugarcrepe", run.reporter(left_out, "sugarcrepe"))) == 6  # a part is asked, and the rest told
    assert "sugarcrepe: Rows left out: 2. 1 x " in capsys.readouterr().err and len(left_out) == 2 + len(tasks.SUGARCREPE)
    shutil.rmtree(folder / "val2017")
    with pytest.raises(BadInput) as error:
        call(monkeypatch, "--benchmark", "sugarcrepe", "--data", tmp_path, "--model", BASE, "--out", tmp_path / "out")
    said = str(error.value)
    assert said.startswith("sugarcrepe: no question can be asked. Rows left out: 5. 5 x picture missing") and "\n" not in said
    assert all(str(folder / place) in said for place in ("val2017", "data/coco/images/val2017", "images")) and "val2017.zip" in said


def test_pixmos_pictures_are_asked_for_before_any_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(P, "load_policy", must_not_load)
    benchmark_fixtures.write_pixmo_count(tmp_path / "pixmo-count")
    args = ["--benchmark", "pixmo-count", "--data", tmp_path, "--model", BASE, "--out", tmp_path / "out"]
    for file in (tmp_path / "pixmo-count/images").rglob("any*"):
        file.write_bytes(b"This image is no longer available")
    with pytest.raises(BadInput, match="holds no answer.*most of all 6 x PixMo-Count: no picture with this sha256 .*http://x/"):
        call(monkeypatch, *args)
    shutil.rmtree(tmp_path / "pixmo-count/images")
    with pytest.raises(BadInput, match="pixmo-count/images: is no folder. Its pictures are links: download"):
        call(monkeypatch, *args)


def test_a_judge_is_recommended_where_rules_read_little(tmp_path, monkeypatch, capsys):
    assert [name for name, entry in tasks.BENCHMARKS.items() if entry.judge] == ["hallusionbench"]
    benchmark_fixtures.write_hallusionbench(tmp_path / "hallusionbench")
    args = ["--benchmark", "hallusionbench", "--data", tmp_path, "--out", tmp_path / "out", "--pages", 0]
    call(monkeypatch, *args, "--model", BASE, "--max_new_tokens", 2)
    advice = "hallusionbench: A judge is recommended. In 19 % of a sample"
    assert capsys.readouterr().err.count(advice) == 1
    call(monkeypatch, *args, "--rescore")
    assert capsys.readouterr().err.count(advice) == 1
    monkeypatch.setattr(run, "load_judge", lambda *_, **__: SimpleNamespace(equivalent=lambda *_: False))
    call(monkeypatch, *args, "--rescore", "--judge_answers", "True")
    assert advice not in capsys.readouterr().err


# ---- 2. Asking ------------------------------------------------------------------------------------------------------------
def test_batches_by_length_answer_as_one_at_a_time_with_less_padding(data, tmp_path, monkeypatch):
    without_grounding(monkeypatch)
    padding, encode = [], P.encode_prompts

    def spy(actor, items):
        prompts = encode(actor, items)
        padding.append(int((prompts.mask == 0).sum()))
        return prompts

    monkeypatch.setattr(P, "encode_prompts", spy)
    answers = {}
    for name, *flags in (("sorted", "--batch", 6), ("one", "--batch", 1), ("file order", "--batch", 6)):
        monkeypatch.setattr(run, "WINDOW", 1 if name == "file order" else 8)
        padding.clear()
        call(monkeypatch, *words(data, tmp_path / name), *flags, "--model", TEACHER, "--temperature", 0)
        answers[name] = {row["id"]: row["response"] for row in stored(tmp_path / name)}, sum(padding)
    assert len(answers["one"][0]) == 24 and answers["sorted"][0] == answers["one"][0] == answers["file order"][0]
    assert len(set(answers["one"][0].values())) > 5
    assert answers["one"][1] == 0 and answers["sorted"][1] < answers["file order"][1] / 2


def test_killed_and_torn_it_resumes_to_the_same_answers(data, tmp_path, monkeypatch):
    without_grounding(monkeypatch)
    flags = ["--models", f"m:cot={BASE}", "--temperature", "2"]
    log = tmp_path / "killed/answers.jsonl"
    process = subprocess.Popen([sys.executable, "evaluate.py", *words(data, tmp_path / "killed"), *flags], cwd=ROOT,
                               env=dict(os.environ, OMP_NUM_THREADS="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 4):
        time.sleep(.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and 4 <= len(stored(log.parent)) < 24
    kept = log.read_bytes()
    lines = kept.split(b"\n")[:3]  # and a disk that lost more: one batch is not whole, and a line is half there
    log.write_bytes(b"\n".join(lines)[:-40])
    call(monkeypatch, *words(data, tmp_path / "killed"), *flags)
    call(monkeypatch, *words(data, tmp_path / "whole"), *flags)
    killed, whole = stored(tmp_path / "killed"), stored(tmp_path / "whole")
    assert len(killed) == len({row["id"] for row in killed}) == len(whole) == 24
    assert sorted(killed, key=lambda r: r["id"]) == sorted(whole, key=lambda r: r["id"])
    for name in ("table.md", "table.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    before = log.read_bytes()
    monkeypatch.setattr(P, "load_policy", must_not_load)
    call(monkeypatch, *words(data, tmp_path / "killed"), *flags, "--batch", 7)  # the batch is no part of how it was asked
    assert log.read_bytes() == before
    with pytest.raises(AssertionError, match="was loaded"):  # but the temperature is
        call(monkeypatch, *words(data, tmp_path / "killed"), *flags, "--temperature", .7)


def test_damaged_media_are_named_counted_and_left_out(data, tmp_path, monkeypatch, capsys):
    without_grounding(monkeypatch)
    args = ["--benchmark", "easy-vqa", "--data", data, "--model", BASE, "--mode", "direct", "--out", tmp_path, "--max_new_tokens", 4, "--pages", 0]
    call(monkeypatch, *args)
    rows, told = stored(tmp_path), capsys.readouterr()
    assert sorted(row["id"].partition("-")[0] for row in rows) == ["0", "0", "1", "1", "3", "3"] and "2.png" in told.err
    assert "2 x damaged media" in told.out and "; all: 8 usable questions, 9673 published." in told.out
    left = [row for _, row in read_jsonl(tmp_path / "left_out.jsonl")]
    assert sum(row["reason"] == "damaged media" for row in left) == 2 and "6 questions of 9,673 published" in told.out
    (tmp_path / "left_out.jsonl").unlink()
    call(monkeypatch, *args)  # again: they are told again, and nothing is asked twice
    assert stored(tmp_path) == rows and "2 x damaged media" in capsys.readouterr().out


def test_bytes_are_read_as_files_are(data):
    path = data / "easy-vqa/test/images/0.png"
    a, b = load_media(path), load_media(path.read_bytes())
    assert a.frames[0].tobytes() == b.frames[0].tobytes() and a.original_size == b.original_size and a.seconds == b.seconds
    for bad in (b"", b"no picture", (data / "easy-vqa/test/images/2.png").read_bytes(), b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(BadMedia, match=f"a picture of {len(bad)} bytes"):
            load_media(bad)


# ---- 3. Stored answers ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def answered(data, tmp_path_factory):
    """Two checkpoints of one run on video-r1, verified, and their page."""
    out = tmp_path_factory.mktemp("answered")
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(monkeypatch, *words(data, out), "--max_new_tokens", 64, "--models", f"rl@0={BASE}", f"rl@10={TEACHER}", "--pages", 3, "--batch", 24)
    return out


def test_figure_4_page_and_tables_are_written(answered):
    rows = stored(answered)
    assert len(rows) == 48 and all(0 <= row["grounding"] <= 1 for row in rows) and (answered / "bars.png").stat().st_size > 5000
    assert (answered / "figure4-video-r1.png").stat().st_size > 5000
    text = (answered / "table.md").read_text()
    table = list(csv.DictReader((answered / "table.csv").open()))
    for name in ("rl@0", "rl@10"):
        mine = [row for row in rows if row["model"] == name]
        for metric, key in (("accuracy", "correct"), ("visual grounding", "grounding")):
            value, = [float(r["percent"]) for r in table if (r["model"], r["metric"]) == (name, metric)]
            assert math.isclose(value, 100 * np.mean([row[key] for row in mine]), abs_tol=1e-3) and f"{value:.1f} [" in text
    page = (answered / "page/index.html").read_text()
    pictures = re.findall("img src='([^']+)'", page)
    assert len(pictures) == 6 and all((answered / "page" / name).stat().st_size > 1000 for name in pictures)


def test_rescoring_is_idempotent_and_needs_no_model(answered, tmp_path, monkeypatch):
    for name in ("load_policy", "encode_prompts"):
        monkeypatch.setattr(P, name, must_not_load)
    monkeypatch.setattr(run, "load_judge", must_not_load)
    rows = stored(answered)
    spoilt = [row | dict(extracted="?", correct=.25) for row in rows]
    log = tmp_path / "answers.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in spoilt) + '{"torn')
    again = []
    for _ in range(2):
        call(monkeypatch, "--benchmark", "all", "--data", tmp_path, "--out", tmp_path, "--rescore")
        again.append([(tmp_path / name).read_bytes() for name in ("answers.jsonl", "table.md", "table.csv")])
    assert again[0] == again[1] and stored(tmp_path) == rows and (tmp_path / "table.csv").read_bytes() == (answered / "table.csv").read_bytes()


def test_two_runs_do_not_share_a_folder(answered, tmp_path, monkeypatch):
    pytest.importorskip("fcntl", reason="nothing is locked here")
    shutil.copytree(answered, tmp_path / "out")
    with alone(tmp_path / "out"), pytest.raises(BadInput, match="another run is at work"):
        call(monkeypatch, "--benchmark", "all", "--rescore", "--out", tmp_path / "out")
    call(monkeypatch, "--benchmark", "all", "--rescore", "--pages", 0, "--out", tmp_path / "out")


def test_rescoring_takes_the_way_a_model_was_asked_last(answered, tmp_path, monkeypatch):
    rows = [row for row in stored(answered) if row["model"] == "rl@0"]
    other = [row | dict(stamp=["elsewhere", *row["stamp"][1:]]) for row in rows[:5]]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + other))
    have = run.rescore(run.Config(out=str(tmp_path)))
    assert {key: len(rows) for key, rows in have.items()} == {("rl@0", "elsewhere", "video-r1"): 5}


def test_a_page_shows_what_a_model_wrote_and_runs_none_of_it(answered, data, tmp_path, monkeypatch):
    evil = "<script>alert(1)</script>' onerror='x() \u202e <point x1=\"9\" y1=\"9\" alt=\"<b>\">x</point>"
    rows = [row | dict(model="<i>'m", response=evil) for row in stored(answered) if row["model"] == "rl@0"]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(score, "extract", lambda response, item: response)
    call(monkeypatch, "--benchmark", "all", "--data", data, "--out", tmp_path, "--rescore", "--pages", 2)
    page = (tmp_path / "page/index.html").read_text()
    tags = set(re.findall(r"<(/?\w+)", page))
    assert tags <= {"!doctype", "meta", "title", "/title", "style", "/style", "h1", "/h1", "h2", "/h2", "h3", "/h3", "pre", "/pre", "p", "/p",
                    "b", "/b", "table", "/table", "tr", "/tr", "td", "/td", "i", "/i", "br", "img"}
    assert "&lt;script&gt;" in page and "\u202e" not in page and "onerror='" not in page and "&lt;i&gt;" in page
    names = re.findall("img src='([^']*)'", page)
    assert len(names) == 2 and all(re.fullmatch(r"[\w.-]+\.png", name) for name in names)
    assert "<i>" not in (tmp_path / "table.md").read_text()


def test_all_benchmarks_from_their_published_files_to_tables_and_page(tmp_path, monkeypatch, capsys):
    made, out = benchmark_fixtures.write_all(tmp_path / "data"), tmp_path / "out"
    args = ["--benchmark", "all", "--data", tmp_path / "data", "--out", out, "--models", f"a:direct={BASE}", f"b={BASE}", "--batch", 16,
            "--max_new_tokens", 8, "--pages", 2]
    call(monkeypatch, *args)
    rows, told = stored(out), capsys.readouterr()
    assert "skipped" not in told.err and set(made) == set(tasks.BENCHMARKS)
    for model, mode in (("a", "direct"), ("b", "grounded")):
        mine = [row for row in rows if row["model"] == model]
        assert Counter(row["benchmark"] for row in mine) == made and {row["mode"] for row in mine} == {mode}
        looked = {row["benchmark"] for row in mine if row["grounding"] is not None}
        assert looked == (set(run.GROUNDED) if mode == "grounded" else set())
    for row in rows:
        assert isinstance(row["response"], str)
        if row["benchmark"] == "mindcube" and row["mode"] == "direct":  # its instruction stands before the question
            assert row["prompt"].endswith(row["question"].partition("[Question]")[2]) and "[Answer Instruction]" in row["prompt"]
        else:
            assert row["prompt"].startswith(row["question"])
    text, page = (out / "table.md").read_text(), (out / "page/index.html").read_text()
    for name, entry in tasks.BENCHMARKS.items():
        assert f"## {entry.title}: {made[name]} questions" in text and f"<h2>{entry.title}</h2>" in page
        section = text.split(f"## {entry.title}: ")[1].split("\n## ")[0]
        assert "Not as published: " in section and all(f"| {metric} |" in section for metric in report.headlines(name))
        for model, printed in entry.paper.items():
            assert all(f" {value} |" in section for value in printed.values()) and f"{model} (paper)" in section
    assert (out / "bars.png").stat().st_size > 10_000 and len(list((out / "page").glob("*.png"))) >= 2 * 2 * len(made) - 4

    before = [(out / name).read_bytes() for name in ("answers.jsonl", "table.md", "table.csv")]
    monkeypatch.setattr(P, "encode_prompts", must_not_load)
    call(monkeypatch, *args, "--pages", 0)
    call(monkeypatch, "--benchmark", "all", "--data", tmp_path / "data", "--out", out, "--rescore", "--pages", 0)
    assert [(out / name).read_bytes() for name in ("answers.jsonl", "table.md", "table.csv")] == before
    call(monkeypatch, *args, "--limit", 2, "--pages", 0)  # a part of what is there
    assert "## MindCube-tiny: 2 questions of 1,050 published" in (out / "table.md").read_text()
    assert (out / "answers.jsonl").read_bytes() == before[0]


# ---- 4. Numbers -----------------------------------------------------------------------------------------------------------
def slim(**values):
    return {i: dict(id=i, groups={"answer": "open"}, correct=v, grounding=None, read=True, finished=True, outcome=v) for i, v in values.items()}


def test_mcnemar_by_hand():
    # 5 against 1: 2 * (C(6, 0) + C(6, 1)) / 2^6 = 14 / 64
    assert report.mcnemar([1] * 5 + [0] + [1, 0], [0] * 5 + [1] + [1, 0]) == (14 / 64, 5, 1)
    assert report.mcnemar([1, 0], [1, 0]) == (1, 0, 0)


def test_two_models_are_compared_on_what_both_answered():
    a = slim(x=1., y=1., z=0., only_a=1.)
    b = slim(z=0., y=0., x=1., only_b=0.)
    less, test, n = report.paired("easy-vqa", a, b, seed=0)
    assert n == 3 and less.keys() == {"accuracy"} and math.isclose(less["accuracy"][0], 100 / 3) and test == (1, 1, 0)
    assert report.paired("easy-vqa", slim(x=.5), slim(x=1.), 0)[1] is None  # half right: McNemar does not apply
    measured = [report.measure("easy-vqa", rows, 0) for rows in (a, b)]  # of all that each answered
    assert report.paired("easy-vqa", a, b, 0, measured)[0] == less


def test_differences_are_paired():
    # 1,600 questions; a has 80 more right than b and is otherwise the same: .05 +- 1.96 sqrt(.05 * .95 / 1600) = 5 +- 1.07, unpaired 3.5
    b = slim(**{f"q{i}": float(i < 800) for i in range(1600)})
    a = slim(**{f"q{i}": float(i < 880) for i in reversed(range(1600))})
    value, low, high = report.paired("easy-vqa", a, b, seed=0)[0]["accuracy"]
    assert math.isclose(value, 5) and abs(low - 3.93) < .12 and abs(high - 6.07) < .12


def test_failures_begin_where_models_differ():
    rows_of = {"a": slim(p=1., q=0., r=0., s=1.), "b": slim(p=1., q=0., r=1., s=1.)}
    assert report.failures(rows_of, 9, 0) == ["r", "q"] and report.failures(rows_of, 1, 0) == ["r"]


def test_tables_escape_what_would_break_them_and_say_what_is_missing():
    have = {("a|b", "f", "easy-vqa"): slim(x=1., y=0.), ("c", "f", "easy-vqa"): slim(x=1.)}
    text = report.tables(report.numbers(have, 0), ["a|b", "c"], have, {("easy-vqa", "damaged media", "z"): "z.png"}, 0)
    assert "| a/b |" in text and "a|b" not in text.replace("a|b has not", "") and "c has not answered 1 of them" in text
    assert "1 x damaged media" in text and "| a/b - c" not in text and "| c - a/b | 1 |" in text


def test_the_papers_rows_stand_beside_ours():
    rows = {f"q{i}": dict(id=f"q{i}", groups={"type": t, "task": "Count", "source": s}, correct=c, grounding=None, read=True, finished=True, outcome=c)
            for i, (t, s, c) in enumerate([("2D", "COCO", 1.), ("2D", "ADE20K", 0.), ("2D", "ADE20K", 0.), ("3D", "Omni3D", 1.)])}
    have = {("ours", "f", "cv-bench"): rows}
    found = report.numbers(have, 0)
    lines = report.summary(found, ["ours"])
    assert lines[0] == "| percent [95 % interval] | CV-Bench | CV-Bench 3D |"
    assert "| Argos (paper) | 78.2 | 82.0 |" in lines and "| Qwen2.5-VL-7B (CoT) (paper) | 75.6 | 76.6 |" in lines
    assert lines[-1].startswith("| ours | 75.0 [") and "| 100.0 [100.0, 100.0] |" in lines[-1]  # (mean(1, 0) + 1) / 2
    assert "cv-bench,3D,Argos (paper),,82.0,," in report.as_csv(found, have).splitlines()
