"""EmbodiedBench's planner loop around our policy: see, plan in JSON, act until something fails, plan again (paper tables 3 and 4).

EmbodiedBench (Yang et al. 2025, EB-ALFRED and EB-Habitat): the model gets an instruction, a list of numbered actions, what was done
so far with the environment's feedback, and a picture; it replies with a JSON plan of at most 20 actions; these run until one fails
or the task is done; then it plans again. An episode ends with success, after 30 actions, after 10 invalid ones (a reply without a
plan counts as one), or with an empty plan. This is a client of any environment that has their reset() and step(int).

Where it departs from the published loop, and why:
- A reply is repaired as far as its meaning is clear (plans.py).
- Progress made before an empty or unreadable plan stays in the record; there it becomes 0. Mean success is reported by subset; the
  summary of its first release is of progress alone.
- The rate of invalid actions is a share of all attempts. Published, and in our rows too: num_invalid_action_ratio divides by the
  executed actions alone, is 0 for a model that never wrote a plan, and exceeds 1 for one that seldom does.
- At temperature 0 a question that was just asked is not asked again: the reply would be the same one.

Run:    python -m benchmarks.embodied --model tiny/base --subset base --limit 5 --out out/embodied
        python -m benchmarks.embodied --model MODEL --preset 7b --env eb-alfred --mode grounded --out out/alfred
Needs:  nothing for --env household (household.py); the package embodiedbench and its simulators for eb-alfred and eb-habitat.
        Importing it leaves a link named data in the current folder; start it elsewhere than where data/ matters.
Writes: under --out, episodes.jsonl (append-only: what is there is not played again), table.md, and episodes as gif.
"""
import importlib
import io
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from runs.statistics import interval
from runs.errors import BadInput, run_main
from runs.files import append_jsonl, file_name, read_jsonl, write_atomically
from runs.settings import Settings, parse_config, preset_arguments
from verifier.answers import clean
from verifier.cards import load_font, wrap_text
from verifier.claims import parse
from verifier.coordinates import Media, convert, seen_size
import policy as P
from benchmarks import chores, household
from benchmarks.plans import ASK, read_plan, write_prompt

MAX_STEPS, MAX_INVALID = 30, 10  # EmbodiedBench's


@dataclass
class Config(Settings):
    model: str = field(default=str(Path(__file__).parent.parent / "tiny/base"), metadata={"help": "folder or name of the model that plans"})
    env: str = field(default="household", metadata={"help": "household, eb-alfred or eb-habitat"})
    subset: list[str] = field(default_factory=list, metadata={"help": "subsets to play (default: all six)"})
    splits: str = field(default="", metadata={"help": "household: a splits.json, such as EB-ALFRED's (default: chores.py's own)"})
    out: str = field(default="out/embodied", metadata={"help": "folder to write"})
    mode: str = field(default="base", metadata={"help": "base: JSON alone; cot: reason first; grounded: reason and point first"})
    shots: int = field(default=0, metadata={"help": "worked examples in the prompt"})
    examples: str = field(default="", metadata={"help": "where those are from: EmbodiedBench's alfred_examples.json (default: our own)"})
    match: str = field(default="name", metadata={"help": "which decides where an action's name and id disagree: name or id"})
    actions: int = field(default=20, metadata={"help": "most actions that are taken from a plan; 1: plan anew after each"})
    retries: int = field(default=0, metadata={"help": "with a temperature: ask again so often before a reply without a plan counts"})
    temperature: float = field(default=0., metadata={"help": "0: greedy (EmbodiedBench)"})
    max_new_tokens: int = field(default=1024, metadata={"help": "a reply is cut here"})
    limit: int = field(default=0, metadata={"help": "play the first so many episodes of each subset (0: all)"})
    batch: int = field(default=8, metadata={"help": "episodes at a time (household; a simulator plays one)"})
    gifs: int = field(default=2, metadata={"help": "episodes of each subset to draw"})
    seed: int = field(default=0, metadata={"help": "seed of sampling, and of our own tasks"})


# ---- 1. An episode ------------------------------------------------------------------------------------------------------------
def see(obs, cfg):
    """An observation -> (picture as it is, media.Media in the size in which the policy sees it)."""
    image = Image.fromarray(np.ascontiguousarray(np.asarray(obs["head_rgb"], np.uint8)[..., :3]))
    size = seen_size(*image.size, 1, cfg.min_pixels, cfg.image_pixels)
    return image, Media([image.resize(size, Image.BICUBIC)], [0.], image.size)


