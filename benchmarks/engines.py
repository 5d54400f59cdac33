"""rl.jsonl as the data of another trainer, EasyR1, verl, TRL or ms-swift: pictures as the policy sees them.

A point is a pixel of the picture as the policy saw it. Each engine resizes pictures by a rule of its own (EasyR1
shrinks first and rounds afterwards: 7 in 10 then differ from ours), ignores how a photograph is turned, and fills
what is transparent with black. So here every picture is written in its final form: upright, on white, in the size
that Qwen2.5-VL's rule gives it within the pixel budget. Such a picture passes all of them unchanged
(tests/test_engines.py), and the verifier, which reads the same file, sees the same pixels.

    --engine easyr1   rl-easyr1.jsonl   problem: "<image>" and the prompt; images: [path]; answer: the row
    --engine verl     rl-verl.parquet   prompt: a chat, with "<image>"; images: [{image, min_pixels, max_pixels}];
                                        data_source; reward_model: {style, ground_truth: the row}; ...
    --engine trl      rl-trl.jsonl      prompt: a chat; images: [path]; row: the row
    --engine swift    rl-swift.jsonl    messages: a chat, with "<image>"; images: [path]; row: the row; ...

"The row" is the sample's row of rl.jsonl, as one line of JSON: what rewards.py hands to serve.py. Its picture is
named relative to --out, where `serve.py --data OUT` finds it; answers of kind "free" have got their foils. The
prompt is what train_grpo.py asks, word for word.

TRL reads its file by
    datasets.load_dataset("json", data_files="data/trl/rl-trl.jsonl", split="train")

Left out, named and counted: files that cannot be read, and questions that hold a mark such as "<image>", where
engines would look for another picture. Clips are refused: these engines pick other frames than the verifier reads
(EasyR1 2 a second without a limit, and it stops where a file mixes clips with pictures), and TRL shows the model
none at all. --skip_clips leaves them out instead.

What is simplified: where a picture is so long and thin that even its rounded size exceeds the budget, the rule
shrinks it once more each time that it is applied, and here it is applied until nothing changes. Such strips are
smaller here than in train_sft.py.

Run:    python -m benchmarks.engines --engine easyr1 --data data/rl.jsonl --policy out/sft/merged --out data/easyr1
        and again with --data data/val.jsonl: the files share the folder, and EasyR1 asks for both
Writes: under --out, the file named above; pictures/; argos.json, the pixel budget, which serve.py follows
Before: train_sft.py. Next: serve.py, rewards.py, benchmarks/engines.md
"""
import hashlib
import io
import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from tqdm import tqdm
from transformers import AutoProcessor

from runs.checkpoints import NO_CODE, budget_of, follow_budget, shown_pixels, write_budget
from runs.errors import BadInput, BadMedia, first_line, printable, run_main, warn
from runs.files import alone, save_figure, write_atomically
from runs.settings import TOKEN, Settings, flag, parse_config, pixel_budget, preset_arguments
from verifier.coordinates import seen_size
from verifier.media import load_media
from verifier.samples import Sample, read_samples
from policy import harmless, prompt


# ---- 1. Configuration --------------------------------------------------------------------------------------
@dataclass
class Config(Settings):
    engine: str = flag("easyr1", "easyr1, verl, trl or swift: whose data to write")
    data: str = flag("out/data/rl.jsonl", "questions with answers, as train_grpo.py reads them")
    policy: str = flag("out/sft/merged", "the model that the engine will train; its pixel budget is followed")
    out: str = flag("out/engine", "folder to write; several files of data may share it")
    skip_clips: bool = flag(False, "leave out the questions about clips, instead of stopping at them")


# ---- 2. The engines ----------------------------------------------------------------------------------------
# Their rows. text: of the prompt; picture: its absolute path; row: of rl.jsonl, as JSON; index: its place.
def easyr1_row(text, picture, row, index, cfg):
    return {"problem": "<image>" + text, "images": [picture], "answer": row}


