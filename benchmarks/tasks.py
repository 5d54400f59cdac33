"""The benchmarks of the paper's tables 1 and 2 and of figure 4, read from their published files: one entry each, one loader for all.

A benchmark is data: where its files are had, which columns are read, how a row becomes a question, how many there must be, how they
are averaged and what the paper printed. The few lines of code that an entry needs turn one row into `Item`s; everything else is shared.

What the loader promises: files are read as they are published, a batch at a time; nothing is downloaded, nothing executed. A row that
cannot be asked (no picture, no truth, a damaged line, an id used before) is handed to `report(reason, where, detail)` and left out, and
so is every part whose count is not the published one: a number that is averaged over fewer questions says so.

What is simplified: prompts are the benchmark's own. Where they end in an instruction how to answer ("Answer with the option's letter
..."), it stands in `ask`, apart from the question: it is right for a direct answer and would contradict a prompt that asks for reasoning.
Not read: BLINK's test answers (hidden), SugarCrepe's unrefined files (not the benchmark), CounterCurate's counting part (the paper: left
and right, up and down).

    for item in tasks.items("blink", "benchmarks/blink", report=print): ...

Next: score.py (what was answered, and the averages), run.py (asking a model)
"""
import importlib.util
import io
import itertools
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
from verifier.answers import KINDS, outcome_score
from verifier.media import PICTURES
from verifier.samples import Sample
from benchmarks import sources
from benchmarks.sources import Unusable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# ---- 1. What a question is, and what a benchmark is ---------------------------------------------------------------------------
@dataclass
class Item:
    """One question. media: [("image" or "video", Path or the bytes of an encoded picture)]; [] where it is asked without any."""
    id: str
    question: str
    answer: str            # the truth in the scorer's form: "B", "1", "yes", "3", a text
    media: list
    options: list | None   # the options' texts in the order of their letters (or numbers, where the truth is one)
    groups: dict           # what the averages need, such as {"task": "Counting"}
    scorer: str            # a key of score.SCORERS


@dataclass(frozen=True)
class Metric:
    """A mean of means. Rows make units, units are averaged in each cell, and cells from the innermost key outwards.

    where: {group: value or several} a row must have. over: group keys; () is the micro average, ("task",) the macro average, two are
    means of means. unit: the group whose rows are one unit ("" = a row is); `all`: it counts as right if all its rows are, else by
    their mean. A row without the unit's group is no part of the metric. each: one such metric per value of this group, named by the
    entry's key and the value ("" and "2D": "2D"). of: the mean of other metrics.
    """
    where: dict = None
    over: tuple = ()
    unit: str = ""
    all: bool = False
    each: str = ""
    of: tuple = ()


@dataclass(frozen=True)
class Benchmark:
    """One entry. `read` makes Items of a row; raise Unusable in it to leave the row out."""
    title: str
    where: str                    # where its files are had
    files: tuple                  # glob patterns; the first of `inside` (below) that holds any of them is read
    read: Callable                # (row, place) -> Items
    metrics: dict                 # name -> Metric; the first is the one that stands for the benchmark
    part: str                     # the group whose values `counts` counts
    counts: dict                  # value -> how many Items the published files give; None: not known to us
    columns: tuple = ()           # of a parquet file, without those of pictures
    pictures: tuple = ()          # its columns of pictures
    inside: tuple = ("",)         # sub-folders that may hold the files
    roots: tuple = ("",)          # sub-folders that paths of pictures may start from
    ask: str = ""                 # the shipped prompt's instruction for a direct answer, if it has one
    printed: dict = None          # metric -> the paper's numbers in percent, in the order of MODELS
    together: tuple = ()          # groups whose rows belong together when a sample is drawn (both orders, all questions on a set)
    package: str = ""             # a Python package that ships the files, if there is no folder
    open: Callable = None         # for files that need more than `read`: (entry, folder, report, pictures) -> (where, row, place)

    @property
    def count(self):
        """How many questions the published files have, None where that is not known."""
        return None if None in self.counts.values() else sum(self.counts.values())

    @property
    def paper(self):
        """The paper's numbers in percent: {model: {metric: number}}."""
        return {model: {metric: row[i] for metric, row in self.printed.items()} for i, model in enumerate(MODELS)} if self.printed else {}