def play(env, cfg, where):
    """One episode, as a generator: yields (prompt, Media), is sent the reply, returns (record, frames). So many can be played at once.

    record: EmbodiedBench's fields, num_invalid_plans and log, in which a reply None is the one before; frames: [(picture, caption,
    points of the reasoning, in its pixels), ...]. `where` names the episode in messages. Raises argos.BadInput where the environment fails.
    """
    def ask(function, *args):  # a simulator may fail in any way
        try:
            return function(*args)
        except Exception as error:
            raise BadInput(f"{where}: the environment failed ({type(error).__name__}: {str(error)[:200]}); run it again, and "
                                 "it goes on with this episode") from error

    started = time.monotonic()
    image, shown = ask(see, ask(env.reset), cfg)
    actions, instruction = list(env.language_skill_set), env.episode_language_instruction
    rewards, history, log, frames = [], [], [], [(image, instruction, [])]
    invalid = bad_plans = errors = tries = 0
    success, progress, done, empty, reply = 0., 0., False, False, None
    while not (done or empty) and len(history) < MAX_STEPS and invalid < MAX_INVALID:
        if asked := reply is None or cfg.temperature > 0:
            reply = yield write_prompt(cfg, actions, instruction, history), shown
        plan = read_plan(reply, actions, cfg.match, cfg.actions)
        errors += plan.status == "error"
        log.append(dict(step=len(history), reply=reply if asked else None, status=plan.status, notes=plan.notes, actions=plan.actions))
        if not plan.actions and tries < cfg.retries and cfg.temperature > 0:
            tries += 1
            continue
        tries, empty = 0, plan.status == "empty"
        if not plan.actions and not empty:
            invalid, bad_plans = invalid + 1, bad_plans + 1
            rewards.append(-1.)
        seen = shown.frames[0].size
        frames[-1][2][:] = [convert(p.x, p.y, "seen", "original", image.size, seen) for p in parse(reply).points]
        for action in plan.actions[:MAX_STEPS - len(history)]:
            obs, reward, done, info = ask(env.step, action)
            image, shown = ask(see, obs, cfg)
            failed, reply = not ask(info.__getitem__, "last_action_success"), None
            success, progress = float(ask(info.__getitem__, "task_success")), float(info.get("task_progress", 0.))
            history.append([action, clean(str(info.get("env_feedback", "")))[:500]])
            rewards.append(float(reward))
            frames.append((image, f"{len(history)}. {actions[action]}" + ": failed" * failed, []))
            invalid += failed
            if done or failed or invalid >= MAX_INVALID:
                break
    return dict(reward=float(np.mean(rewards)) if rewards else None, num_invalid_actions=invalid, empty_plan=int(empty),
                instruction=instruction, task_success=success, task_progress=progress, num_steps=len(history), planner_steps=len(log),
                planner_output_error=errors, num_invalid_action_ratio=invalid / len(history) if history else 0.,
                episode_elapsed_seconds=time.monotonic() - started, num_invalid_plans=bad_plans,
                log=dict(plans=log, history=history)), frames


def open_env(cfg, subset, numbers, splits=None):
    """An environment whose next resets begin the given episodes of a subset, in this order."""
    if cfg.env == "household":
        return household.HouseholdEnv(splits, subset, numbers)
    name = {"eb-alfred": "EBAlfEnv", "eb-habitat": "EBHabEnv"}[cfg.env]
    try:
        kind = getattr(importlib.import_module(f"embodiedbench.envs.{cfg.env.replace('-', '_')}.{name}"), name)
    except ImportError as error:
        raise BadInput(f"--env {cfg.env}: {error}; install github.com/EmbodiedBench/EmbodiedBench and its simulator as its README "
                             "says, or play --env household") from None
    if cfg.env == "eb-alfred":
        return kind(eval_set=subset, selected_indexes=list(numbers))
    return kind(eval_set=subset, start_epi_index=numbers[0])  # numbers are what is left of a subset played in order


