"""The benchmarks' files in exactly their published schemas, with tiny pictures, a few rows and every trap that their loaders must survive.

    write_all(folder)      # every benchmark into folder/<name>: what `evaluate.py --benchmark all --data folder` reads
    write_blink(folder)    # one of them; returns how many questions can be asked

Each writer's docstring names the rows that must be reported and left out. The schemas: the data sets' cards and code.
"""
import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # datasets' Image feature
# What newer versions of `datasets` write beside the schema; older ones fail on it, pyarrow does not look.
METADATA = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "choices": {"_type": "List"}}}}).encode()}


def png(color=(200, 30, 30), size=(28, 28)):
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, "PNG")
    return data.getvalue()


def shown(color=(200, 30, 30)):
    return {"bytes": png(color), "path": "x.png"}


def picture(path, color=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(color))


def parquet(path, columns, rows):
    """columns: [(name, type)]; a column that a row lacks is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(columns, metadata=METADATA)
    pq.write_table(pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in columns}, schema=schema), path,
                   row_group_size=2)


TEXT, TEXTS = pa.string(), pa.list_(pa.string())


def write_blink(folder):
    """Three of 14 tasks, one of them in two shards. Left out: an id used twice, a row without any picture, one whose picture is no
    picture, a hidden answer (test rows have them)."""
    columns = [(name, TEXT) for name in ("idx", "question", "sub_task")] + [(f"image_{i}", IMAGE) for i in range(1, 5)] + [
        ("choices", TEXTS), ("answer", TEXT), ("prompt", TEXT), ("explanation", TEXT)]

    def row(task, n, choices, answer, pictures=1, **more):
        listed = "\n".join(f"({letter}) {text}" for letter, text in zip("ABCD", choices))
        return {"idx": f"val_{task}_{n}", "question": "Which?", "sub_task": task, "choices": choices, "answer": answer, "explanation": "",
                "prompt": f"Which?\nSelect from the following choices.\n{listed}"} | {f"image_{i}": shown() for i in range(1,
                    pictures + 1)} | more

    counting = [row("Counting", n, ["0", "3", "2", "1"], "(D)") for n in range(1, 5)]
    for shard in range(2):
        parquet(folder / f"Counting/val-0000{shard}-of-00002.parquet", columns, counting[2 * shard:2 * shard + 2])
    parquet(folder / "Multi-view_Reasoning/val-00000-of-00001.parquet", columns, [
        row("Multi-view_Reasoning", 1, ["left", "right"], "(A)", 2), row("Multi-view_Reasoning", 1, ["left", "right"], "(B)", 2)])
    parquet(folder / "Jigsaw/val-00000-of-00001.parquet", columns, [
        row("Jigsaw", 1, ["the second image", "the third image"], "(B)", 3), row("Jigsaw", 2, ["a", "b"], "(A)", 0),
        row("Jigsaw", 3, ["a", "b"], "(A)", image_1={"bytes": b"not a picture", "path": None}), row("Jigsaw", 4, ["a", "b"], "hidden")])
    parquet(folder / "Jigsaw/test-00000-of-00001.parquet", columns, [row("Jigsaw", 9, ["a", "b"], "hidden")])  # not read
    return 6


def write_mindcube(folder):
    """As data.zip unpacks. Left out: a line that is no JSON, a picture that is missing, two that lie outside the folder, a truth
    that is no option."""
    pictures = [f"other_all_image/among/backpack_002/{side}.jpg" for side in ("front", "left")]
    for name in pictures:
        picture(folder / "data" / name)
    picture(folder.parent / "outside.png")  # it exists, but it is not the benchmark's
    options = " A. Directly left B. Diagonally forward and right C. Diagonally forward and left D. Directly right"

    def row(name, answer="C", images=pictures, options=options):
        return json.dumps({"id": name, "category": ["perpendicular", "P-P"], "type": "0_frame", "meta_info": [["bag"], [None, "face"]],
                           "question": f"Based on these two views of the scene: where is the bag from view 1?{options}", "images": images,
                           "gt_answer": answer})
    lines = [row("among_group002_q0_1_1"), row("aroundnew_group1_q0", "A"), row("Around_group1_q1", "B"), row("rotation_group1_q0", "D"),
             row("among_group002_q0_1_2", "E", options=options + " E. Above"), "{torn",
             row("among_group9_q0", images=["other_all_image/none.jpg"]),
             row("among_group9_q1", images=["../outside.png"]),
             row("among_group9_q3", images=[str(folder.parent.resolve() / "outside.png")]), row("among_group9_q2", "E")]
    (folder / "data/raw").mkdir(parents=True, exist_ok=True)
    (folder / "data/raw/MindCube_tinybench.jsonl").write_text("\n".join(lines) + "\n")
    return 5


def write_cv_bench(folder):
    """2D of two sources in unequal numbers, 3D with boxes. Left out: a picture column that is null."""
    columns = [("idx", pa.int64()), ("type", TEXT), ("task", TEXT), ("image", IMAGE), ("question", TEXT), ("choices", TEXTS),
               ("answer", TEXT),
               ("prompt", TEXT), ("filename", TEXT), ("source", TEXT), ("source_dataset", TEXT), ("source_filename", TEXT),
               ("target_class", TEXT), ("target_size", pa.int64()), ("bbox", pa.list_(pa.list_(pa.float64())))]

    def row(idx, kind, task, source, answer, choices=("3", "2", "1", "0"), **more):
        listed = "\n".join(f"({letter}) {text}" for letter, text in zip("ABCD", choices))
        return {"idx": idx, "type": kind, "task": task, "image": shown(), "question": "How many?", "choices": list(choices),
                "answer": answer,
                "prompt": f"How many? Select from the following choices.\n{listed}", "filename": f"img/{idx}.png", "source": source} | more

    parquet(folder / "test_2d.parquet", columns, [row(0, "2D", "Count", "ADE20K", "(C)"), row(1, "2D", "Count", "COCO", "(A)"),
                                                  row(2, "2D", "Relation", "COCO", "(B)", ("above", "below")),
                                                  row(3, "2D", "Count", "COCO", "(A)", image=None)])
    parquet(folder / "test_3d.parquet", columns, [row(4, "3D", "Depth", "Omni3D", "(A)", ("chair", "table"), bbox=[[1., 2., 3., 4.]]),
                                                  row(5, "3D", "Distance", "Omni3D", "(B)", ("chair", "table"))])
    return 5


def write_countercurate(folder):
    """Paths of the author's machine. Left out: a pos picture that was never copied from Flickr30k, one outside the folder. The file of
    both tasks together, which would double every question, is not read."""
    asked = ("<image>\nWhich of the following captions best describes the image?\nA. {}\nB. {}\n"
             "Answer with the option's letter from the given choices directly.")

    def row(task, n, image, answer, captions):
        return {"id": f"{task}_{n}", "image": image, "conversations": [{"from": "human", "value": asked.format(*captions)},
                                                                        {"from": "gpt", "value": answer}]}
    lr, ud = ("A dog is to the left of a man.", "A dog is to the right of a man."), ("A cup is above a hat.", "A cup is below a hat.")
    left_right = [row("left_right", 1, "../../train_data/left_right/pos/10.jpg", "A", lr),
                  row("left_right", 2, "../../train_data/left_right/neg/10_0.png", "B", lr),
                  row("left_right", 3, "../../train_data/left_right/pos/11.jpg", "A", lr)]
    up_down = [row("up_down", 1, "/home/me/train_data/up_down/pos/10.jpg", "B", ud),
               row("up_down", 2, "../../train_data/../../outside.png", "B", ud)]
    for name in ("left_right/pos/10.jpg", "left_right/neg/10_0.png", "up_down/pos/10.jpg"):
        picture(folder / "train_data" / name)
    picture(folder.parent / "outside.png")
    (folder / "llava_sample_data").mkdir(parents=True, exist_ok=True)
    for name, rows in (("left_right", left_right), ("up_down", up_down), ("left_right_up_down", left_right + up_down)):
        (folder / f"llava_sample_data/test_{name}_.json").write_text(json.dumps(rows, indent=4))
    return 3


def hallusion_rows():
    """VD: two figures with two questions each; VS: the same question without a figure, with its figure, and with a changed one."""
    def row(category, subcategory, figure, asked, truth, seen):
        return {"category": category, "subcategory": subcategory, "visual_input": seen, "set_id": "1", "figure_id": figure,
                "sample_note": "note",
                "question_id": asked, "question": "Is the top line longer?", "gt_answer_details": "The lines are the same length.",
                "gt_answer": truth, "filename": None if seen == "0" else f"./{category}/{subcategory}/1_{figure}.png"}
    return [row("VD", "illusion", figure, asked, truth, "1" if figure == "0" else "2")
            for figure, asked, truth in (("0", "0", "0"), ("0", "1", "1"), ("1", "0", "1"), ("1", "1", "0"))] + [
        row("VS", "chart", figure, "0", truth, figure) for figure, truth in (("0", "0"), ("1", "0"), ("2", "1"))]


def write_hallusionbench(folder):
    """HallusionBench.json with the pictures as the zip unpacks; one path is an older release's. Left out: a missing picture."""
    rows = hallusion_rows()
    rows[1]["filename"] = "./hallusion_bench/VD/illusion/1_0.png"
    rows.append(rows[0] | {"set_id": "9", "filename": "./VD/illusion/9_0.png"})
    (folder).mkdir(parents=True, exist_ok=True)
    (folder / "HallusionBench.json").write_text(json.dumps(rows))
    for row in rows[:-1]:
        if row["filename"]:
            picture(folder / "hallusion_bench" / row["filename"].split("hallusion_bench/")[-1])
    return 7


