"""EmbodiedBench's planner loop around our policy: see, plan in JSON, act until something fails, plan again
(paper tables 3 and 4).

EmbodiedBench (Yang et al. 2025, EB-ALFRED and EB-Habitat): the model gets an instruction, a list of numbered
actions, what was done so far with the environment's feedback, and a picture; it replies with a JSON plan,
which it is asked to keep to 20 actions; these run until one fails or the task is done; then it plans again.
An episode ends with success, after 30 actions, after 10 invalid ones (a reply without a plan counts as one),
or with an empty plan. This is a client of any environment that has their reset() and step(int).

Where it departs from the published code (its first release, b247936: planner/vlm_planner.py, evaluator/
eb_alfred_evaluator.py and eb_habitat_evaluator.py), and why:
- The prompt is in our words; the fields of the JSON are theirs. Modes cot and grounded are ours (the paper).
- It shows 10 worked examples. Here --examples FILE does, its alfred_examples.json or habitat_examples.json
  (--shots: another number), and for EB-ALFRED's long_horizon alfred_long_horizon_examples.json, which has 7,
  from beside it. Without --examples none is shown; --shots alone shows some of ours.
- Local models are held to the JSON's schema while they write there. Here they write freely, and a reply is
  repaired as far as its meaning is clear (plans.py); there what json.loads does not read is an invalid action.
- An action's name decides, and its id where the name is unknown; there the id alone: --match id.
- A reply is cut after 2048 tokens there; here after --max_new_tokens, 2048 with --preset 7b.
- A picture is shrunk to --image_pixels; there it is sent as drawn, 500 x 500. Of a feedback 500 characters are
  shown.
- An environment that fails ends the run, which goes on when it is started again; there the loop asks again
  after 30 seconds, for ever.
- Progress made before an empty or unreadable plan stays in the record; there it becomes 0. Mean success is
  reported by subset; the summary of its first release is of progress alone.
- The rate of invalid actions is a share of all attempts. Published, and in our rows too:
  num_invalid_action_ratio divides by the executed actions alone, is 0 for a model that never wrote a plan,
  and exceeds 1 for one that seldom does. The mean reward of an episode without any is None, not NaN.
- At temperature 0 a question that was just asked is not asked again: the reply would be the same one.

Run:    python -m benchmarks.embodied --model tiny/base --subset base --limit 5 --out out/embodied python -m
        benchmarks.embodied --model MODEL --preset 7b --env eb-alfred --mode grounded --out out/alfred
Needs:  nothing for --env household (household.py); the package embodiedbench and its simulators for eb-alfred
        and eb-habitat. Importing it leaves a link named data in the current folder; start it elsewhere than
        where data/ matters.
Writes: under --out, episodes.jsonl (append-only: what is there is not played again), table.md, and episodes
        as gif.
Before: plans.py (what is asked, how a plan is read), household.py. Next: libero.py
"""
import importlib
import io
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from runs.checkpoints import follow_budget
from runs.errors import BadInput, run_main
from runs.files import alone, append_jsonl, file_name, read_jsonl, write_atomically
from runs.settings import Settings, flag, parse_config, preset_arguments
from runs.statistics import interval
from verifier.answers import clean
from verifier.cards import load_font, wrap_text
from verifier.claims import parse
from verifier.coordinates import Media, convert, seen_size
import policy as P
from benchmarks import chores, household
from benchmarks.plans import ASK, MAX_STEPS, examples_file, read_examples, read_plan, write_prompt

MAX_INVALID = 10  # EmbodiedBench's


@dataclass
class Config(Settings):
    model: str = flag(str(Path(__file__).parent.parent / "tiny/base"),
        "folder or name of the model that plans")
    env: str = flag("household", "household, eb-alfred or eb-habitat")
    subset: list[str] = field(default_factory=list, metadata={"help": "subsets to play (default: all six)"})
    splits: str = flag("", "household: a splits.json, such as EB-ALFRED's (default: chores.py's own)")
    out: str = flag("out/embodied", "folder to write")
    mode: str = flag("base", "base: JSON alone; cot: reason first; grounded: reason and point first")
    shots: int = flag(-1, "worked examples in the prompt (-1: 10 of --examples, as EmbodiedBench shows; "
                          "without --examples none)")
    examples: str = flag("", "where those are from: EmbodiedBench's alfred_examples.json, with "
                             "alfred_long_horizon_examples.json beside it, or habitat_examples.json (default: "
                             "our own)")
    match: str = flag("name", "which decides where an action's name and id disagree: name or id")
    actions: int = flag(0, "most actions that are asked for and taken from a plan; 1: plan anew after each "
                           "(0: 20 are asked for and all are taken, as in EmbodiedBench)")
    retries: int = flag(0, "with a temperature: ask again so often before a reply without a plan counts")
    temperature: float = flag(0., "0: greedy (EmbodiedBench)")
    max_new_tokens: int = flag(1024, "a reply is cut here")
    limit: int = flag(0, "play the first so many episodes of each subset (0: all)")
    batch: int = flag(8, "episodes at a time (household; a simulator plays one)")
    gifs: int = flag(2, "episodes of each subset to draw")
    seed: int = flag(0, "seed of sampling, and of our own tasks")


