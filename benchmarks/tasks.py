"""The benchmarks of the paper's tables 1 and 2 and of figure 4, read from their published files: one entry
each, one loader for all.

A benchmark is data: where its files are had, which columns are read, how a row becomes a question, how many
there must be, how they are averaged and what the paper printed. The few lines of code that an entry needs
turn one row into `Item`s; everything else is shared.

What the loader promises: files are read as they are published, a batch at a time; nothing is downloaded,
nothing executed. A row that cannot be asked (no picture, no truth, a damaged line, an id used before) is
handed to `report(reason, where, detail)` and left out, and so is every part whose count is not the published
one: a number that is averaged over fewer questions says so.

Prompts: a question is asked in the benchmark's own words. Where its authors publish a whole prompt for a
direct answer ("... Answer with the option's letter ..."), that is Item.direct, to the letter, with pictures
before the text. It would contradict a prompt that asks for reasoning; there, and where none is published
(BLINK, HallusionBench, PixMo-Count, easy-vqa), the question stands in a prompt of ours (verifier/prompts.py).
Video-R1's template and its "Options:" line are not used.

Not read: BLINK's test answers (hidden), SugarCrepe's unrefined files (not the benchmark), CounterCurate's
counting part (the paper: left and right, up and down).

    for item in tasks.items("blink", "benchmarks/blink", report=print): ...

Before: README.md here. Next: extract.py and score.py (what was answered, and the averages), run.py (asking)
"""
import importlib.util
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from runs.errors import BadInput
from verifier.answers import KINDS, clean, outcome_score
from verifier.media import PICTURES
from verifier.samples import Sample
from benchmarks import sources
from benchmarks.sources import Unusable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NO_PICTURE = "picture missing, or outside the folder"


# ---- 1. What a question is, and what a benchmark is --------------------------------------------------------
@dataclass
class Item:
    """One question.

    media: [("image" or "video", Path or the bytes of an encoded picture)]; [] where it is asked without any.
    """
    id: str
    question: str
    answer: str            # the truth in the scorer's form: "B", "1", "yes", "3", a text
    media: list
    options: list | None   # the options' texts in the order of their letters, or numbers
    groups: dict           # what the averages need, such as {"task": "Counting"}
    scorer: str            # a key of score.SCORERS
    direct: str = ""       # the benchmark's whole prompt for a direct answer, if it publishes one


@dataclass(frozen=True)
class Metric:
    """A mean of means: rows make units, units are averaged in each cell, cells from the innermost key
    outwards.

    Examples: Metric() is the share of right answers; Metric(over=("task",)) the mean over tasks of each
    task's share; Metric(unit="figure", all=True) the share of figures on which every question was answered
    right.
    """
    where: dict = None  # {group: value, or a tuple of several} that a row must have
    over: tuple = ()    # group keys: () is the micro, ("task",) the macro average, two are means of means
    unit: str = ""      # the group whose rows are one unit; "": each row is one. Rows without it do not count
    all: bool = False   # a unit is right if all its rows are; else it counts by their mean
    each: str = ""      # one such metric per value of this group, named by the entry's key and the value
    of: tuple = ()      # the mean of these other metrics


@dataclass(frozen=True)
class Benchmark:
    """One entry. `read` makes Items of a row; raise Unusable in it to leave the row out."""
    title: str
    where: str                    # where its files are had, as an object of "download"
    files: tuple                  # glob patterns; the first of `inside` (below) that holds any of them counts
    read: Callable                # (row, place) -> Items
    metrics: dict                 # name -> Metric; the first is the one that stands for the benchmark
    part: str                     # the group whose values `counts` counts
    counts: dict                  # value -> how many Items the published files give; None: not known to us
    columns: tuple = ()           # of a parquet file, without those of pictures
    pictures: tuple = ()          # its columns of pictures
    inside: tuple = ("",)         # sub-folders that may hold the files
    roots: tuple = ("",)          # sub-folders that paths of pictures may start from
    hint: str = ""                # what else must be known to get them, in whole sentences
    judge: str = ""               # why a judge of answers is recommended, in whole sentences
    printed: dict = None          # metric -> the paper's numbers in percent, in the order of MODELS
    together: tuple = ()          # groups whose rows come together when a sample is drawn (both orders, ...)
    package: str = ""             # a Python package that ships the files, if there is no folder
    open: Callable = None         # in place of open_rows, for files that need more than `read`

    @property
    def count(self):
        """How many questions the published files have, None where that is not known."""
        return None if None in self.counts.values() else sum(self.counts.values())

    @property
    def paper(self):
        """The paper's numbers in percent: {model: {metric: number}}."""
        if not self.printed:
            return {}
        table = {}
        for i, model in enumerate(MODELS):
            table[model] = {metric: numbers[i] for metric, numbers in self.printed.items()}
        return table