def write_hallusionbench_parquet(folder):
    """The same rows as lmms-lab ships them: the 951 with a picture in one file, the others in another."""
    rows = hallusion_rows()
    columns = [(name, TEXT) for name in rows[0]] + [("image", IMAGE)]
    parquet(folder / "data/image-00000-of-00001.parquet", columns, [row | {"image": shown()} for row in rows if row["filename"]])
    parquet(folder / "data/non_image-00000-of-00001.parquet", columns, [row for row in rows if not row["filename"]])
    return 7


def write_sugarcrepe(folder):
    """Two of seven categories, keys not in order, a key twice in one file. Left out: that repeat, and a picture that is missing."""
    pair = lambda name: {"filename": name, "caption": "A cat sits on a mat.", "negative_caption": "A mat sits on a cat."}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data/swap_obj.json").write_text('{"10": %s, "2": %s, "2": %s}' % (*[json.dumps(pair("000000000001.jpg"))] * 3,))
    (folder / "data/add_att.json").write_text(json.dumps({"0": pair("000000000001.jpg"), "1": pair("000000000404.jpg")}))
    (folder / "data_unrefined").mkdir(exist_ok=True)
    (folder / "data_unrefined/swap_obj.json").write_text(json.dumps({"0": pair("000000000001.jpg")}))  # not the benchmark
    picture(folder / "val2017/000000000001.jpg")
    return 6