# ---- 1. An episode -----------------------------------------------------------------------------------------
def see(obs, cfg):
    """An observation -> (picture as it is, Media in the size in which the policy sees it)."""
    image = Image.fromarray(np.ascontiguousarray(np.asarray(obs["head_rgb"], np.uint8)[..., :3]))
    size = seen_size(*image.size, 1, cfg.min_pixels, cfg.image_pixels)
    return image, Media([image.resize(size, Image.BICUBIC)], [0.], image.size)


@dataclass
class Episode:
    """What happens in an episode, as it is played."""
    success: float = 0.
    progress: float = 0.
    done: bool = False
    invalid: int = 0     # invalid actions, replies without a plan among them
    bad_plans: int = 0   # replies without a plan
    errors: int = 0      # of those, the ones that could not be read at all, tries again included
    rewards: list = field(default_factory=list)
    history: list = field(default_factory=list)  # [number of the action, feedback]
    log: list = field(default_factory=list)      # one dict per plan; reply None: the one before again
    frames: list = field(default_factory=list)   # (picture, caption, points of the reasoning, in its pixels)

    def record(self, instruction, empty, started):
        """EmbodiedBench's fields, num_invalid_plans and log."""
        steps = len(self.history)
        return dict(reward=float(np.mean(self.rewards)) if self.rewards else None,
                    num_invalid_actions=self.invalid, empty_plan=int(empty), instruction=instruction,
                    task_success=self.success, task_progress=self.progress, num_steps=steps,
                    planner_steps=len(self.log), planner_output_error=self.errors,
                    num_invalid_action_ratio=self.invalid / steps if steps else 0.,
                    episode_elapsed_seconds=time.monotonic() - started, num_invalid_plans=self.bad_plans,
                    log=dict(plans=self.log, history=self.history))


def play(env, cfg, subset, where):
    """One episode, as a generator, so that many can be played at once: yields (prompt, Media), is sent the
    reply.

    -> (Episode.record, Episode.frames). `where` names the episode in messages. Raises BadInput where the
    environment fails.
    """
    def ask(function, *args):  # a simulator may fail in any way
        try:
            return function(*args)
        except Exception as error:
            raise BadInput(f"{where}: the environment failed ({type(error).__name__}: {str(error)[:200]}); "
                           "run it again, and it goes on with this episode") from error

    started = time.monotonic()
    image, shown = ask(see, ask(env.reset), cfg)
    actions, instruction = list(env.language_skill_set), env.episode_language_instruction
    episode = Episode(frames=[(image, instruction, [])])
    reply = None   # None: something happened since the last one
    tries = 0
    empty = False
    while not (episode.done or empty) and len(episode.history) < MAX_STEPS and episode.invalid < MAX_INVALID:
        # 1) Ask for a plan. At temperature 0 the same question gets the same reply: it is not asked again.
        asked = reply is None or cfg.temperature > 0
        if asked:
            reply = yield write_prompt(cfg, actions, instruction, episode.history, subset), shown
        plan = read_plan(reply, actions, cfg.match, cfg.actions or MAX_STEPS)
        episode.errors += plan.status == "error"
        episode.log.append(dict(step=len(episode.history), reply=reply if asked else None, status=plan.status,
                                notes=plan.notes, actions=plan.actions))
        if not plan.actions and tries < cfg.retries and cfg.temperature > 0:
            tries += 1
            continue
        tries = 0
        empty = plan.status == "empty"
        if not plan.actions and not empty:
            episode.invalid += 1
            episode.bad_plans += 1
            episode.rewards.append(-1.)
        episode.frames[-1][2][:] = points_of(reply, image.size, shown)

        # 2) Act until something fails.
        for action in plan.actions[:MAX_STEPS - len(episode.history)]:
            obs, reward, episode.done, info = ask(env.step, action)
            image, shown = ask(see, obs, cfg)
            reply = None
            failed = not ask(info.__getitem__, "last_action_success")
            episode.success = float(ask(info.__getitem__, "task_success"))
            episode.progress = float(info.get("task_progress", 0.))
            episode.history.append([action, clean(str(info.get("env_feedback", "")))[:500]])
            episode.rewards.append(float(reward))
            caption = f"{len(episode.history)}. {actions[action]}"
            episode.frames.append((image, f"{caption}: failed" if failed else caption, []))
            episode.invalid += failed
            if episode.done or failed or episode.invalid >= MAX_INVALID:
                break
    return episode.record(instruction, empty, started), episode.frames


