"""Video-R1 and PixMo-Count: files in the published schema, written here, become rows that samples.read_samples takes as they are.

Run: pytest tests/test_prepare.py        (needs pyarrow and ijson)
"""
import hashlib
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from runs.errors import BadInput
from verifier.answers import outcome_score
from verifier.samples import read_samples
from benchmarks import prepare, sources

settings.register_profile("argos", deadline=None, derandomize=True, database=None)
settings.load_profile("argos")

# A row as the data set's card shows it.
CARD = {"problem_id": 2, "problem": "What appears on the screen in Russian during the missile's ascent?", "data_type": "video",
        "problem_type": "multiple choice", "options": ["A. A YouTube subscription notification", "B. A military command",
                                                       "C. A warning message", "D. A weather update"],
        "process": "<think>Let me think about this for a moment.</think>", "solution": "<answer>A</answer>",
        "path": "./LLaVA-Video-178K/liwei/ytb_7nRmsEw7nsE.mp4", "data_source": "LLaVA-Video-178K/30_60_s_youtube_v0_1"}


def picture(number, kind="free-form", answer="a dog", path="./General/a.png", problem="What is it?", **more):
    return {"problem_id": number, "problem": problem, "data_type": "image", "problem_type": kind, "options": [],
            "solution": f"<answer>{answer}</answer>", "path": path, "data_source": "x", **more}