def write_pixmo_count(folder):
    """Links and hashes; points empty. Left out: a dead link, a file that has changed since, a row without a count."""
    point = pa.struct([("x", pa.list_(pa.float32())), ("y", pa.list_(pa.float32()))])
    columns = [("image_url", TEXT), ("image_sha256", TEXT), ("count", pa.int32()), ("points", point), ("label", TEXT)]
    images = {f"deep/any name {i}": png((i, 90, 90)) for i in range(3)}
    for name, data in images.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(data if "2" not in name else data + b"changed")
    rows = [{"image_url": f"http://x/{name}", "image_sha256": hashlib.sha256(data).hexdigest(), "count": 2 + i,
             "points": {"x": [], "y": []},
             "label": "red cars"} for i, (name, data) in enumerate(images.items())]
    parquet(folder / "data/test-00000-of-00001.parquet", columns, rows + [rows[0] | {"image_sha256": "0" * 64}, rows[1] | {"count": None}])
    parquet(folder / "data/validation-00000-of-00001.parquet", columns, rows[:1])
    parquet(folder / "data/train-00000-of-00001.parquet", columns, rows)  # not the benchmark
    return 3


def write_video_r1(folder, published=False):
    """val.jsonl as prepare.py writes it, or the published CoT file. Left out: a missing file, a truth that is no option."""
    picture(folder / "General/a.png")
    rows = [("multiple choice", "choice", "B", ["A. cats", "B. dogs"]), ("numerical", "number", "2.5", []), ("OCR", "ocr", "EXIT ONLY", []),
            ("free-form", "free", "a dog", []), ("regression", "regression", "3.2", []), ("free-form", "free", "gone", []),
            ("multiple choice", "choice", "E", ["A. cats", "B. dogs"])]
    if published:
        made = [{"problem_id": n, "problem": f"What is it, {n}?", "data_type": "image", "problem_type": theirs, "options": options,
                 "process": "<think>hm</think>", "solution": f"<answer>{answer}</answer>",
                 "path": "./General/gone.png" if answer == "gone" else "./General/a.png", "data_source": "x"}
                for n, (theirs, _, answer, options) in enumerate(rows)]
        (folder / "Video-R1-COT-165k.json").write_text(json.dumps(made))
        # The questions of the other file belong to training: none of them may be asked here.
        (folder / "Video-R1-260k.json").write_text(json.dumps([made[1] | {"problem_id": 99, "problem": "Another?"}]))
    else:
        (folder / "val.jsonl").write_text("".join(json.dumps(
            {"id": f"v{n}", "question": f"What is it, {n}?" + "".join(f"\n{o}" for o in options), "answer": answer, "kind": kind,
             "task": theirs,
             "source": "Video-R1 General", "image": "General/gone.png" if answer == "gone" else "General/a.png"}
            | ({"options": options} if options else {})) + "\n" for n, (theirs, kind, answer, options) in enumerate(rows)))
    return 5


def write_easy_vqa(folder):
    """The package's files. Left out: a question about a picture that is not there."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    (folder / "test/questions.json").write_text(json.dumps([["what shape is in the image?", "circle", 0], ["is there a circle?", "yes", 0],
                                                            ["what color is the shape?", "teal", 1], ["is there a circle?", "no", 7]]))
    for i in range(2):
        picture(folder / f"test/images/{i}.png", (0, 128, 128))
    (folder / "answers.txt").write_text("circle\nteal\nyes\nno\n")
    return 3


WRITERS = {"blink": write_blink, "mindcube": write_mindcube, "cv-bench": write_cv_bench, "countercurate": write_countercurate,
           "hallusionbench": write_hallusionbench, "sugarcrepe": write_sugarcrepe, "pixmo-count": write_pixmo_count,
           "video-r1": write_video_r1, "easy-vqa": write_easy_vqa}


def write_all(folder):
    """Every benchmark into folder/<name> -> {name: how many questions can be asked}."""
    made = {}
    for name, write in WRITERS.items():
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        made[name] = write(Path(folder) / name)
    return made
