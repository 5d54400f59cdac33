"""Benchmarks: loaders on files in the published schema, answer extraction on a table of hard cases, averages worked out by hand.

Run: pytest tests/test_benchmarks.py        (needs pyarrow and ijson)
"""
import json
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from runs.errors import BadInput
from verifier.answers import number, outcome_score
import benchmark_fixtures as fixtures
from benchmarks import score, tasks
from benchmarks.tasks import Item

settings.register_profile("argos", deadline=None, derandomize=True, database=None)
settings.load_profile("argos")


def read(name, folder, pictures=True):
    """-> (Items, reports)."""
    said = []
    return list(tasks.items(name, folder, lambda *why: said.append(why), pictures)), said


def reasons(said):
    return sorted(reason.partition(": ")[2] for reason, *_ in said if "wrong count" not in reason)


# ---- 1. The entries -----------------------------------------------------------------------------------------------------------
def test_the_papers_numbers_are_the_papers():
    """Tables 1 and 2, retyped here row by row: the entries hold them column by column."""
    columns = [("blink", "accuracy"), ("mindcube", "accuracy"), ("cv-bench", "accuracy"), ("cv-bench", "3D"), ("countercurate", "accuracy"),
               ("hallusionbench", "average"), ("sugarcrepe", "micro")]
    table = {"Qwen2.5-VL-7B": (54.4, 34.9, 77.0, 77.9, 61.4, 42.4, 85.2), "Qwen2.5-VL-7B (CoT)": (53.5, 33.1, 75.6, 76.6, 60.4, 38.6, 83.2),
             "Video-R1 (SFT)": (52.7, 34.2, 75.1, 75.6, 60.6, 40.1, 83.3), "Video-R1 (RL)": (49.0, 31.9, 60.2, 57.2, 63.6, 25.8, 79.9),
             "Argos": (56.0, 39.6, 78.2, 82.0, 85.3, 46.6, 86.4)}
    for model, row in table.items():
        assert tuple(tasks.BENCHMARKS[name].paper[model][metric] for name, metric in columns) == row


@pytest.mark.parametrize("name, count", [("blink", 1901), ("mindcube", 1050), ("cv-bench", 2638), ("hallusionbench", 1129),
                                         ("sugarcrepe", 2 * 7511), ("pixmo-count", 1080), ("easy-vqa", 9673), ("countercurate", None)])
def test_expected_counts(name, count):
    assert tasks.BENCHMARKS[name].count == count


# ---- 2. The loaders -----------------------------------------------------------------------------------------------------------
LEFT_OUT = {
    "blink": ["id used before", "picture cannot be decoded", "picture missing", "the truth is no option (a hidden answer?)"],
    "mindcube": ["not JSON", *["picture missing, or outside the folder"] * 3, "the truth is no option (a hidden answer?)"],
    "cv-bench": ["picture missing"],
    "countercurate": ["picture missing, or outside the folder"] * 2,
    "hallusionbench": ["picture missing, or outside the folder"],
    "sugarcrepe": ["id used before", "picture missing, or outside the folder"],
    "pixmo-count": ["field missing"] + ["no picture with this sha256 (a dead or changed link)"] * 2,
    "video-r1": ["not a usable row"] * 2,
    "easy-vqa": ["picture missing, or outside the folder"],
}


@pytest.mark.parametrize("name", tasks.BENCHMARKS)
def test_every_trap_is_reported_and_nothing_else(name, tmp_path):
    count = fixtures.WRITERS[name](tmp_path)
    items, said = read(name, tmp_path)
    assert len(items) == count and reasons(said) == LEFT_OUT[name]
    assert len({item.id for item in items}) == count
    for item in items:
        assert item.scorer in score.SCORERS and item.question.strip() and item.answer
        for kind, source in item.media:
            assert kind in ("image", "video") and (isinstance(source, bytes) or tmp_path in source.parents and source.is_file())
        right = score.extract(f"<answer>{item.answer}</answer>", item)
        assert score.correct(right, item) == 1, "the truth itself must score"


@pytest.mark.parametrize("name", tasks.BENCHMARKS)
def test_wrong_counts_are_reported_for_each_part(name, tmp_path):
    fixtures.WRITERS[name](tmp_path)
    items, said = read(name, tmp_path)
    entry = tasks.BENCHMARKS[name]
    wrong = {where: detail for reason, where, detail in said if reason.endswith("wrong count")}
    assert set(wrong) == {part or "all" for part, n in entry.counts.items() if n is not None}  # the fixtures are all too small
    for part in wrong:
        there = sum(item.groups.get(entry.part, "") == part for item in items) if part != "all" else len(items)
        assert wrong[part].startswith(f"{there} usable")


def test_the_published_count_is_not_reported(tmp_path, monkeypatch):
    fixtures.write_cv_bench(tmp_path)
    entry = tasks.BENCHMARKS["cv-bench"]
    monkeypatch.setitem(entry.counts, "2D", 3)
    monkeypatch.setitem(entry.counts, "3D", 2)
    assert [reason for reason, *_ in read("cv-bench", tmp_path)[1]] == ["CV-Bench: picture missing"]


def test_loading_is_lazy(tmp_path):
    """The first question comes before a damaged second file is opened, and pictures=False reads no picture column."""
    fixtures.write_cv_bench(tmp_path)
    (tmp_path / "test_3d.parquet").write_bytes(b"PAR1 damaged")
    items = tasks.items("cv-bench", tmp_path, lambda *why: None)
    assert next(items).id == "2D-0"
    with pytest.raises(BadInput, match="test_3d.parquet: not a whole parquet file"):
        list(items)
    without, said = [], []
    with pytest.raises(BadInput):
        for item in tasks.items("cv-bench", tmp_path, lambda *why: said.append(why), pictures=False):
            without.append(item)
    assert len(without) == 4 and not said and not any(item.media for item in without)  # the null picture was not looked at


def test_schema_metadata_of_newer_datasets_is_not_looked_at(tmp_path):
    fixtures.write_cv_bench(tmp_path)
    import pyarrow.parquet as pq
    assert b"huggingface" in pq.read_schema(tmp_path / "test_2d.parquet").metadata
    assert read("cv-bench", tmp_path)[0]


