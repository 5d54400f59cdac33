"""rl.jsonl as the data of another trainer: EasyR1, verl, TRL or ms-swift, with the pictures as the policy sees them.

A point is a pixel of the picture as the policy saw it. Each engine resizes pictures by a rule of its own (EasyR1
shrinks first and rounds afterwards: 7 in 10 then differ from ours), ignores how a photograph is turned, and fills
what is transparent with black. So here every picture is written in its final form: upright, on white, in the size
that Qwen2.5-VL's rule gives it within the pixel budget. Such a picture passes all of them unchanged
(tests/test_engines.py), and the verifier, which reads the same file, sees the same pixels.

    --engine easyr1   rl-easyr1.jsonl   problem: "<image>" and the prompt; images: [path]; answer: the row
    --engine verl     rl-verl.parquet   prompt: a chat; images: [{image, min_pixels, max_pixels}]; data_source;
                                        reward_model: {style, ground_truth: the row}; ability, extra_info
    --engine trl      rl-trl.jsonl      prompt: a chat; images: [path]; row: the row
    --engine swift    rl-swift.jsonl    messages: a chat, with "<image>"; images: [path]; row: the row

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
        and again with --data data/val.jsonl: both files share the folder
Writes: under --out, the file named above; pictures/; argos.json, the pixel budget, which serve.py follows
Before: train_sft.py. Next: serve.py, rewards.py, benchmarks/engines.md
"""
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from tqdm import tqdm
from transformers import AutoProcessor

from runs.checkpoints import NO_CODE, budget_of, follow_budget, write_budget
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
    policy: str = flag("out/sft/merged", "the model that the engine will train: its processor and its pixel budget")
    out: str = flag("out/engine", "folder to write; several files of data may share it")
    skip_clips: bool = flag(False, "leave out the questions about clips, instead of stopping at them")


# ---- 2. The engines' rows ----------------------------------------------------------------------------------
def easyr1_row(text, picture, row, cfg):
    """text: of the prompt; picture: its absolute path; row: of rl.jsonl, as JSON"""
    return {"problem": "<image>" + text, "images": [picture], "answer": row}


def verl_row(text, picture, row, cfg):
    """verl resizes by qwen_vl_utils, whose least size is 4 tokens unless the picture brings another."""
    bounds = dict(zip(("min_pixels", "max_pixels"), pixel_bounds(cfg)))
    return {
        "data_source": "argos",
        "prompt": [{"role": "user", "content": "<image>" + text}],
        "images": [{"image": picture, **bounds}],
        "ability": "vision",
        "reward_model": {"style": "rule", "ground_truth": row},
        "extra_info": {"id": json.loads(row)["id"]},
    }


def trl_row(text, picture, row, cfg):
    """TRL puts the pictures before the text by itself."""
    return {"prompt": [{"role": "user", "content": text}], "images": [picture], "row": row}


def swift_row(text, picture, row, cfg):
    """ms-swift hands further columns, such as row, to the reward."""
    return {"messages": [{"role": "user", "content": "<image>" + text}], "images": [picture], "row": row}