def write_video_r1(folder, cot=(), full=(), touch=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in ((sources.COT, cot), (sources.FULL, full)):
        (folder / name).write_text(json.dumps(list(rows), ensure_ascii=False))
    for row in [*cot, *full] if touch else []:
        (folder / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / row["path"]).write_bytes(b"media")
    return folder


def write_pixmo(folder, rows, layout="struct of lists"):
    """rows: [(label, count, bytes of the picture or None for a dead link)]"""
    (folder / "images/deep").mkdir(parents=True)
    (folder / "data").mkdir()
    hashes = [hashlib.sha256(data or f"dead {i}".encode()).hexdigest() for i, (_, _, data) in enumerate(rows)]
    for i, (_, _, data) in enumerate(rows):
        if data is not None:
            (folder / f"images/deep/any name {i}").write_bytes(data)
    points = [{"x": [float(k) for k in range(n)], "y": [0.] * n} for _, n, _ in rows]
    if layout == "list of structs":
        points = [[{"x": x, "y": 0.} for x in one["x"]] for one in points]
    table = pa.table({"image_url": [f"http://x/{i}" for i in range(len(rows))], "image_sha256": hashes, "points": points,
                      "count": pa.array([n for _, n, _ in rows], pa.int32()), "label": [label for label, _, _ in rows]})
    for shard in range(2):  # row numbers go on across shards
        half = len(rows) // 2
        pq.write_table(table.slice(shard * half, half if shard == 0 else None), folder / f"data/train-0000{shard}-of-00002.parquet")
    pq.write_table(table, folder / "data/test-00000-of-00001.parquet")  # a benchmark: must not be read
    return folder


def read(loader, folder):
    left_out = []
    return list(loader(folder, lambda *why: left_out.append(why))), left_out


def test_the_cards_row(tmp_path):
    (row,), left_out = read(sources.video_r1, write_video_r1(tmp_path, cot=[CARD]))
    assert not left_out and row["id"] == "Video-R1-COT-165k-2" and row["kind"] == "choice" and row["raw"] == CARD["process"]
    assert row["question"] == CARD["problem"] + "\n" + "\n".join(CARD["options"]) and row["source"] == "Video-R1 LLaVA-Video-178K"
    assert row["video"] == str(tmp_path / CARD["path"][2:]) and row["media"] == "Video-R1/LLaVA-Video-178K/liwei/ytb_7nRmsEw7nsE.mp4"
    score = lambda said: outcome_score(said, row["answer"], row["kind"], row["options"])
    assert [score(s) for s in ("A", "a youtube subscription notification", "B", "A or B")] == [1, 1, 0, 0]


@pytest.mark.parametrize("theirs, answer, kind, right, wrong", [
    ("numerical", "12.5", "number", "12.6", "14"), ("OCR", "EXIT ONLY", "ocr", "exit only", "ENTRANCE"),
    ("free-form", "a dog", "free", "A dog.", "a cat"), ("regression", "3.2", "regression", "3.2 m", "99"),
    ("multiple choice", "B", "choice", "(b)", "C")])
def test_problem_types(tmp_path, theirs, answer, kind, right, wrong):
    (row,), left_out = read(sources.video_r1, write_video_r1(tmp_path, full=[picture(1, theirs, answer)]))
    assert not left_out and row["kind"] == kind and row["question"] == "What is it?"
    assert outcome_score(right, row["answer"], kind) == 1 and outcome_score(wrong, row["answer"], kind) == 0


@pytest.mark.parametrize("change, reason", [
    (dict(problem_type="essay"), "unknown problem_type"), (dict(problem_type=None), "unknown problem_type"),
    (dict(data_type="audio"), "data_type is neither image nor video"),
    (dict(solution="B"), "solution is not one <answer>..</answer>"), (dict(solution=7), "solution is not one <answer>..</answer>"),
    (dict(solution="<answer>1</answer> or <answer>2</answer>"), "solution is not one <answer>..</answer>"),
    (dict(solution="<answer> </answer>"), "answer does not fit a free question"),
    (dict(solution="<answer>many</answer>", problem_type="numerical"), "answer does not fit a number question"),
    (dict(solution="<answer>E</answer>", problem_type="multiple choice", options=["A. x", "B. y"]), "answer does not fit a choice question"),
    (dict(problem_type="multiple choice", options=["A. x", 2]), "options are not two or more texts"),
    (dict(problem_type="multiple choice", options="AB"), "options are not two or more texts"),
    (dict(path="./General/gone.png"), "media file missing"), (dict(path="./General/\0"), "media file missing"),
    (dict(path="./" + "x" * 5000), "media file missing"), (dict(path="./General"), "media file missing"),
    (dict(path="../secret.png"), "path missing, or outside the folder"), (dict(path="/etc/passwd"), "path missing, or outside the folder"),
    (dict(path=""), "path missing, or outside the folder"), (dict(problem=" "), "problem or problem_id missing"),
    (dict(problem_id=None), "problem or problem_id missing"), (dict(problem_id=1), "problem_id used before"),
    (dict(problem="What is it?"), "question asked before")])
def test_unusable_rows_are_named_and_the_rest_is_read(tmp_path, change, reason):
    folder = write_video_r1(tmp_path / "data", full=[picture(1), picture(3, problem="And what else?")])
    (tmp_path / "secret.png").write_bytes(b"media")
    rows = json.loads((folder / sources.FULL).read_text())
    rows.insert(1, picture(2, problem="Which one?") | change)
    (folder / sources.FULL).write_text(json.dumps(rows))
    good, left_out = read(sources.video_r1, folder)
    assert [row["id"] for row in good] == ["Video-R1-260k-1", "Video-R1-260k-3"]
    assert [why[:2] for why in left_out] == [(f"Video-R1: {reason}", f"{sources.FULL} row 2")]


def test_rows_that_are_no_objects(tmp_path):
    folder = write_video_r1(tmp_path, full=[picture(1)])
    (folder / sources.FULL).write_text(json.dumps([None, [1], "x", picture(1)]))
    good, left_out = read(sources.video_r1, folder)
    assert len(good) == 1 and [why[0] for why in left_out] == ["Video-R1: not an object"] * 3


def test_placeholders_drawings_and_linked_folders(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder = write_video_r1(tmp_path / "data", full=[picture(1, path="./Chart/a.png", problem="<image>\nHow high?")])
    os.rename(folder / "Chart", tmp_path / "elsewhere/Chart")
    (folder / "Chart").symlink_to(tmp_path / "elsewhere/Chart")  # 309 GB do not always fit on one disk
    (row,), left_out = read(sources.video_r1, folder)
    assert not left_out and row["drawn"] and row["question"] == "How high?" and row["image"] == str(folder / "Chart/a.png")


@pytest.mark.parametrize("text", ['[{"problem_id": 1}, {"prob', "not json", "", '[{"a": 1} {"b": 2}]', b"\xff\xfe\x00"])
def test_a_wrong_json_file_is_one_line(tmp_path, text):
    folder = write_video_r1(tmp_path, full=[picture(1)])
    (folder / sources.FULL).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=r"260k.json: is not a whole JSON list .*; download it again") as error:
        read(sources.video_r1, folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", ["struct of lists", "list of structs"])
def test_pixmo_count(tmp_path, layout):
    rows = [("dogs", 2, b"one"), ("cats", 0, b"two"), ("cows", 1, None), ("hens", 3, b"three"), ("dogs", 2, b"one"), ("eyes", 4, b"one")]
    good, left_out = read(sources.pixmo_count, write_pixmo(tmp_path, rows, layout))
    assert [(r["question"], r["answer"], r["kind"], r.get("grounding", True)) for r in good] == [
        ("How many dogs are there in the image?", "2", "count", True), ("How many cats are there in the image?", "0", "count", False),
        ("How many hens are there in the image?", "3", "count", True), ("How many eyes are there in the image?", "4", "count", True)]
    assert open(good[2]["image"], "rb").read() == b"three" and good[0]["media"] == good[3]["media"] != good[1]["media"]
    assert [why[:2] for why in left_out] == [
        ("PixMo-Count: no picture with this sha256 (a dead or changed link)", "train-00000-of-00002.parquet row 3"),
        ("PixMo-Count: question asked before", "train-00001-of-00002.parquet row 5")]


def test_a_picture_that_changed_is_not_taken(tmp_path):
    folder = write_pixmo(tmp_path, [("dogs", 2, b"one"), ("cats", 1, b"two")])
    (folder / "images/deep/any name 1").write_bytes(b"This image is no longer available")
    good, left_out = read(sources.pixmo_count, folder)
    assert len(good) == 1 and left_out[0][2] == "http://x/1"


def test_count_and_points_must_agree(tmp_path):
    folder = write_pixmo(tmp_path, [("dogs", 2, b"one"), ("cats", 1, b"two")])
    for file in folder.glob("data/train*"):
        table = pq.read_table(file)
        pq.write_table(table.set_column(table.schema.get_field_index("count"), "count", pa.array([2], pa.int32())), file)
    good, left_out = read(sources.pixmo_count, folder)
    assert len(good) == 1 and left_out == [("PixMo-Count: count and points disagree", "train-00001-of-00002.parquet row 2", "2 and 1")]


def test_wrong_pixmo_folders_are_one_line(tmp_path):
    with pytest.raises(BadInput, match="holds no train"):
        read(sources.pixmo_count, tmp_path)
    folder = write_pixmo(tmp_path / "a", [("dogs", 2, b"one"), ("cats", 1, b"two")])
    file = next(folder.glob("data/train-00001*"))
    pq.write_table(pq.read_table(file).drop_columns(["label"]), file)
    with pytest.raises(BadInput, match="train-00001-of-00002.parquet: not a parquet file with the columns image_url.*label"):
        read(sources.pixmo_count, folder)
    file.write_bytes(b"PAR1 cut short")
    with pytest.raises(BadInput, match="download it again"):
        read(sources.pixmo_count, folder)


# ---- Dealing -----------------------------------------------------------------------------------------------------------------
SETS = st.sets(st.sampled_from(prepare.SETS), min_size=1)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), SETS), max_size=40), st.tuples(*[st.integers(0, 9)] * 3), st.integers(0, 5))
def test_no_file_is_in_two_sets(questions, sizes, seed):
    sizes = dict(zip(prepare.SETS, sizes))
    dealt = prepare.deal(questions, sizes, seed)
    files = {name: {questions[i][0] for i in chosen} for name, chosen in dealt.items()}
    assert sum(map(len, files.values())) == len(set().union(*files.values()))
    for name, chosen in dealt.items():
        assert len(set(chosen)) == len(chosen) <= sizes[name] and all(name in questions[i][1] for i in chosen)
    spare = {m for m, sets in questions if any(sizes[s] > len(dealt[s]) for s in sets)}  # no set goes hungry beside unused files
    assert spare <= set().union(*files.values())