def test_cv_bench_as_it_was_first_published(tmp_path):
    """One file, test.parquet, before it was split into test_2d and test_3d."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    count = fixtures.write_cv_bench(tmp_path)
    halves = [tmp_path / "test_2d.parquet", tmp_path / "test_3d.parquet"]
    pq.write_table(pa.concat_tables([pq.read_table(half) for half in halves]), tmp_path / "test.parquet")
    for half in halves:
        half.unlink()
    items, said = read("cv-bench", tmp_path)
    assert len(items) == count and reasons(said) == LEFT_OUT["cv-bench"] and {i.groups["type"] for i in items} == {"2D", "3D"}


def test_blink_shards_names_and_several_pictures(tmp_path):
    fixtures.write_blink(tmp_path)
    items, _ = read("blink", tmp_path)
    assert [i.id for i in items if i.groups["task"] == "Counting"] == [f"val_Counting_{n}" for n in range(1, 5)]  # both shards
    multi, = (i for i in items if i.id == "val_Multi-view_Reasoning_1")
    assert multi.groups == {"task": "Multi-view_Reasoning"} and len(multi.media) == 2 and multi.answer == "A"
    assert len(next(i for i in items if i.groups["task"] == "Jigsaw").media) == 3
    assert "Select from the following choices.\n(A) 0" in items[0].question  # the shipped prompt, as it is
    assert items[0].media[0][1] == fixtures.png()


def test_mindcube_settings_options_and_order_of_pictures(tmp_path):
    fixtures.write_mindcube(tmp_path)
    items, _ = read("mindcube", tmp_path)
    assert [i.groups["setting"] for i in items] == ["among", "around", "around", "rotation", "among"]  # "aroundnew", "Around"
    assert items[0].options == ["Directly left", "Diagonally forward and right", "Diagonally forward and left", "Directly right"]
    assert items[-1].options[-1] == "Above" and items[-1].answer == "E"
    assert [path.name for _, path in items[0].media] == ["front.jpg", "left.jpg"]
    assert "Answer Instruction" not in items[0].question and items[0].question.endswith("D. Directly right")
    for inside in ("data/raw", "raw", "."):  # three layouts that people have
        (tmp_path / "b" / inside).mkdir(parents=True, exist_ok=True)
    (tmp_path / "b/MindCube_tinybench.jsonl").write_text((tmp_path / "data/raw/MindCube_tinybench.jsonl").read_text())
    (tmp_path / "data/other_all_image").rename(tmp_path / "b/other_all_image")
    assert len(read("mindcube", tmp_path / "b")[0]) == 5


@pytest.mark.parametrize("question, options", [
    ("From view 1? A. Above B. Under C. Front D. Behind", ["Above", "Under", "Front", "Behind"]),
    ("What did Dr. A. Smith see? A. A dog B. A cat", ["A dog", "A cat"]),  # letters count up from the last A.
    ("Where is it?", None), ("Is it A. or", None)])
def test_options_inside_a_question(question, options):
    assert tasks.listed_options(question) == options


def test_countercurate_paths_and_instruction(tmp_path):
    fixtures.write_countercurate(tmp_path)
    items, _ = read("countercurate", tmp_path)
    assert [i.groups["task"] for i in items] == ["left/right", "left/right", "up/down"]
    assert items[0].media[0][1] == tmp_path / "train_data/left_right/pos/10.jpg"
    assert "<image>" not in items[0].question and tasks.LETTER_ONLY not in items[0].question
    assert items[0].direct == f"{items[0].question}\n{tasks.LETTER_ONLY}"  # the shipped row, without <image>
    assert items[0].options == ["A dog is to the left of a man.", "A dog is to the right of a man."]


@pytest.mark.parametrize("inside", [".", "train_data", "llava_sample_data/train_data"])
def test_countercurates_pictures_are_found_where_the_archive_was_unpacked(inside, tmp_path):
    fixtures.write_countercurate(tmp_path)
    (tmp_path / "train_data").rename(tmp_path / "unpacked")
    (tmp_path / inside).mkdir(exist_ok=True)
    for folder in (tmp_path / "unpacked").iterdir():
        folder.rename(tmp_path / inside / folder.name)
    assert [i.media[0][1].relative_to((tmp_path / inside).resolve()).as_posix() for i in read("countercurate", tmp_path)[0]] == [
        "left_right/pos/10.jpg", "left_right/neg/10_0.png", "up_down/pos/10.jpg"]


@pytest.mark.parametrize("inside", ["data/coco/images/val2017", "data/coco/val2017", "coco/val2017", "val2017", "images", "."])
def test_sugarcrepes_pictures_are_found_where_its_readme_puts_them(inside, tmp_path):
    fixtures.write_sugarcrepe(tmp_path)
    picture = tmp_path / inside / "000000000001.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "val2017/000000000001.jpg").rename(picture)
    items, _ = read("sugarcrepe", tmp_path)
    assert len(items) == 6 and all(path == picture.resolve() for item in items for _, path in item.media)
    if inside.startswith("data/"):  # the folder data of the repository, alone
        assert len(read("sugarcrepe", tmp_path / "data")[0]) == 6


def test_prompts_are_the_authors_own(tmp_path):
    """Whole prompts for a direct answer, retyped here from the authors' code: BLINK's test_benchmark.py (load_prompt), MindCube's
    templates.py (raw_qa), cambrian's eval/eval/ade/ade_eval.py, CounterCurate's shipped rows, SugarCrepe's gpt-4v-results/readme.md."""
    fixtures.write_all(tmp_path)
    of = {name: read(name, tmp_path / name)[0] for name in ("blink", "mindcube", "cv-bench", "countercurate", "sugarcrepe", "hallusionbench")}
    assert of["mindcube"][0].direct == """[Task]
Your task is to analyze the spatial arrangement of objects in the scene by examining the provided images, which show the scene from different viewpoints.
[Answer Instruction]
You only need to provide *ONE* correct answer selecting from the options listed below. For example, if you think the correct answer is 'A. Above' from 'A. Above B. Under C. Front D. Behind', your response should **only** be '<answer>A. Above</answer>'.

[Question]
Based on these two views of the scene: where is the bag from view 1? A. Directly left B. Diagonally forward and right C. Diagonally forward and left D. Directly right"""
    assert of["cv-bench"][0].direct == ("How many? Select from the following choices.\n(A) 3\n(B) 2\n(C) 1\n(D) 0\n"
                                        "Answer with the option's letter from the given choices directly.")
    assert of["countercurate"][0].direct == (
        "Which of the following captions best describes the image?\nA. A dog is to the left of a man.\nB. A dog is to the right of a man.\n"
        "Answer with the option's letter from the given choices directly.")
    assert of["sugarcrepe"][0].direct == ("Which caption best describes the image?\n(1) A cat sits on a mat.\n (2) A mat sits on a cat.\n"
                                          "Output (1) or (2).")
    disclaimed = {item.groups["task"] for item in of["blink"] if item.question.startswith(
        "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give your assessment on "
        "this question. You don't need to identify the real people. You just need to analyze based on the information I gave you.\n\nWhich?")}
    assert disclaimed == {"Jigsaw"} and tasks.BLINK_DISCLAIMED == ("Forensic_Detection", "Jigsaw", "Art_Style")
    assert of["blink"][0].question.startswith("Which?") and not any(i.direct for i in of["blink"] + of["hallusionbench"])  # none is published


def test_hallusionbench_json_and_parquet_are_the_same(tmp_path):
    fixtures.write_hallusionbench(tmp_path / "json")
    fixtures.write_hallusionbench_parquet(tmp_path / "parquet")
    (one, _), (other, said) = read("hallusionbench", tmp_path / "json"), read("hallusionbench", tmp_path / "parquet")
    strip = lambda items: sorted((i.id, i.question, i.answer, str(i.groups), i.scorer, len(i.media)) for i in items)
    assert strip(one) == strip(other) and not reasons(said)
    textual = [i for i in one if not i.media]
    assert [i.id for i in textual] == ["VS/chart/1/0/0"] and textual[0].scorer == "yesno or unclear" and "figure" not in textual[0].groups