def points_of(reply, size, shown):
    """The points of a reply's reasoning, from pixels of what the policy saw to pixels of a picture of this
    size.
    """
    seen = shown.frames[0].size
    return [convert(p.x, p.y, "seen", "original", size, seen) for p in parse(reply).points]


def open_env(cfg, subset, numbers, splits=None):
    """An environment whose next resets begin the given episodes of a subset, in this order."""
    if cfg.env == "household":
        return household.HouseholdEnv(splits, subset, numbers)
    name = {"eb-alfred": "EBAlfEnv", "eb-habitat": "EBHabEnv"}[cfg.env]
    try:
        module = importlib.import_module(f"embodiedbench.envs.{cfg.env.replace('-', '_')}.{name}")
        kind = getattr(module, name)
    except ImportError as error:
        raise BadInput(f"--env {cfg.env}: {error}; install github.com/EmbodiedBench/EmbodiedBench and its "
                       "simulator as its README says, or play --env household") from None
    if cfg.env == "eb-alfred":
        return kind(eval_set=subset, selected_indexes=list(numbers))
    return kind(eval_set=subset, start_epi_index=numbers[0])  # what is left of a subset played in order


def play_all(cfg, subset, numbers, splits, ask, keep):
    """Play the given episodes, `batch` at a time.

    ask: [(prompt, Media), ...] -> replies; keep(number, record, frames).
    """
    def one_after_another(mine):
        env = open_env(cfg, subset, mine, splits)
        for number in mine:
            record, frames = yield from play(env, cfg, subset, f"--env {cfg.env}: {subset} episode {number}")
            keep(number, record, frames)
        env.close()

    lanes = min(cfg.batch if cfg.env == "household" else 1, len(numbers))
    players = [one_after_another(numbers[lane::lanes]) for lane in range(lanes)]
    waiting = [(player, next(player)) for player in players]
    while waiting:
        replies = ask([request for _, request in waiting])
        again = []
        for (player, _), reply in zip(waiting, replies):
            try:
                again.append((player, player.send(reply)))
            except StopIteration:
                pass  # this lane has played all its episodes
        waiting = again


# ---- 2. Numbers and pictures -------------------------------------------------------------------------------
# Success rates in %, as printed: the columns in this order, then their mean. The printed tables do not name
# their simulator; the text speaks of Alfred as table 3 and of Habitat as table 4. Logs in a public fork of
# EmbodiedBench (github.com/tupini07/EmbodiedBench, results_pp.txt, no official source) hold these very rows,
# means of three runs, under eb_alfred and eb_habitat: they agree. They have visual 1.3 and long 0.0 where the
# first row of table 3 says 0.0 and 1.3, and the two Argos rows under two checkpoints. By the names of the
# base model's rows there: plans of one action (--actions 1), names before ids (--match name), three tries at
# a plan (--retries 2), temperature 0, and with CoT 0.6.
PAPER = {
    "eb-alfred": {
        "Qwen2.5-VL-7B": (4.0, 3.3, 2.0, 0.0, 0.7, 1.3, 1.9),
        "Qwen2.5-VL-7B, CoT": (6.0, 9.3, 7.3, 5.3, 4.7, 0.7, 5.6),
        "Video-R1": (16.7, 11.3, 18.0, 8.0, 5.3, 0.7, 10.0),
        "Argos": (24.7, 18.0, 27.3, 8.7, 8.7, 0.7, 14.7)},
    "eb-habitat": {
        "Qwen2.5-VL-7B": (23.3, 5.3, 10.7, 6.7, 8.0, 0.0, 9.0),
        "Qwen2.5-VL-7B, CoT": (30.7, 6.7, 13.3, 11.3, 12.0, 1.3, 12.6),
        "Video-R1": (46.7, 6.0, 15.3, 9.3, 16.7, 3.3, 16.2),
        "Argos": (45.3, 12.0, 24.0, 16.0, 17.3, 9.3, 20.7)}}