def verl_row(text, picture, row, index, cfg):
    """verl resizes by qwen_vl_utils, whose bounds are its own unless the picture brings others."""
    return {
        "data_source": "argos",
        "prompt": [{"role": "user", "content": "<image>" + text}],
        "images": [{"image": picture, **pixel_bounds(cfg)}],
        "ability": "vision",
        "reward_model": {"style": "rule", "ground_truth": row},
        "extra_info": {"index": index},
    }


def trl_row(text, picture, row, index, cfg):
    """TRL puts the pictures before the text by itself."""
    return {"prompt": [{"role": "user", "content": text}], "images": [picture], "row": row}


def swift_row(text, picture, row, index, cfg):
    """ms-swift hands further columns, such as row, to the reward. It resizes as verl does."""
    chat = [{"role": "user", "content": "<image>" + text}]
    return {"messages": chat, "images": [picture], "chat_template_kwargs": pixel_bounds(cfg), "row": row}


@dataclass
class Engine:
    title: str
    row: callable
    clips: str            # why it gets none
    marks: tuple          # where it cuts the text of a prompt, to put something else there
    settings: tuple       # lines of its command
    ending: str = "jsonl"


OTHER_FRAMES = "picks other frames of a clip than the verifier reads"
ENGINES = {
    "easyr1": Engine(
        title="EasyR1", row=easyr1_row, marks=("<image>",),
        clips="takes 2 frames a second of a clip, without a limit, and fails where a file has clips and pictures",
        settings=("worker.actor.model.model_path={policy}", "data.train_files={path}",
                  "data.prompt_key=problem data.answer_key=answer data.image_key=images data.format_prompt=null",
                  "data.max_prompt_length={longest} data.min_pixels={min_pixels} data.max_pixels={max_pixels}",
                  "worker.reward.reward_function={rewards}:easyr1")),
    "verl": Engine(
        title="verl", row=verl_row, marks=("<image>", "<video>", "<audio>"), clips=OTHER_FRAMES, ending="parquet",
        settings=("actor_rollout_ref.model.path={policy}", "data.train_files={path}",
                  "data.image_key=images data.max_prompt_length={longest}",
                  "reward.custom_reward_function.path={rewards} reward.custom_reward_function.name=verl")),
    "trl": Engine(
        title="TRL", row=trl_row, marks=(), clips="shows the model no clip: it would train blind",
        settings=('train_dataset=load_dataset("json", data_files="{path}", split="train")',
                  'GRPOTrainer(model="{policy}", reward_funcs=rewards.trl, train_dataset=train_dataset, ...)')),
    "swift": Engine(
        title="ms-swift", row=swift_row, clips=OTHER_FRAMES,
        marks=("<image>", "<video>", "<audio>", "<bbox>", "<ref-object>", "<cot-process>", "<start-image>"),
        settings=("--model {policy}", "--dataset {path}", "--max_length {longest}  # and the response's")),
}


def row_for_reward(sample, picture):
    """A sample as a row of rl.jsonl, one line of JSON, whose picture has this name.

    Fields at their default are left out, and "raw", which only curation reads.
    """
    default = vars(Sample(None, None, None, None, None))
    row = {name: value for name, value in vars(sample).items() if value != default[name]}
    del row["path"]
    row.pop("raw", None)
    return json.dumps(row | {"image": picture}, sort_keys=True)


# ---- 3. Pictures in their final form -----------------------------------------------------------------------
def pixel_bounds(cfg):
    """The fewest and the most pixels of a picture, by the names that the engines have for them."""
    return {"min_pixels": min(cfg.min_pixels, cfg.image_pixels), "max_pixels": cfg.image_pixels}


def final_picture(path, cfg):
    """A picture as the policy sees it, RGB, in a size that no application of the rule changes any more.

    Raises BadMedia for a file that cannot be read or moves, and where the budget allows its shape no such size.
    """
    media = load_media(path, **pixel_budget(cfg))
    if len(media.frames) > 1:
        raise BadMedia(f"{path}: is an animation, and {ENGINES[cfg.engine].title} {ENGINES[cfg.engine].clips}")
    picture = media.frames[0]
    size = final_size(*picture.size, **pixel_bounds(cfg))
    if size != picture.size:
        picture = picture.resize(size, Image.BICUBIC)
    return Image.fromarray(np.asarray(picture))  # the pixels alone, no colour profile that a reader could apply