def test_tickets_are_drawn_by_seed_and_name_alone():
    questions = [(f"file {i}", {"curate"}) for i in range(1000)]
    named = lambda qs, seed, n: [qs[i][0] for i in prepare.deal(qs, {"curate": n}, seed)["curate"]]
    assert named(questions, 0, 50) == named(questions[::-1], 0, 50) == named(questions, 0, 200)[:50]  # a prefix is a smaller sample
    assert len(set(named(questions, 0, 500)) & set(named(questions, 1, 500))) in range(200, 300)      # 250 by chance, sd 11
    first = [int(name.split()[1]) < 500 for name in named(questions, 0, 500)]
    assert 200 < sum(first) < 300


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, flags)])
    prepare.main()


def test_from_folders_to_samples(tmp_path, monkeypatch, capsys):
    ask = lambda n, k: picture(n, path=f"./General/{k}.png", problem=f"Question {n}?")
    cot = [ask(n, n % 20) | {"process": f"<think>{n}</think>"} for n in range(40)] + [CARD | {"problem_id": 999}]
    full = [ask(100 + n, n) | {"problem": f"Question {n}?"} for n in range(20)] + [ask(n, n) for n in range(50, 70)]
    video_r1 = write_video_r1(tmp_path / "video_r1", cot, full)
    (video_r1 / "General/69.png").unlink()
    pixmo = write_pixmo(tmp_path / "pixmo", [(f"kind {i}", i % 4, f"picture {i // 2}".encode()) for i in range(20)])
    out = tmp_path / "link" / "data"
    (tmp_path / "real/deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/deep/er")
    flags = ["--video_r1", video_r1, "--pixmo", pixmo, "--out", out, "--rl", 10, "--val", 6]
    run(monkeypatch, *flags)
    sets = {name: read_samples(out / f"{name}.jsonl") for name in prepare.SETS}  # every file is found, every answer fits
    assert len(sets["val"]) == 6 and len(sets["rl"]) == 10
    files = {name: {os.path.realpath(s.path) for s in samples} for name, samples in sets.items()}
    assert not files["val"] & files["rl"] and not files["val"] & files["curate"] and not files["rl"] & files["curate"]
    asked = [s.question for s in [*sets["rl"], *sets["val"], *sets["curate"]]]
    assert len(set(asked)) == len(asked)  # what stands in both files of Video-R1 was asked once
    about = [(os.path.realpath(video_r1 / row["path"]), row["problem"]) for row in cot + full[:-1]]
    left = {question for path, question in about if path not in files["val"] | files["rl"]}
    assert {s.question.split("\n")[0] for s in sets["curate"] if s.source != "PixMo-Count"} == left  # all the rest, and nothing else
    assert sum(s.source == "PixMo-Count" for s in sets["curate"]) == 20
    full_questions = {row["problem"] for row in full}
    assert {s.question for s in sets["rl"]} <= full_questions and {s.id[:12] for s in sets["val"]} == {"Video-R1-COT"}
    rows = [json.loads(line) for line in open(out / "curate.jsonl")]
    assert {row["raw"] for row in rows if row["question"] == "Question 7?"} <= {"<think>7</think>"}
    assert sum("raw" in row for row in rows) > 5 and not any("raw" in line for name in ("rl", "val") for line in open(out / f"{name}.jsonl"))
    assert {row["source"] for row in rows} >= {"PixMo-Count", "Video-R1 General"}

    table = json.loads((out / "prepare.json").read_text())
    assert table["left out"] == {"Video-R1: media file missing": 1} and table["curate"]["samples"] == len(rows)
    unusable = [json.loads(line) for line in open(out / "unusable.jsonl")]
    assert unusable == [{"where": "Video-R1-260k.json row 40", "reason": "Video-R1: media file missing", "detail": "./General/69.png"}]
    assert f"curate.jsonl: {len(rows)} of the 85000 asked for" in capsys.readouterr().err

    before = {name: (out / f"{name}.jsonl").read_bytes() for name in prepare.SETS}
    run(monkeypatch, *flags, "--sft", 20)
    assert (out / "rl.jsonl").read_bytes() == before["rl"] and before["curate"].startswith((out / "curate.jsonl").read_bytes())
    run(monkeypatch, *flags, "--sft", 20, "--seed", 1)
    assert (out / "rl.jsonl").read_bytes() != before["rl"]
    assert sorted(p.name for p in out.iterdir()) == ["curate.jsonl", "prepare.json", "rl.jsonl", "unusable.jsonl", "val.jsonl"]