def play_all(cfg, subset, numbers, splits, ask, keep):
    """Play the given episodes, `batch` at a time. ask: [(prompt, Media), ...] -> replies; keep(number, record, frames)."""
    def one_after_another(mine):
        env = open_env(cfg, subset, mine, splits)
        for number in mine:
            keep(number, *(yield from play(env, cfg, f"--env {cfg.env}: {subset} episode {number}")))
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
                pass
        waiting = again


# ---- 2. Numbers and pictures ---------------------------------------------------------------------------------------------------
# Success rates in %, as printed: the columns in this order, then their mean. The printed tables do not name their simulator; the text
# speaks of Alfred as table 3 and of Habitat as table 4. Logs in a public fork of EmbodiedBench (github.com/tupini07/EmbodiedBench,
# results_pp.txt, no official source) hold these very rows, means of three runs, under eb_alfred and eb_habitat: they agree. They have
# visual 1.3 and long 0.0 where the first row of table 3 says 0.0 and 1.3, and the two Argos rows under two checkpoints. By the names
# of the base model's rows there: plans of one action (--actions 1), names before ids (--match name), three tries at a plan
# (--retries 2), temperature 0, and with CoT 0.6.
PAPER = {
    "eb-alfred": {"Qwen2.5-VL-7B": (4.0, 3.3, 2.0, 0.0, 0.7, 1.3, 1.9), "Qwen2.5-VL-7B, CoT": (6.0, 9.3, 7.3, 5.3, 4.7, 0.7, 5.6),
                  "Video-R1": (16.7, 11.3, 18.0, 8.0, 5.3, 0.7, 10.0), "Argos": (24.7, 18.0, 27.3, 8.7, 8.7, 0.7, 14.7)},
    "eb-habitat": {"Qwen2.5-VL-7B": (23.3, 5.3, 10.7, 6.7, 8.0, 0.0, 9.0), "Qwen2.5-VL-7B, CoT": (30.7, 6.7, 13.3, 11.3, 12.0, 1.3, 12.6),
                   "Video-R1": (46.7, 6.0, 15.3, 9.3, 16.7, 3.3, 16.2), "Argos": (45.3, 12.0, 24.0, 16.0, 17.3, 9.3, 20.7)}}
SCORES = {"success": lambda r: r["task_success"], "progress": lambda r: r["task_progress"],
          "invalid actions": lambda r: r["num_invalid_actions"] / max(1, r["num_steps"] + r["num_invalid_plans"]),
          "replies without a plan": lambda r: r["planner_output_error"] / max(1, r["planner_steps"])}


def columns(env):
    """The six subsets by the names that an environment has for them."""
    return [name.replace("spatial", "spatial_relationship") if env == "eb-habitat" else name for name in household.SUBSETS]


def metrics(rows):
    """Rows of episodes -> {subset: {score: (mean, low, high)}}, 95 % bootstrap over episodes, and "mean": of the subsets' means.

    The mean's interval draws episodes within each subset: which six there are is no accident.
    """
    by_subset, table, draws = defaultdict(list), {}, defaultdict(list)
    for row in rows:
        by_subset[row["subset"]].append(row)
    for subset, mine in by_subset.items():
        table[subset] = {name: interval([score(r) for r in mine]) for name, score in SCORES.items()}
        for name, score in SCORES.items():
            values, rng = np.array([score(r) for r in mine]), np.random.default_rng(len(draws[name]))
            draws[name].append(values[rng.integers(len(values), size=(2000, len(values)))].mean(1))  # (2000,)
    if len(table) > 1:
        spread = {name: np.quantile(np.mean(draws[name], 0), [.025, .975]) for name in SCORES}
        table["mean"] = {name: (np.mean([table[s][name][0] for s in by_subset]), *spread[name]) for name in SCORES}
    return table