def final_size(width, height, min_pixels, max_pixels):
    """The size (width, height) at which Qwen2.5-VL's rule comes to rest.

    Nearly always its first. But a strip of 28 x 5,600 pixels becomes 28 x 2,352 where 28,224 pixels are allowed,
    which is still too much; then 28 x 1,512, ... and stays at 28 x 1,008.

    >>> final_size(5600, 28, 7056, 28224), final_size(640, 480, 7056, 28224)
    ((1008, 28), (168, 140))
    """
    size = width, height
    for _ in range(100):
        previous = size
        size = seen_size(*previous, 1, min_pixels, max_pixels)
        if size == previous:
            return size
    raise BadMedia(f"a picture of {width} x {height} px: no multiples of 28 near its shape have {min_pixels} to "
                   f"{max_pixels} pixels; crop it, or allow more by --image_pixels")


def write_picture(picture, out):
    """Write it as PNG under its digest, so that equal pictures are one file -> its name relative to out."""
    content = hashlib.blake2b(f"{picture.size}".encode() + picture.tobytes(), digest_size=10)
    name = f"pictures/{content.hexdigest()}.png"
    save_figure(picture, out / name)
    return name


# ---- 4. The prompt -----------------------------------------------------------------------------------------
class Asker:
    """What the policy is asked, and how many tokens that is: its chat template and tokenizer."""

    def __init__(self, cfg):
        self.preset = cfg.preset
        self.processor = load_processor(cfg.policy)
        low, high = shown_pixels(self.processor)
        fewest, most = pixel_bounds(cfg).values()
        if low > fewest or high < most:
            raise BadInput(f"--policy {cfg.policy}: its processor would resize these pictures, of {fewest} to "
                           f"{most} pixels, to {low} to {high}; set --min_pixels and --image_pixels within that")

    def text(self, sample):
        """As train_grpo.py asks."""
        return harmless(prompt(self.preset, "reason", question=sample.question))

    def count(self, text, size):
        """Tokens of the prompt with a picture of this size (width, height)."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False,
                                                  add_generation_prompt=True)
        placeholder = 1  # stands for all tokens of the picture
        return len(self.processor.tokenizer(chat)["input_ids"]) - placeholder + size[0] * size[1] // TOKEN


def load_processor(path):
    """Raises BadInput, one line, where there is none. A local path is not looked for in the hub."""
    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=Path(path).parent.is_dir(), **NO_CODE)
        processor.apply_chat_template([{"role": "user", "content": []}])  # tried here: not all folders have one
    except Exception as error:  # many kinds
        raise BadInput(f"--policy {path}: no processor can be loaded from there ({first_line(error)}); name the "
                       "model that the engine will train, such as out/sft/merged") from None
    return processor


# ---- 5. The whole file -------------------------------------------------------------------------------------
@dataclass
class Exported:
    """What was made."""
    rows: list
    sizes: list     # (width, height) of each picture
    longest: int    # tokens of the longest prompt
    unusable: list  # a line for each row that was left out, clips not among them


def without_clips(samples, cfg):
    """Raises BadInput, which names the first, unless they are to be left out."""
    clips = [sample for sample in samples if sample.media == "video"]
    if clips and not cfg.skip_clips:
        engine = ENGINES[cfg.engine]
        raise BadInput(f"{cfg.data}: {clips[0].id} is about a clip, as are {len(clips)} of {len(samples)} rows, "
                       f"and {engine.title} {engine.clips}; --skip_clips leaves them out")
    return [sample for sample in samples if sample.media != "video"]


def export(samples, asker, cfg):
    """Write the samples' pictures, make the engine's rows -> Exported. What cannot be used is left out."""
    out = Path(cfg.out).resolve()
    made = Exported([], [], 0, [])
    written = {}  # path of a file -> the name of its picture, and its size
    for sample in tqdm(samples, desc="export", unit="row"):
        try:
            refuse_marks(sample, cfg)
            if sample.path not in written:
                picture = final_picture(sample.path, cfg)
                written[sample.path] = write_picture(picture, out), picture.size
        except BadMedia as error:
            made.unusable.append(f"left out: {sample.id}: {error}")
            continue
        name, size = written[sample.path]
        text = asker.text(sample)
        row = row_for_reward(sample, name)
        made.rows.append(ENGINES[cfg.engine].row(text, str(out / name), row, len(made.rows), cfg))
        made.sizes.append(size)
        made.longest = max(made.longest, asker.count(text, size))
    return made


def refuse_marks(sample, cfg):
    """Raises BadMedia for a question in which the engine would look for another file than the sample's."""
    engine = ENGINES[cfg.engine]
    for mark in engine.marks:
        if mark in sample.question:
            raise BadMedia(f"its question holds {mark}, where {engine.title} would look for another file; take it "
                           "out of the question")