def scores_of(row):
    """What a row of episodes.jsonl counts for, in each column of our table."""
    attempts = row["num_steps"] + row["num_invalid_plans"]
    return {"success": row["task_success"],
            "progress": row["task_progress"],
            "invalid actions": row["num_invalid_actions"] / max(1, attempts),
            "replies without a plan": row["planner_output_error"] / max(1, row["planner_steps"])}


SCORES = ("success", "progress", "invalid actions", "replies without a plan")


def columns(env):
    """The six subsets by the names that an environment has for them."""
    if env == "eb-habitat":
        return [name.replace("spatial", "spatial_relationship") for name in household.SUBSETS]
    return list(household.SUBSETS)


def metrics(rows):
    """Rows of episodes -> {subset: {score: (mean, low, high)}}, 95 % bootstrap over episodes, and "mean": of
    the subsets' means.

    The mean's interval draws episodes within each subset: which six there are is no accident.
    """
    by_subset = defaultdict(list)  # subset -> scores of its episodes
    for row in rows:
        by_subset[row["subset"]].append(scores_of(row))
    table = {}
    draws = defaultdict(list)  # score -> of each subset, means of episodes drawn again
    for number, (subset, mine) in enumerate(by_subset.items()):
        table[subset] = {}
        for name in SCORES:
            values = np.array([scores[name] for scores in mine])
            table[subset][name] = interval(values)
            drawn = np.random.default_rng(number).integers(len(values), size=(2000, len(values)))
            draws[name].append(values[drawn].mean(1))  # (2000,)
    if len(table) > 1:
        table["mean"] = {}
        for name in SCORES:
            mean = np.mean([table[subset][name][0] for subset in by_subset])
            low, high = np.quantile(np.mean(draws[name], 0), [.025, .975])
            table["mean"][name] = (mean, low, high)
    return table


def write_table(cfg, rows):
    """Markdown: scores in % by subset with intervals, and the paper's numbers beside ours where they are of
    the same simulator.
    """
    table = metrics(rows)
    counts = Counter(row["subset"] for row in rows)
    lines = [f"## {cfg.env}, {cfg.mode}: {cfg.model} (in %)", ""]
    lines += head("subset", "episodes", *SCORES)
    for subset, scores in table.items():
        cells = []
        for mean, low, high in scores.values():
            cells.append(f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        lines.append(line(subset, counts[subset] or len(rows), *cells))
    if any(scores["success"][0] in (0, 1) for scores in table.values()):
        lines += ["", "Where all episodes of n ended alike the bootstrap sees no spread; "
                      "the rate may still be 3/n away (rule of three)."]
    if cfg.env not in PAPER:
        lines += ["", "Published numbers are of simulators; none belong beside these."]
        return "\n".join(lines) + "\n"

    names = columns(cfg.env)
    ours = [f"{100 * table[name]['success'][0]:.1f}" if name in table else "-" for name in names]
    mean = "-"  # of all six subsets, or not at all
    if set(names) <= set(table):
        mean = f"{100 * table['mean']['success'][0]:.1f}"
    lines += ["", *head("success, %", *names, "mean")]
    for name, numbers in PAPER[cfg.env].items():
        lines.append(line(f"{name} (paper)", *numbers))
    lines.append(line("ours", *ours, mean))
    return "\n".join(lines) + "\n"


def line(*cells):
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*cells):
    return [line(*cells), "|---" * len(cells) + "|"]


def save_gif(frames, path):
    """An episode as a gif: every picture the policy saw, what was done, and the points of its reasoning."""
    small = load_font(11)
    drawn = []
    for image, caption, points in frames:
        framed = Image.new("RGB", (max(image.width, 330), image.height + 34), "white")
        framed.paste(image)
        pen = ImageDraw.Draw(framed)
        for x, y in points:
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), None, "red", 2)
        for i, line in enumerate(wrap_text(clean(caption), small, framed.width - 8)[:2]):
            pen.text((4, image.height + 2 + 15 * i), line, "black", small)
        drawn.append(framed)
    data = io.BytesIO()
    drawn[0].save(data, "GIF", save_all=True, append_images=drawn[1:], duration=1000, loop=0)
    write_atomically(path, data.getvalue())