MODELS = ("Qwen2.5-VL-7B", "Qwen2.5-VL-7B (CoT)", "Video-R1 (SFT)", "Video-R1 (RL)", "Argos")  # the rows of tables 1 and 2


@dataclass
class _Place:
    """Where a row came from, for the code that reads it."""
    entry: Benchmark
    folder: Path
    file: Path
    number: int
    pictures: bool

    @property
    def where(self):
        return f"{self.file.relative_to(self.folder) if self.folder in self.file.parents else self.file.name} row {self.number}"

    def picture(self, path):
        """A path in a data file -> where it lies. It is data: it may not lead out of the folder."""
        for root in self.entry.roots:
            try:
                found = Path(os.path.normpath(self.folder / root / path))
                if self.folder in found.parents and found.is_file():
                    return found
            except (OSError, ValueError):  # longer than a path may be, or with a NUL
                pass
        raise Unusable("picture missing, or outside the folder", path)

    def column(self, value, name):
        """A picture column, {"bytes", "path"} -> bytes. Only the head is looked at; media.load_media decodes."""
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


# ---- 2. From rows to Items: what differs between benchmarks -------------------------------------------------------------------
def _text(row, name):
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise Unusable("field missing", name)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unusable("not a text", name) from None
    return value


def _letter(text, options):
    """"(B)" -> "B", and only if there is such an option."""
    letter = text.strip().strip("().").upper()
    if len(letter) != 1 or letter not in LETTERS[:len(options) if options else 26]:
        raise Unusable("the truth is no option (a hidden answer?)", text)
    return letter


def _options(row, name):
    options = row.get(name)
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o.strip() for o in options):
        raise Unusable("options are not two or more texts", options)
    return options


def _blink(row, place):
    options = _options(row, "choices")
    shown = [("image", place.column(row[name], name)) for name in place.entry.pictures if row.get(name)]
    if place.pictures and not shown:
        raise Unusable("picture missing", "image_1")
    # The task is the folder's name: ids do not split at "_" or "-" ("val_Multi-view_Reasoning_7").
    yield Item(_text(row, "idx"), _text(row, "prompt"), _letter(_text(row, "answer"), options), shown, options,
               {"task": place.file.parent.name}, "choice")


def _cv_bench(row, place):
    options, kind = _options(row, "choices"), _text(row, "type")
    shown = [("image", place.column(row["image"], "image"))] if place.pictures else []
    # idx counts through both files as we know them; the type is put before it in case it does not.
    yield Item(f"{kind}-{row['idx']}", _text(row, "prompt"), _letter(_text(row, "answer"), options), shown, options,
               {"type": kind, "task": _text(row, "task"), "source": _text(row, "source")}, "choice")


_LISTED = re.compile(r"(?:^|\s)([A-E])\.\s")


def listed_options(question):
    """"... A. Above B. Under" -> ["Above", "Under"]: the last letters that count up from A. None where there are no two."""
    marks = list(_LISTED.finditer(question))
    starts = [i for i, m in enumerate(marks) if m[1] == "A"]
    if not starts:
        return None
    run = [m for n, m in enumerate(marks[starts[-1]:starts[-1] + 5]) if m[1] == LETTERS[n]]
    ends = [m.start() for m in run[1:]] + [len(question)]
    texts = [question[m.end():end].strip() for m, end in zip(run, ends)]
    return texts if len(texts) > 1 and all(texts) else None


def _mindcube(row, place):
    question, paths = _text(row, "question"), row.get("images")
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise Unusable("field missing", "images")
    name = _text(row, "id")
    # The official rule: the first of these words in the id; there are "aroundnew_..." ids (extractors.get_setting_from_id).
    setting = next((s for s in ("around", "rotation", "translation", "among") if s in name.lower()), "other")
    options = listed_options(question)
    yield Item(name, f"{MINDCUBE_TASK}\n[Question]\n{question}", _letter(_text(row, "gt_answer"), options),
               [("image", place.picture(p)) for p in paths], options, {"setting": setting}, "choice")


# The head of MindCube's own prompts; what follows it there is the format of the answer, which a prompt mode of ours sets.
MINDCUBE_TASK = ("[Task]\nYour task is to analyze the spatial arrangement of objects in the scene by examining the provided images, "
                 "which show the scene from different viewpoints.")
LETTER_ONLY = "Answer with the option's letter from the given choices directly."