def write_rows(rows, path):
    """All rows or none, as parquet or JSON lines by the name of the file."""
    if path.suffix == ".parquet":
        data = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data)
        write_atomically(path, data.getvalue())
    else:
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def next_steps(path, longest, cfg):
    """What to type next, a line each: the verifier's command, then the engine's settings."""
    engine = ENGINES[cfg.engine]
    policy = Path(cfg.policy).resolve() if Path(cfg.policy).exists() else cfg.policy  # or a name of the hub
    rewards = Path(__file__).resolve().parent.parent / "rewards.py"
    places = {"path": path, "policy": policy, "rewards": rewards}
    yield "next, the verifier, once per GPU that it may have:"
    yield f"    python serve.py --preset {cfg.preset} --judge MODEL --data {shlex.quote(cfg.out)}"
    yield f"then {engine.title}, with ARGOS_URL set to where that runs:"
    for line in engine.settings:
        yield "    " + line.format(longest=longest, **places, **pixel_bounds(cfg))


def check(cfg):
    """Raises BadInput."""
    if cfg.engine not in ENGINES:
        raise BadInput(f"--engine {cfg.engine}: choose {', '.join(ENGINES)}")
    names = {f"--out {cfg.out}": str(Path(cfg.out).resolve()), f"--data {cfg.data}": Path(cfg.data).stem}
    for typed, name in names.items():
        if cfg.engine == "easyr1" and "@" in name:
            raise BadInput(f"{typed}: EasyR1 takes what follows an @ in a path for the name of a split; choose "
                           "another name")
    if "," in cfg.out:
        raise BadInput(f"--out {cfg.out}: serve.py --data takes a comma for the end of a name; name another "
                       "folder")


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("engines", Config))
    check(cfg)
    follow_budget(cfg, cfg.policy, cfg.out)
    asker = Asker(cfg)
    samples = read_samples(cfg.data)
    pictures = without_clips(samples, cfg)
    path = Path(cfg.out, f"{Path(cfg.data).stem}-{cfg.engine}.{ENGINES[cfg.engine].ending}").resolve()
    with alone(cfg.out):
        made = export(pictures, asker, cfg)
        for line in made.unusable:
            warn(line)
        if not made.rows:
            raise BadInput(f"{cfg.data}: none of its {len(samples)} rows can be used; no data was written")
        write_budget(cfg.out, budget_of(cfg))
        write_rows(made.rows, path)
    print(f"wrote {printable(path)}: {len(made.rows)} of {len(samples)} rows")
    clips = len(samples) - len(pictures)
    print(f"left out: {clips} about clips, {len(made.unusable)} that cannot be used (named above)")
    smallest = min(made.sizes, key=math.prod)
    largest = max(made.sizes, key=math.prod)
    print(f"pictures of {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]} pixels; "
          f"the longest prompt has {made.longest} tokens")
    for line in next_steps(path, made.longest, cfg):
        print(printable(line))


if __name__ == "__main__":
    run_main(main)