class Planner:
    """The model that plans: called with [(prompt, Media), ...], it gives the replies."""

    def __init__(self, cfg):
        self.cfg = cfg

    @cached_property
    def policy(self):
        """Loaded with the first request: often all episodes are there already."""
        return P.load_policy(self.cfg.model, dtype=self.cfg.dtype)

    @cached_property
    def generator(self):
        return torch.Generator(self.policy.device).manual_seed(self.cfg.seed)

    def __call__(self, requests):
        prompts = P.encode_prompts(self.policy, [(shown, text) for text, shown in requests])
        greedy = self.cfg.temperature == 0
        drawn = P.sample(self.policy, prompts, 1, 1. if greedy else self.cfg.temperature, greedy=greedy,
                         max_new_tokens=self.cfg.max_new_tokens, generator=self.generator)
        return drawn.texts


def stamp_of(cfg):
    """How episodes are played: they count again only for the same weights, asked in the same way."""
    weights = Path(cfg.model, "model.safetensors")
    free = ("out", "subset", "limit", "batch", "gifs")  # flags that change no episode
    stamp = {name: value for name, value in vars(cfg).items() if name not in free}
    stamp["weights"] = weights.stat().st_mtime_ns if weights.exists() else 0
    return stamp


def read_episodes(log, stamp):
    """episodes.jsonl -> {(subset, episode): row}, of rows with this stamp."""
    if not log.exists():
        return {}
    rows = [row for _, row in read_jsonl(log, torn=True)]
    return {(row["subset"], row["episode"]): row for row in rows if row["stamp"] == stamp}


def check_examples(cfg, subsets):
    """Read --examples before anything is played; say where long_horizon gets none of its own."""
    if not cfg.examples:
        return
    for subset in subsets:
        file = examples_file(cfg, subset)
        read_examples(file)
        if cfg.env == "eb-alfred" and subset == "long_horizon" and "long_horizon" not in file.name:
            print(f"long_horizon is shown the examples of {file}; EmbodiedBench has others for it: put its "
                  "alfred_long_horizon_examples.json beside alfred_examples.json", file=sys.stderr)


def run(cfg, ask=None):
    """Play what is not in episodes.jsonl yet

    -> all rows of these settings. ask: see play_all; the model's unless given.
    """
    out = Path(cfg.out)
    log = out / "episodes.jsonl"
    ask = ask or Planner(cfg)
    splits = None
    if cfg.env == "household":
        splits = chores.load_splits(cfg.splits) if cfg.splits else chores.make_splits(cfg.seed)
    names = list(splits or columns(cfg.env))
    for subset in cfg.subset:
        if subset not in names:
            raise BadInput(f"--subset {subset}: {cfg.env} has {', '.join(names)}")
    check_examples(cfg, cfg.subset or names)
    stamp = stamp_of(cfg)
    rows = read_episodes(log, stamp)
    kept = []
    for subset in cfg.subset or names:
        there = len(splits[subset]) if splits else 50  # 50 in each subset of both simulators
        count = min(cfg.limit or 50, there)
        todo = [i for i in range(count) if (subset, i) not in rows]
        with tqdm(total=len(todo), desc=subset, unit="episode") as bar:
            def keep(number, record, frames, subset=subset, bar=bar):
                row = dict(env=cfg.env, subset=subset, episode=number, **record, stamp=stamp)
                append_jsonl(log, row)
                rows[subset, number] = row
                if number < cfg.gifs:
                    save_gif(frames, out / "gifs" / f"{file_name(f'{subset}-{number}')}.gif")
                bar.update()
            if todo:
                play_all(cfg, subset, todo, splits, ask, keep)
        kept += [rows[subset, i] for i in range(count)]
    return kept


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("embodied", Config))
    for name, choices in (("env", ("household", *PAPER)), ("mode", tuple(ASK)), ("match", ("name", "id"))):
        if getattr(cfg, name) not in choices:
            raise BadInput(f"--{name} {getattr(cfg, name)}: choose {', '.join(choices)}")
    too_small = min(cfg.batch, cfg.max_new_tokens) < 1
    if too_small or min(cfg.temperature, cfg.actions, cfg.retries, cfg.limit) < 0 or cfg.shots < -1:
        raise BadInput("--batch, --max_new_tokens: at least 1; --temperature, --actions, --retries, --limit: "
                       "not below 0; --shots: not below -1")
    follow_budget(cfg, cfg.model)
    with alone(cfg.out):
        text = write_table(cfg, run(cfg))
        write_atomically(Path(cfg.out) / "table.md", text)
    print(text)
    gifs = f", {cfg.out}/gifs" if cfg.gifs else ""
    print(f"wrote {cfg.out}/table.md, {cfg.out}/episodes.jsonl{gifs}")


if __name__ == "__main__":
    run_main(main)