ROWS = {"easyr1": easyr1_row, "verl": verl_row, "trl": trl_row, "swift": swift_row}
MARKS = {  # where an engine cuts the text of a prompt to put something else there
    "easyr1": ("<image>",),
    "verl": ("<image>", "<video>", "<audio>"),
    "trl": (),
    "swift": ("<image>", "<video>", "<audio>", "<bbox>", "<ref-object>", "<cot-process>", "<start-image>"),
}
OTHER_FRAMES = "picks other frames of a clip than the verifier reads"
CLIPS = {  # why not
    "easyr1": "takes 2 frames a second of a clip, however long, and stops where a file mixes clips with pictures",
    "verl": OTHER_FRAMES,
    "trl": "shows the model no clip: it would train blind",
    "swift": OTHER_FRAMES,
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
    """The fewest and the most pixels of a picture."""
    return min(cfg.min_pixels, cfg.image_pixels), cfg.image_pixels


def final_picture(path, cfg):
    """A picture as the policy sees it, RGB, in a size that no application of the rule changes any more.

    Raises BadMedia for a file that cannot be read or moves, and where the budget allows its shape no such size.
    """
    media = load_media(path, **pixel_budget(cfg))
    if len(media.frames) > 1:
        raise BadMedia(f"{path}: is an animation, and {cfg.engine} {CLIPS[cfg.engine]}")
    picture = media.frames[0]
    size = final_size(*picture.size, *pixel_bounds(cfg))
    if size != picture.size:
        picture = picture.resize(size, Image.BICUBIC)
    return Image.fromarray(np.asarray(picture))  # the pixels alone: no colour profile, nothing for a reader to apply


def final_size(width, height, min_pixels, max_pixels):
    """The size (width, height) at which Qwen2.5-VL's rule comes to rest.

    Nearly always its first. A strip of 28 x 5,600 pixels becomes 28 x 2,352 within 28,224 pixels, which is still too
    much; then 28 x 1,512, ... and stays at 28 x 1,008.

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
        size = self.processor.image_processor.size
        fewest, most = pixel_bounds(cfg)
        if size["shortest_edge"] > fewest or size["longest_edge"] < most:
            raise BadInput(
                f"--policy {cfg.policy}: its processor shows pictures of {size['shortest_edge']} to "
                f"{size['longest_edge']} pixels, and would resize these, of {fewest} to {most}; set --min_pixels and "
                "--image_pixels within")

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
        raise BadInput(f"--policy {path}: no processor can be loaded from there ({first_line(error)}); name the folder "
                       "of the model that the engine will train, such as out/sft/merged") from None
    return processor


# ---- 5. The whole file -------------------------------------------------------------------------------------
@dataclass
class Exported:
    """What was made."""
    rows: list
    sizes: list   # (width, height) of each row's picture
    longest: int  # tokens of the longest prompt
    damaged: int  # rows left out, clips not among them


def without_clips(samples, cfg):
    """Raises BadInput, which names the first, unless they are to be left out."""
    clips = [sample for sample in samples if sample.media == "video"]
    if clips and not cfg.skip_clips:
        raise BadInput(f"{cfg.data}: {clips[0].id} is about a clip, as {len(clips)} of {len(samples)} rows are, and "
                       f"{cfg.engine} {CLIPS[cfg.engine]}; --skip_clips leaves them out")
    return [sample for sample in samples if sample.media != "video"]


def export(samples, asker, cfg):
    """Write the samples' pictures and make the engine's rows -> Exported. What cannot be used is told and left out."""
    out = Path(cfg.out).resolve()
    made = Exported([], [], 0, 0)
    written = {}  # path of a file -> the name of its picture, and its size
    for sample in tqdm(samples, desc="export", unit="row"):
        try:
            refuse_marks(sample, cfg)
            if sample.path not in written:
                picture = final_picture(sample.path, cfg)
                written[sample.path] = write_picture(picture, out), picture.size
        except BadMedia as error:
            warn(f"left out: {error}")
            made.damaged += 1
            continue
        name, size = written[sample.path]
        text = asker.text(sample)
        made.rows.append(ROWS[cfg.engine](text, str(out / name), row_for_reward(sample, name), cfg))
        made.sizes.append(size)
        made.longest = max(made.longest, asker.count(text, size))
    return made


def refuse_marks(sample, cfg):
    """Raises BadMedia for a question in which the engine would look for another file than the sample's."""
    for mark in MARKS[cfg.engine]:
        if mark in sample.question:
            raise BadMedia(f"{cfg.data}: the question of {sample.id} holds {mark}, where {cfg.engine} would look for "
                           "another file; take it out of the question")


def write_rows(rows, path):
    """All rows or none, as parquet or JSON lines by the name of the file."""
    if path.suffix == ".parquet":
        data = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data)
        write_atomically(path, data.getvalue())
    else:
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def next_steps(path, longest, cfg):
    """The commands that use the file: the verifier's, then the engine's settings."""
    fewest, most = pixel_bounds(cfg)
    rewards = Path(__file__).resolve().parent.parent / "rewards.py"
    serve = f"python serve.py --preset {cfg.preset} --judge MODEL --data {cfg.out}"
    settings = {
        "easyr1": [f"data.train_files={path} data.prompt_key=problem data.answer_key=answer data.image_key=images",
                   f"data.format_prompt=null data.min_pixels={fewest} data.max_pixels={most}",
                   f"data.max_prompt_length={longest} worker.reward.reward_function={rewards}:easyr1"],
        "verl": [f"data.train_files={path} data.image_key=images data.max_prompt_length={longest}",
                 f"reward.custom_reward_function.path={rewards} reward.custom_reward_function.name=verl"],
        "trl": [f'train_dataset=load_dataset("json", data_files="{path}", split="train"), reward_funcs=rewards.trl'],
        "swift": [f"--dataset {path} --max_length {longest}"],
    }
    return ["the verifier, one per GPU:", f"    {serve}",
            f"in {cfg.engine}, with ARGOS_URL set to the verifiers' addresses:",
            *[f"    {line}" for line in settings[cfg.engine]]]


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("engines", Config))
    if cfg.engine not in ROWS:
        raise BadInput(f"--engine {cfg.engine}: choose {', '.join(ROWS)}")
    ending = "parquet" if cfg.engine == "verl" else "jsonl"
    path = Path(cfg.out, f"{Path(cfg.data).stem}-{cfg.engine}.{ending}").resolve()
    if cfg.engine == "easyr1" and "@" in str(path):
        raise BadInput(f"--out {cfg.out}: EasyR1 takes what follows @ in a path for the name of a split; name another")
    follow_budget(cfg, cfg.policy, cfg.out)
    asker = Asker(cfg)
    samples = read_samples(cfg.data)
    with alone(cfg.out):
        pictures = without_clips(samples, cfg)
        made = export(pictures, asker, cfg)
        if not made.rows:
            raise BadInput(f"{cfg.data}: none of its {len(samples)} rows can be used; nothing was written")
        write_budget(cfg.out, budget_of(cfg))
        write_rows(made.rows, path)
    sizes = sorted(made.sizes, key=lambda size: size[0] * size[1])
    smallest, largest = [f"{width} x {height}" for width, height in (sizes[0], sizes[-1])]
    print(f"wrote {printable(path)}: {len(made.rows)} of {len(samples)} rows; left out: {len(samples) - len(pictures)} "
          f"about clips, {made.damaged} for the reasons above")
    print(f"pictures from {smallest} to {largest} pixels; the longest prompt has {made.longest} tokens")
    print("\n".join(next_steps(path, made.longest, cfg)))


if __name__ == "__main__":
    run_main(main)