def write_table(cfg, rows):
    """Markdown: scores in % by subset with intervals, and the paper's numbers beside ours where they are of the same simulator."""
    table, counts = metrics(rows), defaultdict(int)
    for row in rows:
        counts[row["subset"]] += 1
    lines = [f"## {cfg.env}, {cfg.mode}: {cfg.model} (in %)", "", "| subset | episodes | " + " | ".join(SCORES) + " |",
             "|---" * (2 + len(SCORES)) + "|"]
    for subset, scores in table.items():
        cells = [f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" for mean, low, high in scores.values()]
        lines.append(f"| {subset} | {counts[subset] or len(rows)} | {' | '.join(cells)} |")
    if any(scores["success"][0] in (0, 1) for scores in table.values()):
        lines += ["", "Where all episodes of n ended alike the bootstrap sees no spread; the rate may still be 3/n away (rule of three)."]
    if cfg.env in PAPER:
        names = columns(cfg.env)
        ours = [f"{100 * table[n]['success'][0]:.1f}" if n in table else "-" for n in names]
        mean = f"{100 * table['mean']['success'][0]:.1f}" if set(names) <= set(table) else "-"
        lines += ["", f"| success, % | {' | '.join(names)} | mean |", "|---" * (2 + len(names)) + "|",
                  *(f"| {name} (paper) | {' | '.join(map(str, numbers))} |" for name, numbers in PAPER[cfg.env].items()),
                  f"| ours | {' | '.join(ours)} | {mean} |"]
    else:
        lines += ["", "Published numbers are of simulators; none belong beside these."]
    return "\n".join(lines) + "\n"


def save_gif(frames, path):
    """An episode as a gif: every picture the policy saw, what was done, and the points of its reasoning."""
    small, drawn = load_font(11), []
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


def planner(cfg):
    """-> ask(requests) -> replies, by the model. It is loaded with the first request."""
    loaded = {}

    def ask(requests):
        if not loaded:
            loaded["policy"] = P.load_policy(cfg.model, dtype=cfg.dtype)
            loaded["generator"] = torch.Generator(loaded["policy"].device).manual_seed(cfg.seed)
        prompts = P.encode_prompts(loaded["policy"], [(shown, text) for text, shown in requests])
        return P.sample(loaded["policy"], prompts, 1, cfg.temperature or 1., max_new_tokens=cfg.max_new_tokens, greedy=not cfg.temperature,
                        generator=loaded["generator"]).texts
    return ask


def run(cfg, ask=None):
    """Play what is not in episodes.jsonl yet -> all rows of these settings. ask: see play_all; the model's unless given."""
    out, ask = Path(cfg.out), ask or planner(cfg)
    splits = None
    if cfg.env == "household":
        splits = chores.load_splits(cfg.splits) if cfg.splits else chores.make_splits(cfg.seed)
    names = list(splits or columns(cfg.env))
    for subset in cfg.subset:
        if subset not in names:
            raise BadInput(f"--subset {subset}: {cfg.env} has {', '.join(names)}")
    weights = Path(cfg.model, "model.safetensors")  # episodes count again only for the same weights, asked in the same way
    free = ("out", "subset", "limit", "batch", "gifs")
    stamp = {k: v for k, v in vars(cfg).items() if k not in free} | {"weights": weights.stat().st_mtime_ns if weights.exists() else 0}
    log = out / "episodes.jsonl"
    rows = {(r["subset"], r["episode"]): r for _, r in read_jsonl(log, torn=True) if r["stamp"] == stamp} if log.exists() else {}
    kept = []
    for subset in cfg.subset or names:
        count = min(cfg.limit or 50, len(splits[subset]) if splits else 50)  # 50 in each subset of both simulators
        todo = [i for i in range(count) if (subset, i) not in rows]
        with tqdm(total=len(todo), desc=subset, unit="episode") as bar:
            def keep(number, record, frames):
                rows[subset, number] = dict(env=cfg.env, subset=subset, episode=number, **record, stamp=stamp)
                append_jsonl(log, rows[subset, number])
                if number < cfg.gifs:
                    save_gif(frames, out / "gifs" / file_name(f"{subset}-{number}.gif"))
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
    if min(cfg.batch, cfg.actions, cfg.max_new_tokens) < 1 or min(cfg.temperature, cfg.shots, cfg.retries, cfg.limit) < 0:
        raise BadInput("--batch, --actions, --max_new_tokens: at least 1; --temperature, --shots, --retries, --limit: not below 0")
    text = write_table(cfg, run(cfg))
    write_atomically(Path(cfg.out) / "table.md", text)
    print(text)
    print(f"wrote {cfg.out}/table.md, {cfg.out}/episodes.jsonl" + (f", {cfg.out}/gifs" if cfg.gifs else ""))


if __name__ == "__main__":
    run_main(main)