def test_sugarcrepe_asks_both_orders(tmp_path):
    fixtures.write_sugarcrepe(tmp_path)
    first, second = [i for i in read("sugarcrepe", tmp_path)[0] if i.groups["pair"] == "swap_obj/10"]
    assert (first.answer, second.answer) == ("1", "2") and first.options == second.options[::-1]
    assert first.question == "Which caption best describes the image?\n(1) A cat sits on a mat.\n (2) A mat sits on a cat."


def test_pixmo_pictures_are_known_by_their_hash(tmp_path):
    fixtures.write_pixmo_count(tmp_path)
    items, _ = read("pixmo-count", tmp_path)
    assert {(i.groups["split"], i.answer, i.media[0][1].name) for i in items} == {
        ("test", "2", "any name 0"), ("test", "3", "any name 1"), ("validation", "2", "any name 0")}
    assert len(read("pixmo-count", tmp_path, pictures=False)[0]) == 5  # nothing is hashed for counting


@pytest.mark.parametrize("published", [False, True])
def test_video_r1_items_are_samples_too(published, tmp_path):
    fixtures.write_video_r1(tmp_path, published)
    items, said = read("video-r1", tmp_path)
    assert len(items) == 5 and len(said) == 2
    assert {i.scorer for i in items} == {"choice", "number", "ocr", "free", "regression"} and items[0].answer == "B"
    for item in items:  # figure 4: the verifier takes them
        sample = tasks.as_sample(item)
        assert sample.kind == item.scorer and Path(sample.path).is_file() and sample.media == "image" and sample.grounding
        assert outcome_score(item.answer, sample.answer, sample.kind, sample.options) == 1
    assert score.correct(score.extract("<answer>3</answer>", items[-1]), items[-1]) == pytest.approx(1 - .2 / 3.2)  # a share


def test_easy_vqa_comes_from_the_package_when_there_is_no_folder(tmp_path):
    items = tasks.items("easy-vqa", tmp_path / "none", print)
    first = next(items)
    assert first.media[0][1].is_file() and first.scorer in ("yesno", "phrase")


@pytest.mark.parametrize("name", [n for n in tasks.BENCHMARKS if n != "easy-vqa"])
def test_a_missing_folder_is_one_line_that_says_where_to_get_it(name, tmp_path):
    entry = tasks.BENCHMARKS[name]
    with pytest.raises(BadInput, match=re.escape(entry.where)) as error:
        next(tasks.items(name, tmp_path / "none", print))
    assert "\n" not in str(error.value) and f"{tmp_path / 'none'}: is no folder. Download {entry.where} to it." in str(error.value)
    with pytest.raises(BadInput, match="holds no") as error:
        next(tasks.items(name, tmp_path, print))
    assert all(str(tmp_path / inside) in str(error.value) for inside in entry.inside) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", tasks.BENCHMARKS)
def test_hints_are_whole_sentences(name, tmp_path):
    """They begin with a capital and end with a full stop, so does what is put around them."""
    entry = tasks.BENCHMARKS[name]
    told = [entry.hint, entry.judge, tasks.nothing_there(entry, tmp_path), tasks.nothing_there(entry, tmp_path / "none"),
            tasks.why_left_out(entry, tmp_path, {tasks.NO_PICTURE: [("row 1", "a.jpg")]})]
    for text in told:
        said = text.removeprefix(f"{tmp_path}: ").removeprefix(f"{tmp_path / 'none'}: ")
        assert "  " not in text and "\n" not in text and (not said or said.endswith((".", ".)")))
        assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in re.split(r"(?<=[.]) ", text)[1:])


def test_what_was_left_out_is_told_with_its_commonest_reason_and_the_folders_tried(tmp_path):
    entry = tasks.BENCHMARKS["sugarcrepe"]
    told = tasks.why_left_out(entry, tmp_path, {"id used before": [("a row 1", "1")], tasks.NO_PICTURE: [("a row 2", "9.jpg"), ("a row 3", "8.jpg")]})
    assert told.startswith("Rows left out: 3. 2 x picture missing, or outside the folder (a row 2: 9.jpg). Looked in ")
    assert all(str(tmp_path / root) in told for root in entry.roots) and told.endswith(entry.hint)
    assert tasks.why_left_out(entry, tmp_path, {"not JSON": [("a row 7", "")]}) == "Rows left out: 1. 1 x not JSON (a row 7)."


def test_unknown_names_and_damaged_files(tmp_path):
    with pytest.raises(BadInput, match="no benchmark 'mmlu'"):
        next(tasks.items("mmlu", tmp_path, print))
    fixtures.write_hallusionbench(tmp_path)
    (tmp_path / "HallusionBench.json").write_text('[{"category": "VD"')
    with pytest.raises(BadInput, match="not a whole JSON list"):
        read("hallusionbench", tmp_path)
    fixtures.write_sugarcrepe(tmp_path)
    (tmp_path / "data/swap_obj.json").write_text('{"0": {"filename": 3')
    with pytest.raises(BadInput, match="not a whole JSON dictionary"):
        read("sugarcrepe", tmp_path)
    import pyarrow as pa
    import pyarrow.parquet as pq
    pq.write_table(pa.table({"idx": [1]}), tmp_path / "test_2d.parquet")
    with pytest.raises(BadInput, match="has no column type"):
        read("cv-bench", tmp_path)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["id", "question", "images", "gt_answer", "image", "conversations", "value"]),
                                      inner), max_leaves=12)


@settings(max_examples=25)
@given(rows=st.lists(JSON, max_size=5))
@example(rows=[{"id": "a", "question": "\ud800", "images": ["x"], "gt_answer": "A"}])
@example(rows=[{"id": "a", "question": "q", "images": ["\0", "x" * 9999], "gt_answer": "A", "image": "a",
                "conversations": [{"value": "q"}] * 2}])
