"""Our own 300 instructions for the small household, in the format of EB-ALFRED's splits.json, and an oracle
that carries any of them out.

Six subsets of 50, each asking for what the published one of its name asks for (Yang et al. 2025, section 3):
base; common sense (a thing by its use, not its name), complex instructions (the order inside small talk),
visual appearance (one of two by its colour), spatial (one of two by its side in the picture), long horizon
(slicing, heating, cooling: 15 skills and more). The words are ours, drawn from templates by a seed; nothing
is taken from the published instructions, which household.py reads as well.

The oracle knows the whole state and plans by rule, one routine for each kind of goal. It is the ceiling (100
%, or a task could not be done at all), as chance is the floor.

Run:   python -m benchmarks.chores --out out/household    # splits.json, pictures, how oracle and chance do
Next:  embodied.py
"""
import copy
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from runs.errors import BadInput, run_main
from runs.files import save_figure, write_atomically
from runs.settings import flag, parse_config
from benchmarks.household import COLORS, CONTAINERS, OPENABLE, ROOMS, SLICEABLE, STATE, SUBSETS, HouseholdEnv

# ---- 1. Instructions ---------------------------------------------------------------------------------------
WASHED = ("Apple", "Tomato", "Lettuce", "Fork", "Spoon", "Ladle", "Spatula", "Plate", "Mug", "SoapBar",
          "Cloth", "DishSponge")
SMALL = ("Fork", "Spoon", "Knife", "ButterKnife", "Pen", "Pencil", "KeyChain", "Watch", "CreditCard",
         "CellPhone", "RemoteControl", "CD")
HINTS = {  # common sense: what a thing is for
    "Apple": "the fruit that keeps the doctor away",
    "Bread": "what toast is made from",
    "Egg": "what a hen lays",
    "Ladle": "what soup is served with",
    "Fork": "what pasta is eaten with",
    "Kettle": "what water for tea is boiled in",
    "SaltShaker": "what makes a bland dish salty",
    "RemoteControl": "what switches the channels",
    "Newspaper": "what reports yesterday's events",
    "KeyChain": "what opens the front door",
    "CreditCard": "what you pay with without cash",
    "Pillow": "what your head rests on at night",
    "WateringCan": "what the plants get their water from",
    "AlarmClock": "what wakes you in the morning",
    "CellPhone": "what you make calls with",
    "Pencil": "what you sketch with and can rub out again",
    "BasketBall": "what is dribbled and thrown through a hoop",
    "ToiletPaper": "what is on the roll next to the toilet",
    "HandTowel": "what you dry your hands with",
    "Plunger": "what frees a blocked drain",
    "SoapBar": "what hands are washed with",
    "Candle": "what gives light when the power fails",
    "Watch": "what you wear to tell the time"}
SAY = {
    "pick_and_place_simple": (
        "Put {thing} {place}.", "Move {thing} so that it is {place}.", "I want {thing} {place}."),
    "pick_and_place_with_movable_recep": (
        "Put {thing} in {inside}, then both {place}.", "Set {inside} with {thing} in it {place}."),
    "pick_two_obj_and_place": (
        "Put two {things} {place}.", "Collect two {things} and leave them {place}."),
    "look_at_obj_in_light": (
        "Hold {thing} and turn on the lamp.", "Look at {thing} by the light of the lamp."),
    "pick_clean_then_place_in_recep": (
        "Wash {thing} and put it {place}.", "Put {thing} {place} after rinsing it."),
    "pick_heat_then_place_in_recep": (
        "Heat {thing} in the microwave and put it {place}.", "Put {thing} {place}, hot."),
    "pick_cool_then_place_in_recep": (
        "Chill {thing} and put it {place}.", "Put {thing} {place}, cold from the fridge.")}
AROUND = ("Guests are due at eight and nothing is where it belongs. {} The rest can wait until tomorrow.",
          "I meant to water the garden first, but it looks like rain. {} After that you may rest.",
          "My sister thinks that it is fine the way it is; I do not. {} Please leave everything else alone.",
          "You did well yesterday, and today there is less to do. {} No need to tell me when it is done.")


def words(kind):
    """"RemoteControl" -> "remote control"."""
    return kind if kind == "CD" else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()


def load_splits(path):
    """splits.json -> {subset: [{"task", "repeat_idx", "instruction"}, ...]}.

    Raises BadInput naming file, subset and row.
    """
    try:
        splits = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as JSON ({type(error).__name__}); "
                       "give EB-ALFRED's splits.json") from None
    if not isinstance(splits, dict) or not splits:
        raise BadInput(f"{path}: should be one object, a subset's name -> its list of tasks")
    for name, rows in splits.items():
        if not isinstance(rows, list) or not rows:
            rows = [None]
        for i, row in enumerate(rows):
            texts = isinstance(row, dict) and [row.get("task"), row.get("instruction")]
            if not texts or not all(isinstance(text, str) for text in texts):
                raise BadInput(f"{path}: {name} row {i}: should be "
                               '{"task": ..., "repeat_idx": ..., "instruction": ...}')
    return splits