# The rows of the paper's tables 1 and 2.
MODELS = ("Qwen2.5-VL-7B", "Qwen2.5-VL-7B (CoT)", "Video-R1 (SFT)", "Video-R1 (RL)", "Argos")


@dataclass
class Place:
    """Where a row came from, for the code that reads it."""
    entry: Benchmark
    folder: Path
    file: Path
    number: int      # of the row in its file, from 1
    pictures: bool   # are they read?

    @property
    def where(self):
        """The row's name in reports: "Counting/val-00000-of-00001.parquet row 7"."""
        inside = self.folder in self.file.parents
        name = self.file.relative_to(self.folder) if inside else self.file.name
        return f"{name} row {self.number}"

    def picture(self, path):
        """A path in a data file -> where it lies. It is data: it may not lead out of the folder."""
        for root in self.entry.roots:
            try:
                found = Path(os.path.normpath(self.folder / root / path))
                if self.folder in found.parents and found.is_file():
                    return found
            except (OSError, ValueError):  # longer than a path may be, or with a NUL
                pass
        raise Unusable(NO_PICTURE, path)

    def column(self, value, name):
        """A picture column, {"bytes", "path"} -> bytes. Only the head is looked at; load_media decodes."""
        data = value.get("bytes") if isinstance(value, dict) else None
        if not data:
            raise Unusable("picture missing", name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Image.open(io.BytesIO(data), formats=PICTURES).close()
        except Exception as error:  # a damaged file makes Pillow raise whatever it trips over
            raise Unusable("picture cannot be decoded", f"{name}: {error.__class__.__name__}") from None
        return data


# ---- 2. From rows to Items: what differs between benchmarks ------------------------------------------------
def text_of(row, name):
    """A field of a row that must be a text."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise Unusable("field missing", name)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unusable("not a text", name) from None
    return value


def letter_of(text, options):
    """"(B)" -> "B", and only if there is such an option."""
    letter = text.strip().strip("().").upper()
    if len(letter) != 1 or letter not in LETTERS[:len(options) if options else 26]:
        raise Unusable("the truth is no option (a hidden answer?)", text)
    return letter


def options_of(row, name):
    """A field of a row that must be the texts of two or more options."""
    options = row.get(name)
    listed = isinstance(options, list) and len(options) >= 2
    if not listed or not all(isinstance(option, str) and option.strip() for option in options):
        raise Unusable("options are not two or more texts", options)
    return options


# The authors' test_benchmark.py puts this before the prompts of three tasks (load_prompt).
BLINK_DISCLAIMER = (
    "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to "
    "give your assessment on this question. You don't need to identify the real people. You just need to "
    "analyze based on the information I gave you.\n\n")
BLINK_DISCLAIMED = ("Forensic_Detection", "Jigsaw", "Art_Style")


def read_blink(row, place):
    options = options_of(row, "choices")
    shown = [("image", place.column(row[name], name)) for name in place.entry.pictures if row.get(name)]
    if place.pictures and not shown:
        raise Unusable("picture missing", "image_1")
    # The task is the folder's name: ids do not split at "_" or "-" ("val_Multi-view_Reasoning_7").
    task = place.file.parent.name
    question = text_of(row, "prompt")
    if task in BLINK_DISCLAIMED:
        question = BLINK_DISCLAIMER + question
    yield Item(text_of(row, "idx"), question, letter_of(text_of(row, "answer"), options), shown, options,
               {"task": task}, "choice")


def read_cv_bench(row, place):
    options = options_of(row, "choices")
    kind = text_of(row, "type")
    shown = [("image", place.column(row["image"], "image"))] if place.pictures else []
    # idx counts through both files as we know them; the type is put before it in case it does not.
    name = f"{kind}-{row['idx']}"
    question = text_of(row, "prompt")
    answer = letter_of(text_of(row, "answer"), options)
    groups = {"type": kind, "task": text_of(row, "task"), "source": text_of(row, "source")}
    # The authors' scripts add the instruction (cambrian, eval/eval/{ade,coco,omni}/*_eval.py).
    yield Item(name, question, answer, shown, options, groups, "choice", f"{question}\n{LETTER_ONLY}")


_LISTED = re.compile(r"(?:^|\s)([A-E])\.\s")


def listed_options(question):
    """"...

    A. Above B. Under" -> ["Above", "Under"]: the last letters that count up from A. None where there are no
    two.
    """
    marks = list(_LISTED.finditer(question))
    starts = [i for i, m in enumerate(marks) if m[1] == "A"]
    if not starts:
        return None
    last = marks[starts[-1]:starts[-1] + 5]
    run = [m for n, m in enumerate(last) if m[1] == LETTERS[n]]
    ends = [m.start() for m in run[1:]] + [len(question)]
    texts = [question[m.end():end].strip() for m, end in zip(run, ends)]
    return texts if len(texts) > 1 and all(texts) else None


def read_mindcube(row, place):
    question, paths = text_of(row, "question"), row.get("images")
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise Unusable("field missing", "images")
    name = text_of(row, "id")
    # The official rule: the first of these words in the id; there are "aroundnew_..." ids
    # (extractors.get_setting_from_id).
    settings = [word for word in ("around", "rotation", "translation", "among") if word in name.lower()]
    setting = settings[0] if settings else "other"
    options = listed_options(question)
    asked = f"{MINDCUBE_TASK}\n[Question]\n{question}"
    direct = f"{MINDCUBE_TASK}\n{MINDCUBE_ANSWER}\n\n[Question]\n{question}"
    answer = letter_of(text_of(row, "gt_answer"), options)
    shown = [("image", place.picture(path)) for path in paths]
    yield Item(name, asked, answer, shown, options, {"setting": setting}, "choice", direct)


# MindCube's prompt "raw_qa" (src/prompt_generation/templates.py): the task, how to answer, then the question.
MINDCUBE_TASK = ("[Task]\nYour task is to analyze the spatial arrangement of objects in the scene by "
                 "examining the provided images, which show the scene from different viewpoints.")
MINDCUBE_ANSWER = (
    "[Answer Instruction]\nYou only need to provide *ONE* correct answer selecting from the options listed "
    "below. For example, if you think the correct answer is 'A. Above' from 'A. Above B. Under C. Front D. "
    "Behind', your response should **only** be '<answer>A. Above</answer>'.")
LETTER_ONLY = "Answer with the option's letter from the given choices directly."


def read_countercurate(row, place):
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or len(turns) != 2:
        raise Unusable("not one question and one answer", turns)
    shipped = text_of(turns[0], "value").replace("<image>", "").strip()
    question = shipped.removesuffix(LETTER_ONLY).strip()
    options = listed_options(question)
    # Paths are the author's own ("../../train_data/left_right/pos/1.jpg"): what counts is what follows
    # train_data/. Flickr30k's own pictures (pos) and left_right's mirrored ones (neg) are not shipped: the
    # authors' prepare_training_data.py makes them.
    path = text_of(row, "image").split("train_data/")[-1]
    name = text_of(row, "id")
    answer = letter_of(text_of(turns[1], "value"), options)
    task = "left/right" if "left_right" in place.file.name else "up/down"
    shown = [("image", place.picture(path))]
    yield Item(name, question, answer, shown, options, {"task": task}, "choice", shipped)


def read_hallusion(row, place):
    fields = ("category", "subcategory", "set_id", "figure_id", "question_id")
    category, subcategory, set_id, figure, asked = (text_of(row, name) for name in fields)
    truth = {"1": "yes", "0": "no"}.get(text_of(row, "gt_answer"))
    if truth is None:
        raise Unusable("the truth is neither 0 nor 1", row["gt_answer"])
    # Easy: asked without a picture, or about one as it was found; hard: about one that was changed
    # (utils.py, get_eval_pair_easy and get_eval_pair_hard).
    level = "hard" if text_of(row, "visual_input") == "2" else "easy"
    textual = category == "VS" and figure == "0"  # a question of general knowledge, asked without its figure
    shown = []
    if not textual and "image" in place.entry.pictures and place.file.suffix == ".parquet":
        shown = [("image", place.column(row["image"], "image"))] if place.pictures else []
    elif not textual:  # an older release has "./hallusion_bench/VD/...", the present one "./VD/..."
        path = text_of(row, "filename").removeprefix("./").removeprefix("hallusion_bench/")
        shown = [("image", place.picture(path))]
    one_set = f"{category}/{subcategory}/{set_id}"
    groups = {"category": category, "set": one_set, "pair": f"{one_set}/{asked}",
              "level": level, "seen": "text" if textual else "picture",
              "details": row.get("gt_answer_details") or ""}
    if not textual:
        groups["figure"] = f"{one_set}/{figure}"
    yield Item(f"{one_set}/{figure}/{asked}", text_of(row, "question"), truth, shown, None, groups,
               "yesno or unclear" if textual else "yesno")


def read_sugarcrepe(row, place):
    right, wrong = text_of(row, "caption"), text_of(row, "negative_caption")
    category = place.file.stem
    shown = [("image", place.picture(text_of(row, "filename")))]
    for order, captions in (("positive first", [right, wrong]), ("negative first", [wrong, right])):
        pair = f"{category}/{row['key']}"
        question = f"Which caption best describes the image?\n(1) {captions[0]}\n (2) {captions[1]}"
        groups = {"category": category, "pair": pair, "order": order}
        answer = str(captions.index(right) + 1)
        direct = f"{question}\nOutput (1) or (2)."
        yield Item(f"{pair}/{order[:8]}", question, answer, shown, captions, groups, "choice", direct)


def read_pixmo(row, place):
    if row.get("count") is None:
        raise Unusable("field missing", "count")
    # No question is shipped (this wording: our choice, the one we train with in sources.py). val and test
    # have no points.
    question = f"How many {text_of(row, 'label').strip()} are there in the image?"
    split = place.file.stem.partition("-")[0]
    shown = [("image", row["picture"])] if place.pictures else []
    yield Item(f"{split}-{place.number}", question, str(row["count"]), shown, None, {"split": split}, "count")


def read_video_r1(row, place):
    try:
        sample = Sample.from_row(row, place.file.parent, place.where)
    except BadInput as error:
        raise Unusable("not a usable row", str(error).removeprefix(f"{place.where}: ")) from None
    options, answer = sample.options, sample.answer
    if sample.kind == "choice" and options:
        options = [without_label(option, i) for i, option in enumerate(options)]
        right = (i for i in range(len(options)) if outcome_score(LETTERS[i], answer, "choice", options) == 1)
        answer = LETTERS[next(right)]
    groups = {name: getattr(sample, name) for name in ("task", "source", "kind", "grounding", "drawn")}
    shown = [(sample.media, Path(sample.path))]
    yield Item(sample.id, sample.question, answer, shown, options, groups, sample.kind)


def without_label(option, i):
    """The text of the i-th option: "B. red" -> "red"."""
    if i >= len(LETTERS):
        return option
    return re.sub(rf"^\(?{LETTERS[i]}[).:]\s*", "", option)


def as_sample(item):
    """An Item on one picture or clip

    -> argos.Sample: figure 4 asks for visual grounding, too, which the verifier scores.
    """
    (media, source), = item.media
    known = {"kind": item.scorer if item.scorer in KINDS else "phrase"}
    for key in ("task", "source", "kind", "grounding", "drawn"):
        if key in item.groups:
            known[key] = item.groups[key]
    return Sample(id=item.id, question=item.question, answer=item.answer, path=str(source)[:200], media=media,
                  options=item.options, **known)


def read_easy_vqa(row, place):
    three = isinstance(row, list) and len(row) == 3
    if not three or not all(isinstance(text, str) and text.strip() for text in row[:2]):
        raise Unusable("not [question, answer, number of the picture]", row)
    question, answer, number = row
    shown = [("image", place.picture(f"images/{number}.png"))]
    if answer in ("yes", "no"):
        group, scorer = "yes or no", "yesno"
    else:
        group, scorer = "open", "phrase"
    yield Item(f"{number}-{place.number}", question, answer, shown, None, {"answer": group}, scorer)


# ---- 3. Two loaders that need more than a row --------------------------------------------------------------
def open_pixmo(entry, folder, report, pictures):
    """PixMo-Count is published as links; a picture is known by its sha256 alone, whatever its file is called.
    """
    if not (folder / "images").is_dir():
        raise BadInput(f"{folder / 'images'}: is no folder. {entry.hint}")
    at = sources.by_sha256(folder / "images") if pictures else {}
    for where, row, place in open_rows(entry, folder, report, pictures):
        if pictures and isinstance(row, dict):
            row["picture"] = at.get(row["image_sha256"])
            if row["picture"] is None:
                report(f"{entry.title}: no picture with this sha256 (a dead or changed link)", where,
                       str(row["image_url"])[:200])
                continue
        yield where, row, place


def open_video_r1(entry, folder, report, pictures):
    """val.jsonl, the 1.5K that prepare.py held out (its paths are prepare.py's own and may lead elsewhere),
    or the whole CoT file.
    """
    if (folder / "val.jsonl").is_file():
        yield from open_rows(entry, folder, report, pictures)
        return
    for number, row in enumerate(sources.video_r1(folder, report), 1):
        if row["files"] != {sources.COT}:  # the CoT file comes first; what follows belongs to training
            return
        yield row["id"], row, Place(entry, folder, folder / sources.COT, number, pictures)


# ---- 4. The entries ----------------------------------------------------------------------------------------
BLINK = {"Art_Style": 117, "Counting": 120, "Forensic_Detection": 132, "Functional_Correspondence": 130,
         "IQ_Test": 150, "Jigsaw": 150, "Multi-view_Reasoning": 133, "Object_Localization": 122,
         "Relative_Depth": 124, "Relative_Reflectance": 134, "Semantic_Correspondence": 139,
         "Spatial_Relation": 143, "Visual_Correspondence": 172, "Visual_Similarity": 135}  # task -> questions
SUGARCREPE = {"add_att": 692, "add_obj": 2062, "replace_att": 788, "replace_obj": 1652, "replace_rel": 1406,
              "swap_att": 666, "swap_obj": 245}  # category -> captions

BENCHMARKS = {
    "blink": Benchmark(
        title="BLINK", where="hf:BLINK-Benchmark/BLINK",
        files=("*/val-*.parquet",), read=read_blink,
        columns=("idx", "prompt", "choices", "answer"), pictures=("image_1", "image_2", "image_3", "image_4"),
        # Official: the mean over 14 tasks.
        metrics={"accuracy": Metric(over=("task",)), "micro": Metric(), "": Metric(each="task")},
        part="task", counts=BLINK,
        printed={"accuracy": (54.4, 53.5, 52.7, 49.0, 56.0)}),
    "mindcube": Benchmark(
        title="MindCube-tiny", where="hf:MLL-Lab/MindCube", hint="Unpack its data.zip.",
        files=("MindCube_tinybench.jsonl",), read=read_mindcube,
        inside=("", "data/raw", "raw"), roots=("", "data"),
        # Official: pooled over all but translation, of which the tiny set has none.
        metrics={"accuracy": Metric(where={"setting": ("around", "rotation", "among", "other")}),
                 "": Metric(each="setting")},
        part="setting", counts={"among": 600, "around": 250, "rotation": 200},
        printed={"accuracy": (34.9, 33.1, 34.2, 31.9, 39.6)}),
    "cv-bench": Benchmark(
        title="CV-Bench", where="hf:nyu-visionx/CV-Bench",
        files=("test_2d*.parquet", "test_3d*.parquet", "test.parquet"),  # the last: both, as first published
        read=read_cv_bench, inside=("", "data"),
        columns=("idx", "type", "task", "prompt", "choices", "answer", "source"), pictures=("image",),
        # The data card: 2D is the mean of ADE20K and COCO, 3D is Omni3D, the whole is the mean of both.
        metrics={"accuracy": Metric(over=("type", "source")), "": Metric(over=("source",), each="type"),
                 "task ": Metric(each="task")},
        # The sum is in the data card, the two numbers are from the Cambrian-1 paper.
        part="type", counts={"2D": 1438, "3D": 1200},
        printed={"accuracy": (77.0, 75.6, 75.1, 60.2, 78.2), "3D": (77.9, 76.6, 75.6, 57.2, 82.0)}),
    "countercurate": Benchmark(
        title="CounterCurate",
        where="hf:HanSolo9682/Flickr30k-Counterfactuals",
        hint="Unpack its train_data.tar.gz beside llava_sample_data, or in it. The pictures of left_right/pos, "
             "left_right/neg and up_down/pos are Flickr30k's and not in it. The authors' "
             "prepare_training_data.py (github:HanSolo9682/CounterCurate) copies them, and mirrors them for "
             "left_right/neg.",
        files=("test_left_right_.json", "test_up_down_.json"), read=read_countercurate,
        inside=("", "llava_sample_data"), roots=("", "train_data", "llava_sample_data/train_data"),
        # The authors' script only writes answers down. Mean of both files: our choice, the paper prints one
        # number.
        metrics={"accuracy": Metric(over=("task",)), "micro": Metric(), "": Metric(each="task")},
        part="task", counts={"left/right": None, "up/down": None},
        printed={"accuracy": (61.4, 60.4, 60.6, 63.6, 85.3)}),
    # All 1129 official questions, since the paper counts 1129: those on 346 figures, and 178 asked without
    # one, where an unclear answer is right, too (GPT-4 tells it from a wrong claim; our rules know a wrong
    # claim by its yes or no alone). Harnesses that match strings, as we do, take the 951 with a
    # picture: "pictures ..." is their number. Which accuracy the paper prints it does not say. It is no aAcc,
    # where "no" alone earns 57 %; the mean of the three, the leaderboards' number, is our guess.
    "hallusionbench": Benchmark(
        title="HallusionBench",
        where="github:tianyi-lab/HallusionBench or hf:lmms-lab/HallusionBench",
        hint="With the former, unpack its hallusion_bench.zip beside HallusionBench.json.",
        # Of the 254 answers in the authors' HallusionBench_result_sample.json, 49.
        judge="A judge is recommended. In 19 % of a sample of real answers the rules find neither yes nor no. "
              "Without a judge these count as wrong (as right where no figure is shown). Officially GPT-4 "
              "judges every answer.",
        files=("HallusionBench.json", "image-*.parquet", "non_image-*.parquet"), read=read_hallusion,
        inside=("", "data", "hallusion_bench"), roots=("", "hallusion_bench"),
        columns=("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question",
                 "gt_answer", "gt_answer_details", "filename"), pictures=("image",),
        metrics={"average": Metric(of=("aAcc", "fAcc", "qAcc")),
                 "aAcc": Metric(),
                 "fAcc": Metric(unit="figure", all=True),
                 "qAcc": Metric(unit="pair", all=True),
                 # Named "easy aAcc" and "hard aAcc" there, but counted by pairs: 455 of 625 questions, 430 of
                 # 504.
                 "easy": Metric({"level": "easy"}, unit="pair", all=True),
                 "hard": Metric({"level": "hard"}, unit="pair", all=True),
                 "pictures aAcc": Metric({"seen": "picture"}),
                 "pictures qAcc": Metric({"seen": "picture"}, unit="pair", all=True),
                 "pictures average": Metric(of=("pictures aAcc", "fAcc", "pictures qAcc"))},
        part="category", counts={"VD": 591, "VS": 538}, together=("set",),
        printed={"average": (42.4, 38.6, 40.1, 25.8, 46.6)}),
    # The official number compares CLIP's similarities, which a model that writes has none of; this is the
    # repository's prompt for GPT-4V, asked in both orders. 7,511 captions (the paper counts one more
    # swap_obj), so twice as many questions.
    "sugarcrepe": Benchmark(
        title="SugarCrepe", where="github:RAIVNLab/sugar-crepe",
        hint="Its pictures are COCO's val2017.zip. Unpack it in data/coco/images, as its README does.",
        files=tuple(f"{name}.json" for name in SUGARCREPE), read=read_sugarcrepe,
        inside=("", "data"),
        # The first is where its README has the pictures, if `folder` is the repository; the others are where
        # they were found elsewhere.
        roots=("data/coco/images/val2017", "coco/images/val2017", "data/coco/val2017", "coco/val2017",
               "data/val2017", "val2017", "images/val2017", "images", ""),
        metrics={"micro": Metric(unit="pair"),
                 "macro": Metric(unit="pair", over=("category",)),
                 "": Metric(unit="pair", each="category"),
                 "positive first": Metric({"order": "positive first"}),
                 "negative first": Metric({"order": "negative first"})},
        part="category", counts={name: 2 * n for name, n in SUGARCREPE.items()}, together=("pair",),
        printed={"micro": (85.2, 83.2, 83.3, 79.9, 86.4)}),  # micro or macro: not said
    "pixmo-count": Benchmark(
        title="PixMo-Count", where="hf:allenai/pixmo-count",
        hint="Its pictures are links: download those of the column image_url to images, under any names.",
        files=("validation-*.parquet", "test-*.parquet"), read=read_pixmo, open=open_pixmo,
        inside=("", "data"),
        columns=("image_url", "image_sha256", "count", "label"),
        metrics={"test": Metric({"split": "test"}), "validation": Metric({"split": "validation"})},
        part="split", counts={"validation": 540, "test": 540}),
    # Figure 4: the share of right answers, and the visual grounding that the verifier gives (rows bring it as
    # "grounding"). "Right" is the paper's R_o. Video-R1's own rules (grpo.py, eval_bench.py) differ:
    # - numerical is stricter there: both must be bare numbers, both with a "." or "," or both without, and
    #   equal once rounded to 2 decimals. So 12 for 12.0, 12.51 for 12.5 and "12.5 cm" are wrong. Here 5 % off
    #   is right (paper eqs 7, 8), and units are read.
    # - multiple choice: what stands in <answer> must be the letter alone; here "(B)" and the option's text do.
    # - free-form: the mean of ROUGE-1, 2 and L; here equal text, or a judge's yes.
    # - regression: the reward is 1 - relative error, as here; eval_bench.py has the share of ten thresholds
    #   (.5 to .95) that it passes.
    # - OCR: 1 - word error rate, as here, where case and outer signs do not count.
    "video-r1": Benchmark(
        title="Video-R1-CoT, held out", where="hf:Video-R1/Video-R1-data",
        hint="Or put val.jsonl of `python -m benchmarks.prepare` there, with the media that it names.",
        files=("val.jsonl", sources.COT), read=read_video_r1, open=open_video_r1,
        metrics={"accuracy": Metric(), "": Metric(each="kind")}, part="held out", counts={"": None}),
    "easy-vqa": Benchmark(
        title="easy-vqa, test", where="PyPI's easy-vqa 1.0",
        hint="Or install it: pip install easy-vqa.", files=("questions.json",), read=read_easy_vqa,
        inside=("test", "data/test"), roots=("test", "data/test"), package="easy_vqa",
        metrics={"accuracy": Metric(), "": Metric(each="answer")}, part="", counts={"": 9673}),
}


# ---- 5. The loader -----------------------------------------------------------------------------------------
def items(name, folder, report, pictures=True):
    """Yield the Items of a benchmark, lazily. folder: its files. report(reason, where, detail): every row
    left out, every wrong count.

    pictures=False leaves picture columns unread, for counting and for drawing a sample; rows whose picture is
    missing there or damaged are then found only when it is read. Raises BadInput where files are missing or
    are not what they should be.
    """
    entry, folder = find(name, folder)

    def tell(reason, where, detail=""):
        report(f"{entry.title}: {reason}", where, str(detail)[:200])

    seen, met = set(), Counter()
    open_files = entry.open or open_rows
    for where, row, place in open_files(entry, folder, report, pictures):
        try:
            made = list(entry.read(row, place))
            for item in made:
                if item.id in seen:
                    raise Unusable("id used before", item.id)
        except Unusable as why:
            tell(why.args[0], where, why.args[1])
            continue
        except (KeyError, TypeError, AttributeError) as error:  # a row of another form than the published one
            tell("not a row of this benchmark", where, f"{error.__class__.__name__} {error}")
            continue
        for item in made:
            seen.add(item.id)
            met[item.groups.get(entry.part, "")] += 1
            yield item
    for part in entry.counts | met:
        expected = entry.counts.get(part, 0)
        if expected is not None and met[part] != expected:
            tell("wrong count", part or "all", f"{met[part]} usable questions, {expected} published")


def find(name, folder):
    """-> (the entry, the folder that its files are in). BadInput names where to get them."""
    if name not in BENCHMARKS:
        raise BadInput(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    entry, folder = BENCHMARKS[name], Path(folder).resolve()
    if not find_files(entry, folder) and entry.package:
        installed = importlib.util.find_spec(entry.package)
        if installed:
            folder = Path(installed.origin).parent.resolve()
    if not find_files(entry, folder):
        raise BadInput(nothing_there(entry, folder))
    return entry, folder


def nothing_there(entry, folder):
    """Why a benchmark cannot be read in this folder, and how it gets there: whole sentences, one line."""
    missing = "is no folder"
    if folder.is_dir():
        tried = ", ".join(str(folder / inside) for inside in entry.inside)
        missing = f"holds no {' or '.join(entry.files)} (looked in {tried})"
    return f"{folder}: {missing}. Download {entry.where} to it. {entry.hint}".rstrip()


def why_left_out(entry, folder, reasons):
    """The commonest reason for which rows were left out, and where their pictures were looked for.

    reasons: {reason: [(where, detail), ...]}. Example: "Rows left out: 2. 2 x picture missing, or
    outside the folder (add_att.json row 1: 1.jpg). Looked in DIR, DIR/images. Its pictures are ..."
    """
    count = sum(map(len, reasons.values()))
    reason = max(reasons, key=lambda reason: len(reasons[reason]))
    where, detail = reasons[reason][0]
    example = f"{where}: {detail}" if detail else where
    told = f"Rows left out: {count:,}. {len(reasons[reason]):,} x {reason} ({example})."
    if reason == NO_PICTURE:
        told += f" Looked in {', '.join(str(folder / root) for root in entry.roots)}. {entry.hint}"
    return clean(told).rstrip()


def find_files(entry, folder):
    """The entry's files, sorted, from the first of its sub-folders that holds any."""
    for inside in entry.inside:
        files = set()
        for pattern in entry.files:
            files |= {file for file in (folder / inside).glob(pattern) if file.is_file()}
        if files:
            return sorted(files)
    return []


def open_rows(entry, folder, report, pictures):
    """Yield (where, row, place) of every row of an entry's files, in the order of their names."""
    for file in find_files(entry, folder):
        try:
            for number, row in rows_of_file(file, entry, report, pictures):
                place = Place(entry, folder, file, number, pictures)
                yield place.where, row, place
        except (OSError, UnicodeDecodeError) as error:
            why = error.__class__.__name__
            raise BadInput(f"{file}: cannot be read ({why}); download it again") from None


def rows_of_file(file, entry, report, pictures):
    """(row number, row) of a parquet file, a JSONL file, or a JSON list or dictionary too large to hold."""
    if file.suffix == ".parquet":
        return rows_of_parquet(file, entry, pictures)
    if file.suffix == ".jsonl":
        return rows_of_jsonl(file, entry, report)
    with open(file, "rb") as handle:
        start = handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")  # a byte-order mark may come first
    return rows_of_json_dict(file) if start.startswith(b"{") else sources.json_list(file)


def rows_of_parquet(file, entry, pictures):
    """Only the columns asked for; the "huggingface" entry of the schema's metadata is not looked at."""
    import pyarrow  # here, not above: only parquet files need it
    import pyarrow.parquet
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            there = set(parquet.schema_arrow.names)
            absent = [name for name in entry.columns if name not in there]
            if absent:
                raise BadInput(f"{file}: has no column {', '.join(absent)}; "
                               f"download it again from {entry.where}")
            columns = [*entry.columns, *(name for name in entry.pictures if pictures and name in there)]
            for batch in parquet.iter_batches(32, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        why = str(error).splitlines()[0][:80]
        raise BadInput(f"{file}: not a whole parquet file ({why}); download it again") from None


def rows_of_jsonl(file, entry, report):
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    report(f"{entry.title}: not JSON", f"{file.name} row {number}", str(error)[:80])


def rows_of_json_dict(file):
    """{"0": {...}, ...} -> its objects, each with its key; a key given twice comes twice."""
    import ijson  # here, not above: only these files need it
    with open(file, "rb") as handle:
        try:
            for number, (key, row) in enumerate(ijson.kvitems(handle, "", use_float=True), 1):
                yield number, row | {"key": key} if isinstance(row, dict) else row
        except (ijson.JSONError, UnicodeDecodeError) as error:
            why = str(error).splitlines()[0][:80]
            raise BadInput(f"{file}: is not a whole JSON dictionary ({why}); download it again") from None