def test_any_rows_are_reported_and_never_raise(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    (folder / "MindCube_tinybench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test_left_right_.json").write_text(json.dumps(rows))
    (folder / "questions.json").write_text(json.dumps(rows))
    (folder / "test").mkdir()
    (folder / "test/questions.json").write_text(json.dumps(rows))
    for name in ("mindcube", "countercurate", "easy-vqa"):
        items, said = read(name, folder)
        assert not items and len(said) >= len(rows)


# ---- 3. Extraction ------------------------------------------------------------------------------------------------------------
def ask(scorer="choice", options=("red", "blue", "green", "dark red"), answer="B"):
    return Item("x", "q", answer, [], list(options) if options else None, {}, scorer)


COLORS, LETTERS = ask(), ask(options=None)
COUNTS, JIGSAW = ask(options=("3", "2", "1", "0")), ask(options=("the second image", "the third image"))
CLOSER, POINTS = ask(options=("A is closer", "B is closer")), ask(options=("Point A", "Point B", "Point C", "Point D"))
SIDES, PICTURES = ask(options=("left", "right")), ask(options=("picture A", "picture B", "picture C", "picture D"))
YESNO_OPTIONS, CAPTIONS = ask(options=("yes", "no"), answer="A"), ask(options=("A man bites a dog.", "A dog bites a man."), answer="1")
CUBE = ask(options=("Directly left", "Diagonally forward and right", "Diagonally forward and left", "Directly right"))
PHOTOS, BOXES = ask(options=("the first image", "the second image", "the third image", "the fourth image")), ask(options=("Box A", "Box B"))
DARKER, THINGS = ask(options=("A is darker", "B is darker", "About the same")), ask(options=("chair", "table"))
THINGS.question = "Which object is closer to the camera, the chair or the table?"
YESNO, COUNT, NUMBER, PHRASE = ask("yesno", None, "yes"), ask("count", None, "3"), ask("number", None, "2.5 minutes"), ask("phrase", None,
    "circle")

HARD = [  # (question, response, what it answers, why it is hard)
    *[(COLORS, said, "B", "a letter, however it is dressed") for said in
      ("B", "b", "(B)", "(b)", "B.", "B)", "[B]", "**B**", "\\boxed{B}", "$\\boxed{\\text{B}}$", "$B$", '"B"', "Ｂ", "（Ｂ）", " B \n",
       "Option B", "B. blue",
       "(B) blue", "**(B) blue**", "\\boxed{B. blue}", "- (B) blue")],
    *[(COLORS, said, "B", "the option's text") for said in ("blue", "Blue.", "BLUE", "The mug is blue.", "the blue")],
    (COLORS, "dark red", "D", "one option's text is part of another's"),
    (COLORS, "The mug is dark red.", "D", "the same in a sentence: not red"),
    *[(COLORS, said, "B", "a statement") for said in
      ("The answer is B", "The answer is (b).", "Answer: b", "Answer b", "Answer B", "answer = B", "Final answer: B",
       "The correct option is:\n\n(B) blue",
       "the correct answer is therefore **(B) blue**", "The best answer is option B.", "I would choose B.", "Therefore, B.",
       '{"answer": "B"}',
       "B is the correct answer, not A.", "Option B matches best.", "The answer to the question of its color is B.")],
    (COLORS, "The answer is A. Wait, no: the answer is B.", "B", "the last statement counts"),
    (COLORS, "A is too far away, so the answer is B.", "B", "another letter comes first"),
    (COLORS, "A. red was my first thought.\nThe answer is B.", "B", "a statement outranks what the first line begins with"),
    (COLORS, "The answer is B, since A and C are red.", "B", "other letters come last"),
    (COLORS, "B\n\nOption A is wrong because it is red.", "B", "answered first, explained later"),
    (COLORS, "B. blue\nA. is not it", "B", "the first line answers"),
    (COLORS, "A and C are too far. B is correct.", "B", "praise after the letter"),
    (COLORS, "It is not A but C.", "C", "a denial ends at but"),
    (COLORS, "The mug isn't red. It is blue.", "B", "a text that is denied"),
    (COLORS, "The mug is blue, not red.", "B", "a text that is denied afterwards"),
    (COLORS, "The mug could be red, but the answer I choose is blue.", "B", "words between answer and is"),
    (CUBE, "Turning left, the bag is directly left of me. Wait: it is directly right.", "D", "a change of mind without a statement"),
    (COLORS, "It's option c.", "C", "a small letter after option"),
    (COLORS, "The correct answer is neither A nor B.", None, "two denied, nothing said"),
    (COLORS, "A is incorrect. C is incorrect. Thus B.", "B", "what is left after the denials"),
    (COLORS, "It is not B.", None, "a denial is no answer"),
    (COLORS, "The answer is not B.", None, "a denied statement is none"),
    *[(COLORS, said, None, "two answers are none") for said in
      ("A or B", "A, B", "The answer is A or B", "The answer is either A or B.", "Either (A) or (C).", "It is red or blue.", "A/B",
       "<answer>A</answer><answer>B</answer>")],
    (COLORS, "<answer>B</answer><answer>blue</answer>", "B", "the same answer twice is one"),
    (COLORS, "B. green", None, "letter and text contradict each other"),
    (COLORS, "E", None, "no such option"),
    (COLORS, "A. red\nB. blue\nC. green\nD. dark red", None, "the options repeated answer nothing"),
    (COLORS, "A. red\nB. blue\nC. green\nD. dark red\nThe answer is C.", "C", "the options repeated, then answered"),
    (COLORS, "Let me see.\nA. red: no.\nB. blue: fits.\nSo B.", "B", "the options discussed, then answered"),
    (COLORS, "A cat sits on a mat.", None, "A is an article"),
    (COLORS, "The answer is a blue mug", "B", "a is an article, the text follows"),
    (COLORS, "The answer is A blue one", "B", "A is an article even in capitals"),
    (COLORS, "The answer is A because it is red", "A", "A is a letter before because"),
    (COLORS, "I would choose A.", "A", "A is a letter at the end"),
    (COLORS, "a", "A", "nothing but a is the letter"),
    *[(COLORS, said, None, "a refusal") for said in
      ("", " \n", "I'm sorry, I can't help with that.", "I cannot determine the color from the image.", "None of the above.",
       "I can't tell whether it is A or B.",
       "As an AI, I am unable to see images.")],
    (COLORS, "<think>A? no, C?</think><answer>B</answer>", "B", "the answer's tags, not the reasoning"),
    (COLORS, "A? no, C?</think><answer>B</answer>", "B", "the prompt had opened the reasoning"),
    (COLORS, "<think>It may be A.</think>\nB", "B", "what follows the reasoning, without tags"),
    (COLORS, "<think>The answer is A", None, "reasoning cut off never came to an answer"),
    (COLORS, "<think>I see it. <answer>B</answer>", "B", "the reasoning was not closed, the answer was"),
    (COLORS, "<answer>B", "B", "the answer's tag was not closed"),
    (COLORS, "<ANSWER>b</ANSWER>", "B", "tags in capitals"),
    (COLORS, "<answer></answer>", None, "an empty answer"),
    (COUNTS, "(D) 0\n\nThere is one blue float visible.", "D", "GPT-4o on BLINK: a later line names another option's number"),
    (COUNTS, "The number of tiles above the sink is (A) 3.", "A", "GPT-4o on BLINK: letter in the middle"),
    (COUNTS, 'The letters are "A", "V" and "E". Therefore, the correct answer is:\n\n(D) 0', "D",
     "GPT-4o on BLINK: letters that are no options"),
    (COUNTS, "There are three tiles.", "A", "a number in words is an option's text"),
    (COUNTS, "1", "C", "the number, not the first option"),
    (COUNTS, "The answer is 2", "B", "stated as a number"),
    (COUNTS, "I count 1 tile on the left and 2 on the right, giving a total of 3.", "A", "numbers that are no answer before the total"),
    (COUNTS, "I see 1 tile on the left. I see 2 tiles on the right. That makes 3 in total.", "A", "the same in sentences"),
    (COUNTS, "Let me count: one at the top, two at the bottom. So there are three.", "A", "a count that only begins"),
    (COUNTS, "2 + 1 = 3", "A", "a sum"),
    (COUNTS, "A or B? I think B.", "B", "a question is no hedge"),
    (JIGSAW, "By the edges, the second image (B) is the more appropriate choice to place in the missing spot.\n\n"
     "So, the answer is:\n\n**(A) the second image**", "A",
     "GPT-4o on BLINK: calls the pictures by letters of its own, then answers; GPT-3.5 read some of these as B"),
    (JIGSAW, "The second image (B) fits worse.\nTherefore, the third image (C) is the missing part of the first image.", "B",
     "GPT-4o on BLINK: C is no option, the text decides"),
    (JIGSAW, "(C) the third image", "B", "C is no option, the text decides"),
    (CLOSER, "A is closer", "A", "option texts that begin with letters"),
    (CLOSER, "Point A is farther. Point B is closer to the camera.", "B", "the same in sentences"),
    (CLOSER, "Point A is closer to the camera than point B.", "A", "an option's text that holds its letter outranks a letter alone"),
    (POINTS, "The point on the left corresponds to point C.", "C", "A in Point A is no article, and point alone is no option"),
    (POINTS, "It is the point marked D.", "D", "the same"),
    (SIDES, "The camera is moving to the right (clockwise).\n\nIn the first image, the bottle is in front. "
     "In the second, it has moved to the left side of the boxes, "
     "indicating that the camera has moved to the right.", "B", "GPT-4o on BLINK: the opening sentence answers"),
    (SIDES, "The camera is moving to the right (option B). This is evident because the objects shift to the left.", "B",
     "a letter outranks a text"),
    (SIDES, "The camera moves to the right. This is evident because the objects shift to the left.", "B",
     "evidence that names the other side"),
    (PICTURES, "- Option A: top left.\n- Option B: bottom.\n- Option C: top right.\n- Option D: none.\n\n"
     "Therefore, the correct choice is:\n(C) picture C", "C",
     "GPT-4o on BLINK: all options discussed"),
    (PICTURES, "Options A, B, and C all fit. However, since we need to choose one, let's select:\n\n(C) picture C", "C", "GPT-4o on BLINK"),
    (YESNO_OPTIONS, "No, the cat is on the mat.", "B", "options yes and no"),
    (YESNO_OPTIONS, "Yes, there is no doubt: the cup is left.", "A", "no as an article of denial"),
    (CUBE, "A. The first view shows the bag. Then I turn. <answer>C</answer>", "C", "MindCube's rule would take the last '[A-E].'"),
    (CUBE, "<think>x</think><answer>C</answer>\nA. done", "C", "and here, too"),
    (CUBE, "<answer>B. Diagonally forward and right</answer>", "B", "the form that MindCube asks for"),
    (CUBE, "My answer is D", "D", "a phrase of MindCube's list"),
    (CUBE, "diagonally forward and left", "C", "texts that begin alike"),
    *[(item, said, answer, "a verdict in the first sentence beats a later mention") for item, said, answer in (
        (JIGSAW, "The second image is most similar. It has the same dog, while the third image shows a cat.", "A"),
        (JIGSAW, "The second image shares the style of the first. The third image is a pop art piece.", "A"),
        (BOXES, "Box A more accurately encloses the dog, while Box B cuts off its tail.", "A"),
        (BOXES, "Box A fits closely. Box B, on the other hand, is too large, thus not fitting as accurately.", "A"),
        (BOXES, "Box A is red. Box B is blue. Box B is the better box.", "B"))],
    *[(item, said, answer, "a conclusion beats bullets") for item, said, answer in (
        (POINTS, "- Point A is on the ear.\n- Point B is on the paw.\nTherefore, the corresponding point is (A) Point A.", "A"),
        (POINTS, "- (A): the hood\n- (B): the roof\n- (C): the door\n\nHence the point is Point B.", "B"),
        (POINTS, "Let's look:\n\n(A) Point A is on the ear of the cat.\n\n(B) Point B is on its paw.\n\nSo it is Point B.", "B"))],
    *[(item, said, None, "a refusal, or neither, names nothing") for item, said in (
        (JIGSAW, "It is not possible to determine which of the second or third image is the missing part."),
        (JIGSAW, "I cannot tell which image it is. The second image shows a dog. The third image shows a cat."),
        (JIGSAW, "The answer is neither."), (JIGSAW, "Neither the second nor the third image is similar to the first."),
        (CAPTIONS, "Both (1) and (2) are incorrect."), (CAPTIONS, "Neither (1) nor (2)."),
        (POINTS, "None of the points A, B, C or D is on the edge."), (POINTS, "The answer is (E) none of the above."))],
    (JIGSAW, "Neither image matches. However, if I must choose one, the second image is closer in style.", "A",
     "a refusal, and then a choice"),
    *[(item, said, answer, "X is closer than Y: X") for item, said, answer in (
        (CLOSER, "Point B appears to be closer to the camera than point A.", "B"),
        (CLOSER, "Point B, where the child is sitting, is closer to the camera than point A.", "B"),
        (CLOSER, "Point B, which lies in front of point A, is closer to the camera.", "B"),
        (CLOSER, "Compared to point A, point B is nearer.", "B"), (CLOSER, "A seems closer to the viewer compared to B.", "A"),
        (CLOSER, "Point A is not as close as point B.", "B"), (CLOSER, "The camera is closer to B than to A.", "B"),
        (THINGS, "The chair is closer to the camera than the table.", "A"), (DARKER, "B has a darker surface than A.", "B"),
        (JIGSAW, "The second image is less similar to the first than the third image.", "B"))],
    *[(item, said, answer, "farther is the other one, where closer is asked") for item, said, answer in (
        (CLOSER, "Point A is farther away from the camera than point B.", "B"), (CLOSER, "Point B is farther away.", "A"),
        (CLOSER, "A is closer, whereas point B is further behind.", "A"), (DARKER, "Point A is lighter than point B.", "B"),
        (THINGS, "The chair is farther from the camera.", "B"))],
    (DARKER, "The surface colors at points A and B appear to be about the same.", "C", "two letters are no answer, the text is"),
    *[(DARKER, said, answer, "an option on a line of its own after a colon, and then a doubt") for said, answer in (
        ("Based on the apparent colors, it appears that:\n\n(B) B is darker\n\nHowever, A may be affected by the light.", "B"),
        ("It seems that:\n(A) A is darker. The lamp is on.\nThe lamp makes B brighter than it is.", "A"))],
    *[(YESNO_OPTIONS, said, answer, "options yes and no have letters, too") for said, answer in (
        ("There is no dog on the mat, only the cat, hence option A.", "A"), ("The cat is next to the mat. Hence (B).", "B"),
        ("<s> B", "B"), ("no</s>", "B"), ("Yes and no.", None))],
    *[(PHOTOS, said, answer, "of four images one is praised") for said, answer in (
        ("The third image (C) is most similar to the first image (A).", "C"),
        ("The fourth image is most likely real. The first, the second image and the third image look rendered.", "D"),
        ("I believe image (B), the second image, is most likely real. In contrast, images A, C and D look artificial.", "B"),
        ("If I must choose, I would lean towards (D) the fourth image. However, this is speculative.", "D"))],
    *[(item, said, answer, "pictures called by letters of the model's own") for item, said, answer in (
        (JIGSAW, "The third image (C) is most similar to the first image (A).", "B"),
        (JIGSAW, "The second image (B) is most similar to the first image (A).", "A"))],
    *[(COLORS, said, "B", "what a chat template leaves behind") for said in
      ("<s> B", "B</s>", "ASSISTANT: B", "### Assistant: (B) blue", "B<|im_end|>", "[/INST] B")],
    *[(CAPTIONS, said, "1", "numbered options") for said in ("(1)", "1", "Output (1).", "1.", "Caption 1", "The first caption is right.",
                                                             "A man bites a dog.")],
    (CAPTIONS, "The caption that best describes the image is (2).", "2", "numbered options, stated"),
    (CAPTIONS, "None of the captions accurately describe the image. The image shows 2 surfboards.", None,
     "GPT-4V on SugarCrepe: a 2 that is no option"),
    (CAPTIONS, "(1) or (2)", None, "two numbers"),
    (CAPTIONS, "I look at both. (1) A dog bites a man. That is it.", None, "number and text contradict each other"),
    (LETTERS, "C", "C", "options that are not known"),
    (LETTERS, "The answer is C. foo", "C", "options that are not known"),
    *[(YESNO, said, "yes", "yes") for said in ("Yes", "yes.", "**Yes**, they are.", "The answer is yes.",
                                               "<think>no no</think><answer>Yes</answer>",
                                                "Yes, there is no doubt.", "Is it longer? No one can tell by eye. Yes.")],
    *[(YESNO, said, "no", "no") for said in ("No, they are the same.", "The answer is no.", "There is no dog in the image.", "(no)")],
    *[(YESNO, said, None, "neither, or both") for said in ("They differ.", "Yes and no.", "I now know nothing of it.", "yesterday", "")],
    *[(COUNT, said, "3", "three") for said in
      ("3", "3.0", "03", "three", "Three dogs.", "There are 3 dogs.", "The answer is **3**.", "\\boxed{3}",
       "1. one dog left\n2. two right\nIn total there are 3.",
       "I see 2 on the left and 1 on the right, so the total is 3 dogs.", "There are three dogs in the photo of 2021.",
       "One of the 3 dogs is brown.")],
    *[(COUNT, said, "0", "none at all") for said in ("none", "There are no dogs.", "zero")],
    *[(COUNT, said, None, "two numbers, or none") for said in ("3 or 4", "There are 3 or 4 dogs", "Between 3 and 5.", "2 dogs and 3 cats",
                                                               "I can't count them.", "")],
    (COUNT, "1,200", "1200", "thousands"), (COUNT, "twenty-one", "21", "words"),
    *[(NUMBER, said, "2.5 minutes", "a unit stays") for said in ("2.5 minutes", "The answer is 2.5 minutes.",
                                                                 "<answer>2.5 minutes</answer>")],
    (NUMBER, "It takes 150 seconds in all.", "150 seconds", "a unit within a sentence"),
    *[(PHRASE, said, "circle", "a text") for said in ("circle", "The answer is circle", "<answer>circle</answer>",
                                                      "<think>a square?</think>circle")],
    (PHRASE, "The shape is a circle.", "a circle.", "what a sentence says of its subject"),
]


@pytest.mark.parametrize("item, response, answer, why", HARD, ids=[f"{i}-{why[:40]}" for i, (*_, why) in enumerate(HARD)])
def test_hard_cases(item, response, answer, why):
    assert score.extract(response, item) == answer, why


def answers_by_hand():
    """[(Item, response, answer, what the code reads)]: outputs of our own in the style of many models, each read by hand.

    The file's first lines are the questions. A row with "misread" is a known fault: what the code reads instead.
    """
    questions, rows = {}, []  # each row, and whether it was written by another hand, to break the rules
    for line in (Path(__file__).parent / "data/answers_by_hand.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "item" in row:
            questions[row["item"]] = Item("x", row["question"], row["answer"], [], row["options"], {}, row["scorer"])
        else:
            rows.append((questions[row["of"]], row["response"], row["answer"], row.get("misread", row["answer"]),
                         "tries" in row))
    return rows


def test_answers_that_were_read_by_hand():
    """98 % are read as by hand, of those that were written to break the rules 93 %. All others are named in the file: no fault may join them, and one that is cured is struck out."""
    rows = answers_by_hand()
    changed = [(response, read, score.extract(response, item)) for item, response, _, read, _ in rows
               if score.extract(response, item) != read]
    assert not changed
    for tries, count, share in ((False, 700, .98), (True, 250, .93)):
        right = [answer == read for *_, answer, read, tried in rows if tried == tries]
        assert len(right) >= count and sum(right) / len(right) >= share


def test_more_options_than_labels():
    """Letters end at Z: a 27th option has none, so that naming it is no answer. Numbers go on."""
    colors = [f"color {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(40)]
    lettered, numbered = ask(options=colors), ask(options=colors, answer="1")
    assert score.extract("The mug is color ad.", lettered) == "D" and score.extract("(Z)", lettered) == "Z"
    assert score.extract("color ba", lettered) is None and score.extract("The mug is color bn.", lettered) is None
    assert score.extract("(12)", numbered) == "12" and score.extract("The answer is 40.", numbered) == "40"
    assert score.extract("color ba", numbered) == "27" and score.extract("41", numbered) is None


@pytest.mark.parametrize("response", [None, 3, b"B", ["B"]])
def test_a_response_that_is_no_text_answers_nothing(response):
    assert score.extract(response, COLORS) is None


ITEMS = [COLORS, LETTERS, COUNTS, CAPTIONS, YESNO_OPTIONS, YESNO, COUNT, NUMBER, PHRASE, POINTS]
PIECES = ["A", "(B)", "C.", "\\boxed{", "}", "<answer>", "</answer>", "<think>", "</think>", "the answer is ", "not ", "or ", "red",
          "dark ", "yes", "no ", "3", "one ",
          ". ", "\n", ", ", "**", "$", "1,", " ", "option ", "\u202e", "Ａ", "½", "\ud800", "is correct", "there are "]


@settings(max_examples=400)
@given(text=st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60))
def test_extraction_never_raises_and_answers_in_form(text):
    for item in ITEMS:
        said = score.extract(text, item)
        assert said is None or isinstance(said, str) and said
        if said is not None and item.scorer == "choice":
            assert said in (["1", "2"] if item is CAPTIONS else "ABCDEFGH"[:len(item.options or "ABCDEFGH")])
        elif said is not None and item.scorer == "yesno":
            assert said in ("yes", "no")
        elif said is not None and item.scorer == "count":
            assert number(said)


@given(right=st.integers(0, 3), noise=st.text("ABCD abc.\n(),", max_size=80), form=st.sampled_from(["{}", "({})", "Answer: {}", "{}. {}",
    "The answer is {}."]))
def test_whatever_was_thought_the_tagged_answer_counts(right, noise, form):
    letter, text = "ABCD"[right], COLORS.options[right]
    assert score.extract(f"<think>{noise}</think><answer>{form.format(letter, text)}</answer>", COLORS) == letter


@given(order=st.permutations(COLORS.options))
def test_shuffled_options_move_the_letter_with_the_text(order):
    assert score.extract("I think the mug is dark red.", ask(options=order)) == "ABCD"[order.index("dark red")]


@pytest.mark.parametrize("piece", ["\\boxed{", "<answer>", "<think>", "A or ", "the answer is ", "(A", "1,", "- ", "not ", "**A", "\n",
                                   "yes ", "one hundred ", "\\text{", "{}", "x",
                                   "answer to ", "A\n", "A red ", "red\n", "(B) blue. ", "</think><answer>", "I see ", "A. ", "number of ",
                                   "is closer than A ", "Compared to A, ", "while A, ", "A is , which ", "(A) is farther", ", so ", "A, ",
                                   "it is not possible to ", "the second image ", "Therefore, ", "; ", "cannot a a a a a ", "<| ", "A (A "])
def test_hostile_length_costs_linear_time(piece):
    """100 KB of one piece, and 400 KB: four times the text may not take much more than four times as long."""
    times = []
    for length in (100_000, 400_000):
        text = (piece * length)[:length]
        began = time.process_time()
        for item in (COLORS, CLOSER, JIGSAW, YESNO, COUNT, NUMBER, PHRASE):
            score.extract(text, item)
        times.append(time.process_time() - began)
    assert times[1] < 8 * times[0] + .2 and times[0] < 3


# ---- 4. Scorers ---------------------------------------------------------------------------------------------------------------
def test_hallusionbench_unclear_is_right_only_without_a_figure(tmp_path):
    """utils.py: VS questions without their figure count "correct" and "unclear", all others only "correct"."""
    fixtures.write_hallusionbench(tmp_path)
    items = read("hallusionbench", tmp_path)[0]
    textual, seen = next(i for i in items if not i.media), next(i for i in items if i.media)
    assert textual.answer == seen.answer == "no"
    say = lambda text, item: score.correct(score.extract(text, item), item)
    assert [say(text, textual) for text in ("No.", "I cannot tell without the chart.", "Yes.")] == [1, 1, 0]
    assert [say(text, seen) for text in ("No.", "I cannot tell.", "Yes.")] == [1, 0, 0]


class Judge:
    """Says yes to whatever agrees with the truth word for word, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def equivalent(self, question, truth, prediction):
        self.asked.append((question, truth, prediction))
        return truth.lower() in prediction.lower()


def test_a_judge_is_asked_only_where_the_rule_cannot_tell():
    item, judge = ask("yesno", None, "no"), Judge()
    item.groups["details"] = "The lines are the same length."
    for response, with_judge, without in (("No.", 1, 1), ("Yes.", 0, 0), ("Look: the lines are the same length.", 1, 0),
                                          ("They differ.", 0, 0), ("", 0, 0)):
        said = score.extract(response, item)
        assert score.correct(said, item, judge, response) == with_judge
        assert score.correct(said, item) == without  # nobody there to ask: the rule's word, not a 0 for everything
    assert [asked[2] for asked in judge.asked] == ["Look: the lines are the same length.", "They differ."]


def test_video_r1_answers_score_as_the_verifier_scores_them():
    item = ask("free", None, "a dog")
    assert score.correct("A dog.", item) == 1 and score.correct("a cat", item) == 0 and score.correct(None, item) == 0
    assert score.correct("surely a dog", item, Judge()) == 1
    assert score.correct("150 seconds", NUMBER) == 1 and score.correct("2.6 minutes", NUMBER) == 1 and score.correct("3 minutes",
        NUMBER) == 0
    assert score.correct("exit", ask("ocr", None, "exit only")) == .5


def video_r1_number(said, truth):
    """Video-R1's numerical rule, in words (grpo.py, accuracy_reward): a point or comma in both or in neither, equal to 2 decimals."""
    def value(text):
        try:
            return round(float(text.replace(",", "")), 2)
        except ValueError:
            return None
    alike = any(c in said for c in ".,") == any(c in truth for c in ".,")
    return float(alike and value(said) is not None and value(said) == value(truth))


@pytest.mark.parametrize("said, truth, theirs", [("12.5", "12.5", 1), ("12", "12.0", 0), ("12.51", "12.5", 0), ("12.5 cm", "12.5", 0),
                                                 ("1,200", "1200", 0), ("104", "100", 0)])
def test_video_r1s_own_rule_for_numbers_is_stricter_than_r_o(said, truth, theirs):
    """The entry says so: all of these are within 5 % and right here (paper eqs 7, 8)."""
    assert video_r1_number(said, truth) == theirs
    assert score.correct(said, ask("number", None, truth)) == 1


# ---- 5. Averages --------------------------------------------------------------------------------------------------------------
def rows_of(*counts):
    """(groups, right, wrong), ... -> rows."""
    rows = [{"id": f"{n}-{k}", "groups": dict(groups), "correct": float(k < right)}
            for n, (groups, right, wrong) in enumerate(counts) for k in range(right + wrong)]
    random.Random(0).shuffle(rows)
    return rows


def test_blink_is_the_mean_of_its_tasks_and_micro_differs():
    rows = rows_of(({"task": "Counting"}, 8, 0), ({"task": "Jigsaw"}, 0, 2))
    said = score.metrics("blink", rows)
    assert said == {"accuracy": .5, "micro": .8, "Counting": 1, "Jigsaw": 0} and next(iter(said)) == "accuracy"


def test_cv_bench_is_a_mean_of_means():
    """2D = (ADE20K + COCO) / 2 = (1 + .25) / 2; 3D = .5; whole = (.625 + .5) / 2. Micro would be (1 + 1 + 5) / (1 + 4 + 10)."""
    rows = rows_of(({"type": "2D", "source": "ADE20K", "task": "Count"}, 1, 0), ({"type": "2D", "source": "COCO", "task": "Count"}, 1, 3),
                   ({"type": "3D", "source": "Omni3D", "task": "Depth"}, 5, 5))
    said = score.metrics("cv-bench", rows)
    assert (said["2D"], said["3D"], said["accuracy"]) == (.625, .5, .5625) and said["task Count"] == .4


def test_mindcube_is_pooled_without_translation():
    rows = rows_of(({"setting": "among"}, 1, 5), ({"setting": "around"}, 2, 0), ({"setting": "translation"}, 9, 0))
    assert score.metrics("mindcube", rows) == {"accuracy": 3 / 8, "among": 1 / 6, "around": 1, "translation": 1}


def test_countercurate_is_the_mean_of_both_files():
    assert score.metrics("countercurate", rows_of(({"task": "left/right"}, 3, 1), ({"task": "up/down"}, 0, 1)))["accuracy"] == .375


def test_hallusionbench_by_hand(tmp_path):
    """The fixture's 7 rows, of which three are wrong: VD figure 0 question 1, VS figure 2, and VS without a figure.

    aAcc 4/7. Figures: VD 0 (one of two wrong), VD 1 (right), VS 1 (right), VS 2 (wrong); the question without a figure has none: 2/4.
    Pairs over figures: VD 0 (right), VD 1 (wrong), VS 0 (wrong): 1/3. With pictures only: aAcc 4/6, VS 0 is still wrong.
    """
    fixtures.write_hallusionbench(tmp_path)
    wrong = {"VD/illusion/1/0/1", "VS/chart/1/2/0", "VS/chart/1/0/0"}
    rows = [{"id": i.id, "groups": i.groups, "correct": float(i.id not in wrong)} for i in read("hallusionbench", tmp_path)[0]]
    said = score.metrics("hallusionbench", rows)
    assert said["aAcc"] == pytest.approx(4 / 7) and said["fAcc"] == pytest.approx(2 / 4) and said["qAcc"] == pytest.approx(1 / 3)
    assert said["average"] == pytest.approx((4 / 7 + 1 / 2 + 1 / 3) / 3) and next(iter(said)) == "average"
    assert said["pictures aAcc"] == pytest.approx(4 / 6) and said["pictures average"] == pytest.approx((4 / 6 + 1 / 2 + 1 / 3) / 3)
    assert said["easy"] == pytest.approx(1 / 3) and said["hard"] == pytest.approx(2 / 3)  # VS figure 1 is easy, too: see the next test
    right = [row | {"correct": float(row["id"] != "VS/chart/1/0/0")} for row in rows]  # a wrong answer without a figure spoils its pair
    assert score.metrics("hallusionbench", right)["qAcc"] == pytest.approx(2 / 3) and score.metrics("hallusionbench", right)["fAcc"] == 1


def test_hallusionbenchs_easy_and_hard_are_told_by_the_picture_not_by_the_figure(tmp_path):
    """utils.py, get_eval_pair_easy and _hard: hard is visual_input 2, a changed picture. Of the fixture's 7 rows that is VD figure 1 and VS
    figure 2, three; VS figure 1 is easy, though not figure 0. The same rule gives 625 easy questions and 504 hard ones in the published
    file, in 455 and 430 pairs."""
    fixtures.write_hallusionbench(tmp_path)
    items = read("hallusionbench", tmp_path)[0]
    count = {level: (sum(i.groups["level"] == level for i in items), len({i.groups["pair"] for i in items if i.groups["level"] == level}))
             for level in ("easy", "hard")}
    assert count == {"easy": (4, 3), "hard": (3, 3)}
    for wrong, easy, hard in (("VS/chart/1/1/0", 2 / 3, 1), ("VS/chart/1/2/0", 1, 2 / 3), ("VS/chart/1/0/0", 2 / 3, 1), ("VD/illusion/1/1/0", 1, 2 / 3)):
        said = score.metrics("hallusionbench", [{"id": i.id, "groups": i.groups, "correct": float(i.id != wrong)} for i in items])
        assert (said["easy"], said["hard"]) == pytest.approx((easy, hard)), wrong


def test_sugarcrepe_averages_both_orders_first():
    """A model that always says (1) is right in one order of two: .5 in every category, whatever the order it is asked in."""
    rows = [{"id": f"{c}/{n}/{o}", "groups": {"category": c, "pair": f"{c}/{n}", "order": f"{o} first"}, "correct": float(o == "positive")}
            for c, size in (("swap_obj", 1), ("add_obj", 3)) for n in range(size) for o in ("positive", "negative")]
    said = score.metrics("sugarcrepe", rows)
    assert said["micro"] == said["macro"] == said["swap_obj"] == .5 and said["positive first"] == 1 and said["negative first"] == 0
    for row in rows:
        row["correct"] = float(row["groups"]["category"] == "add_obj")
    said = score.metrics("sugarcrepe", rows)
    assert said["micro"] == .75 and said["macro"] == .5


def test_figure_4_has_both_accuracies():
    rows = rows_of(({"kind": "choice"}, 1, 1), ({"kind": "ocr"}, 1, 0))
    rows[0]["grounding"], rows[1]["grounding"], rows[2]["grounding"] = .5, 1.0, None  # one sample does not call for pointing
    said = score.metrics("video-r1", rows)
    assert said["accuracy"] == pytest.approx(2 / 3) and said["visual grounding"] == .75


def test_some_rows_only():
    """A limited run: averages of what is there, and coverage says how much that is."""
    rows = rows_of(({"task": "Counting"}, 1, 0), ({"task": "Jigsaw"}, 0, 1))
    assert score.metrics("blink", rows)["accuracy"] == .5 and score.metrics("blink", []) == {} and score.draws("blink", []) == {}
    covered = score.coverage("blink", rows)
    assert covered["Counting"] == (1, 120) and covered["Art_Style"] == (0, 117) and sum(n for n, _ in covered.values()) == 2
    assert sum(n for _, n in covered.values()) == 1901 and score.coverage("countercurate", [])["left/right"] == (0, None)
    assert "fAcc" not in score.metrics("hallusionbench", [{"id": "a", "groups": {"pair": "p", "seen": "text"}, "correct": 1.0}])


# ---- 6. Bootstrap -------------------------------------------------------------------------------------------------------------
def test_draws_against_theory_and_a_plain_loop():
    rows = rows_of(({"task": "a"}, 30, 70), ({"task": "b"}, 10, 10))
    drawn = score.draws("blink", rows, n=4000)
    macro = np.sqrt(.3 * .7 / 100 + .5 * .5 / 20) / 2  # two independent means, averaged
    assert drawn["micro"].mean() == pytest.approx(40 / 120,
                                                  abs=.01) and drawn["micro"].std() == pytest.approx(np.sqrt(1 / 3 * 2 / 3 / 120), rel=.05)
    assert drawn["accuracy"].mean() == pytest.approx(.4, abs=.01) and drawn["accuracy"].std() == pytest.approx(macro, rel=.05)
    values, rng = np.array([row["correct"] for row in rows]), np.random.default_rng(1)
    loop = [values[rng.integers(120, size=120)].mean() for _ in range(4000)]
    assert np.quantile(drawn["micro"], [.025, .975]) == pytest.approx(np.quantile(loop, [.025, .975]), abs=.02)


def test_the_units_are_drawn_not_the_rows():
    """20 figures of 10 equal rows each: fAcc is as unsure as 20 coin tosses, not as 200."""
    rows = [{"id": f"{f}/{k}", "groups": {"figure": str(f), "pair": str(f), "level": "easy", "seen": "picture"}, "correct": float(f % 2)}
            for f in range(20) for k in range(10)]
    assert score.draws("hallusionbench", rows)["fAcc"].std() == pytest.approx(np.sqrt(.25 / 20), rel=.1)


def test_two_models_are_paired():
    """A model that is right wherever the other is, and on some more rows, is never worse in a draw, whatever the order of its rows."""
    one = rows_of(({"task": "a"}, 30, 30), ({"task": "b"}, 30, 30))
    better = [row | {"correct": 1.0} if row["correct"] == 0 and row["id"].endswith(("31", "35", "40")) else dict(row) for row in one]
    random.Random(1).shuffle(better)
    gap = score.draws("blink", better)["accuracy"] - score.draws("blink", one)["accuracy"]
    assert gap.min() >= 0 and gap.mean() == pytest.approx(.05, abs=.003)
    unpaired = score.draws("blink", better, seed=1)["accuracy"] - score.draws("blink", one, seed=2)["accuracy"]
    assert gap.std() < unpaired.std() / 2
    assert np.array_equal(score.draws("blink", one)["accuracy"], score.draws("blink", one[::-1])["accuracy"])
    assert not np.array_equal(score.draws("blink", one, seed=3)["accuracy"], score.draws("blink", one)["accuracy"])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=1, max_size=30))
def test_metrics_lie_within_their_draws_and_order_does_not_matter(drawn):
    rows = [{"id": str(i), "groups": {"task": task}, "correct": float(right)} for i, (task, right) in enumerate(drawn)]
    said, back = score.metrics("blink", rows), score.metrics("blink", rows[::-1])
    assert said == pytest.approx(back)
    draws = score.draws("blink", rows, n=50)
    assert draws.keys() == said.keys() and all(0 <= d.min() and d.max() <= 1 + 1e-9 and d.shape == (50,) for d in draws.values())