def _countercurate(row, place):
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or len(turns) != 2:
        raise Unusable("not one question and one answer", turns)
    question = _text(turns[0], "value").replace("<image>", "").strip().removesuffix(LETTER_ONLY).strip()
    options = listed_options(question)
    # Paths are the author's own ("../../train_data/left_right/pos/1.jpg"): what counts is what follows train_data/. The original
    # pictures (pos) are not shipped: the authors' prepare_training_data.py copies them from Flickr30k.
    path = _text(row, "image").split("train_data/")[-1]
    yield Item(_text(row, "id"), question, _letter(_text(turns[1], "value"), options), [("image", place.picture(path))], options,
               {"task": "left/right" if "left_right" in place.file.name else "up/down"}, "choice")


def _hallusion(row, place):
    category, subcategory, one, figure, asked = (
        _text(row, n) for n in ("category", "subcategory", "set_id", "figure_id", "question_id"))
    truth = {"1": "yes", "0": "no"}.get(_text(row, "gt_answer"))
    if truth is None:
        raise Unusable("the truth is neither 0 nor 1", row["gt_answer"])
    textual = category == "VS" and figure == "0"  # a question of general knowledge, asked without its figure
    shown = []
    if not textual and "image" in place.entry.pictures and place.file.suffix == ".parquet":
        shown = [("image", place.column(row["image"], "image"))] if place.pictures else []
    elif not textual:  # an older release has "./hallusion_bench/VD/...", the present one "./VD/..."
        shown = [("image", place.picture(_text(row, "filename").removeprefix("./").removeprefix("hallusion_bench/")))]
    groups = {"category": category, "set": f"{category}/{subcategory}/{one}", "pair": f"{category}/{subcategory}/{one}/{asked}",
              "level": "easy" if figure == "0" else "hard", "seen": "text" if textual else "picture",
              "details": row.get("gt_answer_details") or ""}
    if not textual:
        groups["figure"] = f"{category}/{subcategory}/{one}/{figure}"
    yield Item(f"{category}/{subcategory}/{one}/{figure}/{asked}", _text(row, "question"), truth, shown, None, groups,
               "yesno or unclear" if textual else "yesno")


def _sugarcrepe(row, place):
    right, wrong = _text(row, "caption"), _text(row, "negative_caption")
    category = place.file.stem
    shown = [("image", place.picture(_text(row, "filename")))]
    for order, captions in (("positive first", [right, wrong]), ("negative first", [wrong, right])):
        pair = f"{category}/{row['key']}"
        yield Item(f"{pair}/{order[:8]}", "Which caption best describes the image?\n(1) {}\n (2) {}".format(*captions),
                   str(captions.index(right) + 1), shown, captions, {"category": category, "pair": pair, "order": order}, "choice")


def _pixmo(row, place):
    if row.get("count") is None:
        raise Unusable("field missing", "count")
    # No question is shipped (this wording: our choice, the one we train with in sources.py). val and test have no points.
    yield Item(f"{place.file.stem.partition('-')[0]}-{place.number}", f"How many {_text(row, 'label').strip()} are there in the image?",
               str(row["count"]), [("image", row["picture"])] if place.pictures else [], None,
               {"split": place.file.stem.partition("-")[0]}, "count")


def _video_r1(row, place):
    try:
        sample = Sample.from_row(row, place.file.parent, place.where)
    except BadInput as error:
        raise Unusable("not a usable row", str(error).removeprefix(f"{place.where}: ")) from None
    options, answer = sample.options, sample.answer
    if sample.kind == "choice" and options:
        options = [re.sub(rf"^\(?{LETTERS[i]}[).:]\s*", "", o) if i < 26 else o for i, o in enumerate(options)]
        answer = next(LETTERS[i] for i in range(len(options)) if outcome_score(LETTERS[i], answer, "choice", options) == 1)
    yield Item(sample.id, sample.question, answer, [(sample.media, Path(sample.path))], options,
               {"task": sample.task, "source": sample.source, "kind": sample.kind, "grounding": sample.grounding,
                "drawn": sample.drawn}, sample.kind)