def make_splits(seed=0, size=50):
    """-> {subset: [{"task", "repeat_idx", "instruction"}, ...]}, as in EB-ALFRED's splits.json.

    The same seed, the same tasks.
    """
    splits = {}
    for subset in SUBSETS:
        rng, rows = random.Random(f"{seed} {subset}"), {}
        while len(rows) < size:
            row = _make(subset, rng, len(rows))
            rows.setdefault(row["task"].split("/")[0] + row["instruction"], row)  # no two alike
        splits[subset] = list(rows.values())
    return splits


def _types(subset):
    """Kinds of goal that a subset asks for."""
    if subset == "long_horizon":
        return ["pick_heat_then_place_in_recep", "pick_cool_then_place_in_recep", "pick_two_obj_and_place"]
    if subset == "visual_appearance":
        return ["pick_and_place_simple", "look_at_obj_in_light"]
    if subset == "spatial":
        return ["pick_and_place_simple", "pick_clean_then_place_in_recep"]
    types = [type_ for type_ in SAY if STATE.get(type_) in (None, "clean")]
    if subset == "common_sense":
        types.remove("pick_two_obj_and_place")
    return types


def _kinds(subset, type_, things):
    """Things of a room that such a task may be about."""
    fitting = {"pick_clean_then_place_in_recep": WASHED, "pick_and_place_with_movable_recep": SMALL}
    kinds = [kind for kind in fitting.get(type_, things) if kind in things]
    if subset == "long_horizon":
        kinds = [kind for kind in kinds if kind in SLICEABLE]
    if subset == "common_sense":
        kinds = [kind for kind in kinds if kind in HINTS]
    return kinds


def _places(subset, type_, furniture):
    """Furniture of a room that a thing may be brought to; for spatial tasks there are two of a kind."""
    odd = ["Lamp", "Faucet", "Microwave", "Burner", "Machine", "Hanger"]  # endings of names
    odd += {"clean": ["Sink"], "cold": ["Fridge"]}.get(STATE.get(type_), [])
    places = [kind for kind in dict.fromkeys(furniture) if not kind.endswith(tuple(odd))]
    if subset == "spatial":
        places = [kind for kind in places if furniture.count(kind) == 2]
    return places


def _make(subset, rng, number):
    """One row of a splits.json, drawn by `rng`."""
    long = subset == "long_horizon"
    type_ = rng.choice(_types(subset))
    rooms = {"look_at_obj_in_light": (2, 3), "pick_clean_then_place_in_recep": (0, 4)}.get(type_)
    if rooms is None:
        rooms = (0,) if long else tuple(ROOMS)
    scene = rng.choice(rooms)
    _, furniture, things = ROOMS[scene]
    furniture, things = furniture.split(), things.split()
    kinds = _kinds(subset, type_, things)
    containers = [kind for kind in CONTAINERS if kind in things]
    movable = type_ == "pick_and_place_with_movable_recep"
    if not kinds or movable and not containers:
        return _make(subset, rng, number)  # not in this room: draw again
    kind = rng.choice(kinds)
    inside = rng.choice(containers) if movable else None
    if type_ == "look_at_obj_in_light":
        place = next(kind for kind in furniture if kind.endswith("Lamp"))
    else:
        place = rng.choice(_places(subset, type_, furniture))
    mark = ""  # tells one of two apart
    if subset == "visual_appearance":
        mark = rng.choice(list(COLORS))
    elif subset == "spatial":
        mark = rng.choice(("left", "right"))

    # 1) The instruction
    preposition = "in" if place in OPENABLE + ("Sink", "Bathtub", "GarbageCan") else "on"
    where = f"{preposition} {_the(place, mark if subset == 'spatial' else '')}"
    if subset == "common_sense":
        thing = HINTS[kind]
    elif long:
        thing = f"a slice of {words(kind)}"
    else:
        thing = _the(kind, mark if subset == "visual_appearance" else "")
    several = words(kind) + ("es" if kind.endswith(("s", "ch", "x")) else "s")
    if long:
        several = f"slices of {words(kind)}, each from another one,"
    said = rng.choice(SAY[type_])
    text = said.format(thing=thing, things=several, place=where, inside=_the(inside or "", ""))
    if subset == "complex_instruction":
        text = rng.choice(AROUND).format(text)

    # 2) ALFRED's name of the task, which holds the goal
    sliced = "Sliced" if long else ""
    scene_number = 100 * scene + rng.randrange(1, 31)
    task = f"{type_}-{kind}{sliced}-{inside}-{place}-{scene_number}/trial_{mark or 'any'}_{number:03d}"
    return {"task": task, "repeat_idx": 0, "instruction": text}