def test_pixmo_alone_serves_all_sets(tmp_path, monkeypatch):
    pixmo = write_pixmo(tmp_path / "pixmo", [(f"kind {i}", 1, f"picture {i}".encode()) for i in range(9)])
    run(monkeypatch, "--pixmo", pixmo, "--out", tmp_path / "out", "--val", 2, "--rl", 3)
    assert [len(read_samples(tmp_path / f"out/{name}.jsonl")) for name in prepare.SETS] == [2, 3, 4]


def test_mistakes_are_one_line(tmp_path, monkeypatch):
    for flags, said in ([], "give --video_r1 DIR"), (["--pixmo", "x", "--rl", -1], "give --video_r1 DIR"), (
            ["--video_r1", tmp_path], "holds neither"), (["--pixmo", tmp_path], "holds no train"), (
            ["--video_r1", tmp_path / "none"], "--video_r1 .*none: there is no such folder"), (
            ["--video_r1", write_video_r1(tmp_path / "w", cot=[CARD]), "--pixmo", tmp_path / "none"], "--pixmo .*none: there is no such"), (
            ["--video_r1", write_video_r1(tmp_path / "v", cot=[CARD]), "--val", 0], "no question is left for rl.jsonl .*--rl 0"):
        with pytest.raises(BadInput, match=said):
            run(monkeypatch, *flags, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").glob("[crv]*.jsonl"))