def as_sample(item):
    """An Item on one picture or clip -> argos.Sample: figure 4 asks for visual grounding, too, which the verifier scores."""
    (media, source), = item.media
    known = {key: item.groups[key] for key in ("task", "source", "kind", "grounding", "drawn") if key in item.groups}
    kind = item.scorer if item.scorer in KINDS else "phrase"
    return Sample(**{"kind": kind} | known, id=item.id, question=item.question, answer=item.answer, path=str(source)[:200],
                        media=media, options=item.options)


def _easy_vqa(row, place):
    if not isinstance(row, list) or len(row) != 3 or not all(isinstance(v, str) and v.strip() for v in row[:2]):
        raise Unusable("not [question, answer, number of the picture]", row)
    question, answer, number = row
    yield Item(f"{number}-{place.number}", question, answer, [("image", place.picture(f"images/{number}.png"))], None,
               {"answer": "yes or no" if answer in ("yes", "no") else "open"}, "yesno" if answer in ("yes", "no") else "phrase")


# ---- 3. Two loaders that need more than a row ---------------------------------------------------------------------------------
def _open_pixmo(entry, folder, report, pictures):
    """PixMo-Count is published as links; a picture is known by its sha256 alone, whatever its file is called."""
    at = sources.by_sha256(folder / "images") if pictures else {}
    for where, row, place in _open(entry, folder, report, pictures):
        if pictures and isinstance(row, dict):
            row["picture"] = at.get(row["image_sha256"])
            if row["picture"] is None:
                report(f"{entry.title}: no picture with this sha256 (a dead or changed link)", where, str(row["image_url"])[:200])
                continue
        yield where, row, place


def _open_video_r1(entry, folder, report, pictures):
    """val.jsonl, the 1.5K that prepare.py held out (its paths are prepare.py's own and may lead elsewhere), or the whole CoT file."""
    if (folder / "val.jsonl").is_file():
        yield from _open(entry, folder, report, pictures)
        return
    rows = itertools.takewhile(lambda row: row["files"] == {sources.COT}, sources.video_r1(folder, report))  # the CoT file comes first
    for number, row in enumerate(rows, 1):
        yield row["id"], row, _Place(entry, folder, folder / sources.COT, number, pictures)


# ---- 4. The entries -----------------------------------------------------------------------------------------------------------
_BLINK = dict(Art_Style=117, Counting=120, Forensic_Detection=132, Functional_Correspondence=130, IQ_Test=150, Jigsaw=150,
              Multi_view_Reasoning=133, Object_Localization=122, Relative_Depth=124, Relative_Reflectance=134,
              Semantic_Correspondence=139, Spatial_Relation=143, Visual_Correspondence=172, Visual_Similarity=135)
_SUGARCREPE = dict(add_att=692, add_obj=2062, replace_att=788, replace_obj=1652, replace_rel=1406, swap_att=666, swap_obj=245)