def _the(kind, mark):
    """("Mug", "red") -> "the red mug"."""
    return f"the {mark} {words(kind)}" if mark else f"the {words(kind)}"


# ---- 2. The oracle -----------------------------------------------------------------------------------------
def oracle(world):
    """Skills that reach the goal from the scene's beginning

    -> list of strings. It acts on a copy of the world.
    """
    world = copy.deepcopy(world)
    goal = world.goal
    plan = []

    def do(*skills):
        for skill in skills:
            plan.append(skill)
            why = world.act(skill)
            assert not why, f"the oracle planned {plan}, but {why}"

    def go(name):
        do(f"find a {name}")
        closed = world.shut_in(world.things[name]) or (name if world.things[name].open is False else "")
        if closed:
            do(f"open the {closed}")

    def fetch(thing):
        go(thing.name)
        do(f"pick up the {thing.kind}")

    def put(name):
        go(name)
        do("put down the object in hand")

    wanted = [t for t in world.things.values() if t.kind == goal.kind and goal.color in ("", t.color)]
    how_many = 2 if goal.type == "pick_two_obj_and_place" else 1
    wanted = wanted[:how_many]
    if goal.sliced:
        fetch(world.things["Knife"])
        for thing in wanted:
            go(thing.name)
            do(f"slice the {thing.kind}")
        put(world.here)
    for thing in wanted:
        fetch(thing)
        if goal.type == "look_at_obj_in_light":
            do(f"find a {goal.place}", f"turn on the {goal.place}")
            continue
        if goal.inside:
            box = next(t for t in world.things.values() if t.kind == goal.inside)
            put(box.name)
            fetch(box)
        elif STATE.get(goal.type) == "clean":
            put("Sink")
            do("turn on the Faucet", "turn off the Faucet")
        elif goal.type in STATE:
            machine = "Microwave" if STATE[goal.type] == "hot" else "Fridge"
            put(machine)
            do(f"close the {machine}")
            if machine == "Microwave":
                do("turn on the Microwave", "turn off the Microwave")
            do(f"open the {machine}")
        if goal.type in STATE and world.spot(thing) not in world.targets:  # or it was washed in the very sink
            fetch(thing)
        if world.held:
            put(world.targets[0])
    return plan


def play(env, choose):
    """One episode of skills -> (success, progress) at its end.

    choose(world, step) -> a skill's number, or None to stop
    """
    env.reset()
    info = {"task_success": 0., "task_progress": 0.}
    done = False
    while not done:
        action = choose(env.world, len(env.episode_log))
        if action is None:
            break
        _, _, done, info = env.step(action)
    return info["task_success"], info["task_progress"]


def follow():
    """-> choose of an oracle, for play."""
    plan = []

    def choose(world, step):
        if step == 0:
            plan[:] = oracle(world)
        return world.skills.index(plan[step]) if step < len(plan) else None
    return choose


# ---- 3. The command line -----------------------------------------------------------------------------------
@dataclass
class Config:
    out: str = flag("out/household", "folder to write")
    seed: int = flag(0, "seed of the tasks")


def main():
    cfg = parse_config(Config, __doc__)
    out = Path(cfg.out)
    splits = make_splits(cfg.seed)
    write_atomically(out / "splits.json", json.dumps(splits, indent=1))
    rng = random.Random(cfg.seed)

    def by_chance(world, step):
        return rng.randrange(len(world.skills))

    sheet = Image.new("RGB", (3 * 340, 2 * 256), "white")
    for i, (subset, rows) in enumerate(splits.items()):
        env = HouseholdEnv(splits, subset)
        env.reset()
        some = next(t.name for t in env.world.things.values() if t.place)
        env.step(env.language_skill_set.index(f"find a {some}"))
        sheet.paste(Image.fromarray(env.world.draw()), (i % 3 * 340, i // 3 * 256))
        scores = []
        for choose in (follow(), by_chance):
            env = HouseholdEnv(splits, subset)
            results = [play(env, choose) for _ in rows]
            success = sum(success for success, _ in results) / len(rows)
            progress = sum(progress for _, progress in results) / len(rows)
            scores.append(f"{100 * success:.0f} % done, progress {progress:.2f}")
        print(f"{subset}: oracle {scores[0]}; chance {scores[1]}. E.g. {rows[0]['instruction']}")
    save_figure(sheet, out / "pictures.png")
    print(f"wrote {out}/splits.json, {out}/pictures.png")


if __name__ == "__main__":
    run_main(main)