BENCHMARKS = {
    "blink": Benchmark(
        "BLINK", "hf:BLINK-Benchmark/BLINK", ("*/val-*.parquet",), _blink,
        columns=("idx", "prompt", "choices", "answer"), pictures=("image_1", "image_2", "image_3", "image_4"),
        metrics={"accuracy": Metric(over=("task",)), "micro": Metric(), "": Metric(each="task")},  # official: the mean over 14 tasks
        part="task", counts={name.replace("Multi_view", "Multi-view"): n for name, n in _BLINK.items()},
        printed={"accuracy": (54.4, 53.5, 52.7, 49.0, 56.0)}),
    "mindcube": Benchmark(
        "MindCube-tiny", "hf:MLL-Lab/MindCube, data.zip unpacked", ("MindCube_tinybench.jsonl",), _mindcube,
        inside=("", "data/raw", "raw"), roots=("", "data"), ask="Answer with the option, like this: <answer>A. Above</answer>",
        # Official: pooled over all but translation, of which the tiny set has none.
        metrics={"accuracy": Metric(where={"setting": ("around", "rotation", "among", "other")}), "": Metric(each="setting")},
        part="setting", counts={"among": 600, "around": 250, "rotation": 200},
        printed={"accuracy": (34.9, 33.1, 34.2, 31.9, 39.6)}),
    "cv-bench": Benchmark(
        "CV-Bench", "hf:nyu-visionx/CV-Bench", ("test_2d*.parquet", "test_3d*.parquet"), _cv_bench, inside=("", "data"),
        columns=("idx", "type", "task", "prompt", "choices", "answer", "source"), pictures=("image",),
        # The data card: 2D is the mean of ADE20K and COCO, 3D is Omni3D, the whole is the mean of both.
        metrics={"accuracy": Metric(over=("type", "source")), "": Metric(over=("source",), each="type"), "task ": Metric(each="task")},
        part="type", counts={"2D": 1438, "3D": 1200},  # the sum is in the data card, the two numbers are from the Cambrian-1 paper
        printed={"accuracy": (77.0, 75.6, 75.1, 60.2, 78.2), "3D": (77.9, 76.6, 75.6, 57.2, 82.0)}),
    "countercurate": Benchmark(
        "CounterCurate", "hf:HanSolo9682/Flickr30k-Counterfactuals, llava_sample_data and train_data.tar.gz unpacked; its pos/ pictures "
        "are Flickr30k's and are copied by the authors' prepare_training_data.py",
        ("test_left_right_.json", "test_up_down_.json"), _countercurate, inside=("", "llava_sample_data"), roots=("", "train_data"),
        ask=LETTER_ONLY,
        # The authors' script only writes answers down. Mean of both files: our choice, the paper prints one number.
        metrics={"accuracy": Metric(over=("task",)), "micro": Metric(), "": Metric(each="task")},
        part="task", counts={"left/right": None, "up/down": None}, printed={"accuracy": (61.4, 60.4, 60.6, 63.6, 85.3)}),
    # All 1129 official questions, since the paper counts 1129: those on 346 figures, and 178 asked without one, where an unclear
    # answer is right, too. Harnesses that match strings, as we do, take the 951 with a picture: "pictures ..." is their number.
    # Which accuracy the paper prints it does not say. It is no aAcc, where "no" alone earns 57 %; the mean of the three, the
    # leaderboards' number, is our guess.
    "hallusionbench": Benchmark(
        "HallusionBench", "github:tianyi-lab/HallusionBench (HallusionBench.json and hallusion_bench.zip) or hf:lmms-lab/HallusionBench",
        ("HallusionBench.json", "image-*.parquet", "non_image-*.parquet"), _hallusion, inside=("", "data", "hallusion_bench"),
        roots=("", "hallusion_bench"), columns=("category", "subcategory", "set_id", "figure_id", "question_id", "question",
                                                "gt_answer", "gt_answer_details", "filename"), pictures=("image",),
        metrics={"average": Metric(of=("aAcc", "fAcc", "qAcc")), "aAcc": Metric(), "fAcc": Metric(unit="figure", all=True),
                 "qAcc": Metric(unit="pair", all=True), "easy": Metric({"level": "easy"}, unit="pair", all=True),
                 "hard": Metric({"level": "hard"}, unit="pair", all=True),
                 "pictures aAcc": Metric({"seen": "picture"}), "pictures qAcc": Metric({"seen": "picture"}, unit="pair", all=True),
                 "pictures average": Metric(of=("pictures aAcc", "fAcc", "pictures qAcc"))},
        part="category", counts={"VD": 591, "VS": 538}, together=("set",), printed={"average": (42.4, 38.6, 40.1, 25.8, 46.6)}),
    # The official number compares CLIP's similarities, which a model that writes has none of; this is the repository's prompt for
    # GPT-4V, asked in both orders. 7,511 captions (the paper counts one more swap_obj), so twice as many questions.
    "sugarcrepe": Benchmark(
        "SugarCrepe", "github:RAIVNLab/sugar-crepe data/*.json, with COCO's val2017 beside", tuple(f"{n}.json" for n in _SUGARCREPE),
        _sugarcrepe, inside=("", "data"), roots=("", "val2017", "images", "coco/val2017"), ask="Output (1) or (2).",
        metrics={"micro": Metric(unit="pair"), "macro": Metric(unit="pair", over=("category",)), "": Metric(unit="pair", each="category"),
                 "positive first": Metric({"order": "positive first"}), "negative first": Metric({"order": "negative first"})},
        part="category", counts={name: 2 * n for name, n in _SUGARCREPE.items()}, together=("pair",),
        printed={"micro": (85.2, 83.2, 83.3, 79.9, 86.4)}),  # micro or macro: not said
    "pixmo-count": Benchmark(
        "PixMo-Count", "hf:allenai/pixmo-count, with the pictures of image_url in images/", ("validation-*.parquet", "test-*.parquet"),
        _pixmo, inside=("", "data"), columns=("image_url", "image_sha256", "count", "label"), open=_open_pixmo,
        metrics={"test": Metric({"split": "test"}), "validation": Metric({"split": "validation"})},
        part="split", counts={"validation": 540, "test": 540}),
    # Figure 4: the share of right answers, and the visual grounding that the verifier gives (rows bring it as "grounding").
    "video-r1": Benchmark(
        "Video-R1-CoT, held out", "benchmarks/prepare.py's val.jsonl, or hf:Video-R1/Video-R1-data", ("val.jsonl", sources.COT),
        _video_r1, open=_open_video_r1, metrics={"accuracy": Metric(), "": Metric(each="kind")}, part="held out", counts={"": None}),
    "easy-vqa": Benchmark(
        "easy-vqa, test", "PyPI easy-vqa 1.0", ("questions.json",), _easy_vqa, inside=("test", "data/test"),
        roots=("test", "data/test"), metrics={"accuracy": Metric(), "": Metric(each="answer")}, package="easy_vqa",
        part="", counts={"": 9673}),
}


# ---- 5. The loader ------------------------------------------------------------------------------------------------------------
def items(name, folder, report, pictures=True):
    """Yield the Items of a benchmark, lazily. folder: its files. report(reason, where, detail): every row left out, every wrong count.

    pictures=False leaves picture columns unread, for counting and for drawing a sample; rows whose picture is missing there or
    damaged are then found only when it is read. Raises BadInput where files are missing or are not what they should be.
    """
    entry, folder = find(name, folder)
    tell = lambda reason, where, detail="": report(f"{entry.title}: {reason}", where, str(detail)[:200])
    seen, met = set(), Counter()
    for where, row, place in (entry.open or _open)(entry, folder, report, pictures):
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
    if not _files(entry, folder) and entry.package and (spec := importlib.util.find_spec(entry.package)):
        folder = Path(spec.origin).parent.resolve()
    if not _files(entry, folder):
        raise BadInput(f"{folder}: holds no {' or '.join(entry.files)}; give the folder that {entry.where} was downloaded to")
    return entry, folder


def _files(entry, folder):
    for inside in entry.inside:
        files = sorted({file for pattern in entry.files for file in (folder / inside).glob(pattern) if file.is_file()})
        if files:
            return files
    return []


def _open(entry, folder, report, pictures):
    """Yield (where, row, place) of every row of an entry's files, in the order of their names."""
    for file in _files(entry, folder):
        try:
            for number, row in _rows(file, entry, report, pictures):
                place = _Place(entry, folder, file, number, pictures)
                yield place.where, row, place
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: cannot be read ({error.__class__.__name__}); download it again") from None


def _rows(file, entry, report, pictures):
    """(row number, row) of a parquet file, a JSONL file, or a JSON list or dictionary too large to hold."""
    if file.suffix == ".parquet":
        return _parquet(file, entry, pictures)
    if file.suffix == ".jsonl":
        return _jsonl(file, entry, report)
    with open(file, "rb") as start:
        return sources.json_list(file) if start.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{" else _json_dict(file)


def _parquet(file, entry, pictures):
    """Only the columns asked for; the "huggingface" entry of the schema's metadata is not looked at."""
    import pyarrow
    import pyarrow.parquet
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            there = set(parquet.schema_arrow.names)
            absent = [name for name in entry.columns if name not in there]
            if absent:
                raise BadInput(f"{file}: has no column {', '.join(absent)}; download it again from {entry.where}")
            columns = [*entry.columns, *(name for name in entry.pictures if pictures and name in there)]
            for batch in parquet.iter_batches(32, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{file}: not a whole parquet file ({str(error).splitlines()[0][:80]}); download it again") from None


def _jsonl(file, entry, report):
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    report(f"{entry.title}: not JSON", f"{file.name} row {number}", str(error)[:80])


def _json_dict(file):
    """{"0": {...}, ...} -> its objects, each with its key; a key given twice comes twice."""
    import ijson
    with open(file, "rb") as handle:
        try:
            for number, (key, row) in enumerate(ijson.kvitems(handle, "", use_float=True), 1):
                yield number, row | {"key": key} if isinstance(row, dict) else row
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: is not a whole JSON dictionary ({str(error).splitlines()[0][:80]}); download it again") from None
