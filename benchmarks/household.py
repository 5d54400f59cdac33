"""A small household that runs EB-ALFRED's tasks without its simulator: rooms, things with a state, skills,
goals checked on that state.

EmbodiedBench's EB-ALFRED (Yang et al. 2025) needs Unity. What a planner sees of it is little: an instruction,
162 skills in words and some more for second instances ("find a Cabinet_2"), a picture, and after each skill a
sentence of feedback. This file has the same class interface (reset, step, language_skill_set, ...), the same
skill strings, much the same feedback, the same limits, and reads the same splits.json, the published one too:
an entry's name holds its goal, as in
"pick_clean_then_place_in_recep-Ladle-None-DiningTable-4/trial_T2019...", so any of the 300 instructions can
be played here.

What is simplified: a scene is one room, a drawn picture of boxes and discs with their names, and its things
stand where a seed puts them, not where Unity has them; the words of an instruction that its goal does not
hold ("from the bed", "white") are as unchecked here as they are there. A sliced thing stays one thing. Going
somewhere always works. Numbers from here compare planners with each other and with the oracle of chores.py;
they are no EB-ALFRED numbers.

Next:  chores.py (our own 300 instructions, and an oracle), embodied.py (lets a model play)
"""
import functools
import random
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from runs.errors import BadInput
from verifier.cards import load_font

SUBSETS = ("base", "common_sense", "complex_instruction", "visual_appearance", "spatial", "long_horizon")
MAX_STEPS, MAX_INVALID = 30, 10  # EB-ALFRED's

# ---- 1. What there is --------------------------------------------------------------------------------------
# AI2-THOR's scene numbers // 100 -> the room, its furniture, and the things that may be in it
ROOMS = {
    0: ("kitchen",
        "CounterTop CounterTop DiningTable Cabinet Cabinet Drawer Drawer Fridge Microwave Sink StoveBurner "
        "GarbageCan CoffeeMachine Faucet",
        "Apple Bread Potato Tomato Lettuce Egg Knife ButterKnife Fork Spoon Ladle Spatula Plate Bowl Cup Mug "
        "Pan Pot Kettle SaltShaker PepperShaker DishSponge WineBottle Glassbottle SoapBottle"),
    2: ("living room",
        "Sofa ArmChair CoffeeTable SideTable Shelf Drawer Drawer Dresser Ottoman FloorLamp",
        "RemoteControl Newspaper Book CreditCard KeyChain Laptop Box Vase Statue Pillow WateringCan "
        "TissueBox Watch Candle"),
    3: ("bedroom",
        "Bed Desk Dresser Drawer Drawer Shelf Shelf SideTable Safe DeskLamp",
        "AlarmClock CD CellPhone Pencil Pen BaseballBat BasketBall TennisRacket Book Laptop Mug Bowl Box "
        "Pillow KeyChain"),
    4: ("bathroom",
        "Sink Bathtub Toilet Cabinet Cabinet Drawer CounterTop Shelf Cart ToiletPaperHanger Faucet",
        "SoapBar SprayBottle ToiletPaper HandTowel Cloth Plunger SoapBottle DishSponge Candle TissueBox")}
FURNITURE = list(dict.fromkeys(kind for _, names, _ in ROOMS.values() for kind in names.split()))  # 27
THINGS = list(dict.fromkeys(kind for *_, names in ROOMS.values() for kind in names.split()))  # 53
OPENABLE = ("Safe", "Laptop", "Fridge", "Box", "Microwave", "Cabinet", "Drawer")
SWITCHED = ("Microwave", "DeskLamp", "FloorLamp", "Faucet")
SLICEABLE = ("Potato", "Lettuce", "Tomato", "Apple", "Bread")
CONTAINERS = ("Pot", "Pan", "Bowl", "Cup", "Mug", "Plate", "Box")  # things that hold things
HOLDS_NOTHING = ("Faucet", "DeskLamp", "FloorLamp")
SKILLS = [f"find a {kind}" for kind in FURNITURE + THINGS]  # 162 in all, as in EB-ALFRED, in our order
SKILLS += [f"pick up the {kind}" for kind in THINGS]
SKILLS += ["put down the object in hand", "drop the object in hand"]
SKILLS += [f"{verb} the {kind}" for kind in OPENABLE for verb in ("open", "close")]
SKILLS += [f"turn {way} the {kind}" for kind in SWITCHED for way in ("on", "off")]
SKILLS += [f"slice the {kind}" for kind in SLICEABLE]
COLORS = {"red": (205, 60, 50), "green": (60, 150, 80), "blue": (60, 100, 200), "yellow": (225, 190, 50),
          "purple": (140, 80, 170)}


@dataclass
class Thing:
    """A piece of furniture (place None) or a thing (place: the name of what it is in or on, "Floor" or
    "hand").
    """
    name: str   # "Drawer_2", the second of its kind; the first is "Drawer"
    kind: str
    place: str | None = None
    color: str = ""
    open: bool | None = None  # None: cannot be opened
    on: bool = False
    clean: bool = False
    hot: bool = False
    cold: bool = False
    sliced: bool = False


# ---- 2. Goals: what a task's name asks for -----------------------------------------------------------------
_TASK = re.compile(r"([a-z_]+)-([A-Za-z]+?)(Sliced)?-([A-Za-z]+)-([A-Za-z]+)-(\d{1,3})/trial_(\w+)")
STATE = {  # of the thing, in the end
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "hot",
    "pick_cool_then_place_in_recep": "cold"}
MACHINES = {"clean": ["Sink", "Faucet"], "hot": ["Microwave"], "cold": ["Fridge"]}  # what brings it about
TYPES = ("pick_and_place_simple", "pick_and_place_with_movable_recep", "pick_two_obj_and_place",
         "look_at_obj_in_light", *STATE)


@dataclass
class Goal:
    type: str
    kind: str      # of the thing
    sliced: bool
    inside: str    # container that the thing shall be in, "" for none
    place: str     # kind of furniture; the lamp of look_at_obj_in_light
    scene: int
    color: str     # "" for any: our own tasks say it in the trial's name, the published ones never do
    side: str      # "left", "right" or "": which piece of furniture of that kind in the picture


def read_task(task):
    """ALFRED's name of a task -> Goal.

    Raises BadInput for a name that is none or names what there is not here.
    """
    found = _TASK.fullmatch(task)
    goal = None
    if found:
        type_, kind, sliced, inside, place, scene, trial = found.groups()
        place = {"SinkBasin": "Sink", "BathtubBasin": "Bathtub"}.get(place, place)
        words = trial.split("_")
        colors = [word for word in words if word in COLORS]
        sides = [word for word in words if word in ("left", "right")]
        goal = Goal(type_, kind, bool(sliced), inside.replace("None", ""), place, int(scene),
                    color=colors[0] if colors else "", side=sides[0] if sides else "")
    if goal is None or not _playable(goal):
        raise BadInput(f"task {task[:120]!r}: not one that can be played here; "
                       "write TYPE-Thing-Container-Place-SCENE/trial_NAME")
    return goal


def _playable(goal):
    """Is there all here that a goal names?"""
    if goal.type not in TYPES or goal.kind not in THINGS or goal.place not in FURNITURE:
        return False
    if goal.scene // 100 not in ROOMS or (goal.sliced and goal.kind not in SLICEABLE):
        return False
    if goal.type == "pick_and_place_with_movable_recep":
        if goal.inside not in CONTAINERS or goal.inside == goal.kind:
            return False
    elif goal.inside:
        return False
    if goal.type == "look_at_obj_in_light":
        return goal.place in ("DeskLamp", "FloorLamp")
    return goal.place not in HOLDS_NOTHING


# ---- 3. The world: skills with preconditions ---------------------------------------------------------------
_SKILL = re.compile(r"(find|pick up|open|close|turn on|turn off|slice|put down|drop) (?:a |the )(.+)")


class World:
    """One scene.

    `act(skill)` changes it and returns "" or why it failed; `met()` says which conditions of the goal hold.
    """

    columns = 5  # of the picture's wall of furniture

    def __init__(self, task):
        self.goal = goal = read_task(task)
        rng = random.Random(task)  # the same task is the same scene, everywhere
        self.room, furniture, here = ROOMS[goal.scene // 100]
        self.things = {}   # name -> Thing, the furniture first
        self.held = None   # the Thing in hand
        self.focus = None  # the Thing that was found last
        self.here = None   # name of the furniture that the robot is at
        for kind in self._furnish(furniture.split(), rng):
            self._add(kind, None, "")
        targets = [t for t in self.things.values() if t.kind == goal.place]
        self.targets = [t.name for t in sorted(targets, key=lambda t: self._column(t.name))]
        if goal.side == "left":
            self.targets = self.targets[:1]
        elif goal.side == "right":
            self.targets = self.targets[-1:]
        self._scatter(here.split(), rng)

        several = [t for t in self.things.values() if "_" in t.name]
        self.skills = SKILLS + [f"find a {t.name}" for t in several]
        for t in several:
            if t.open is not None and t.place is None:
                self.skills += [f"open the {t.name}", f"close the {t.name}"]

    def _furnish(self, furniture, rng):
        """The room's furniture and what else the goal needs, in the order in which it stands."""
        goal = self.goal
        needed = [goal.place, *MACHINES.get(STATE.get(goal.type), [])]
        missing = [kind for kind in needed if kind not in furniture]
        furniture = furniture + missing
        if goal.side and (furniture.count(goal.place) - missing.count(goal.place)) < 2:
            furniture.append(goal.place)
        while True:
            rng.shuffle(furniture)
            columns = [i % self.columns for i, kind in enumerate(furniture) if kind == goal.place]
            if not goal.side or len(set(columns)) == len(columns):  # or left and right would mean nothing
                return furniture

    def _scatter(self, here, rng):
        """Put what the goal is about, and five other things, somewhere else than where they shall be."""
        goal = self.goal
        spots = [t.name for t in self.things.values() if t.kind not in HOLDS_NOTHING + (goal.place,)]
        other = [color for color in COLORS if color != goal.color]
        how_many = 2 if goal.type == "pick_two_obj_and_place" else 1
        meant = goal.color or rng.choice(other)
        decoy = rng.choice(other)  # drawn in any case: what follows stays the same
        colors = [meant] * how_many
        if goal.color:
            colors.append(decoy)
        rng.shuffle(colors)
        kinds = [goal.kind] * len(colors)
        if goal.inside:
            kinds.append(goal.inside)
        if goal.sliced:
            kinds.append("Knife")
        kinds += rng.sample([kind for kind in here if kind not in kinds], 5)
        for i, kind in enumerate(kinds):
            place = rng.choice(spots)
            color = colors[i] if i < len(colors) else rng.choice(other)
            self._add(kind, place, color)

    def _add(self, kind, place, color):
        number = 1 + sum(t.kind == kind for t in self.things.values())
        name = kind if number == 1 else f"{kind}_{number}"
        is_open = None
        if kind in OPENABLE:
            is_open = place is not None  # furniture is shut, boxes stand open
        self.things[name] = Thing(name, kind, place, color, open=is_open)

    def _column(self, name):
        return list(self.things).index(name) % self.columns

    def spot(self, thing):
        """Name of the furniture that a thing is at, "Floor" or "hand"."""
        while thing.place in self.things:
            thing = self.things[thing.place]
        return "Sink" if thing.kind == "Faucet" else thing.place or thing.name

    def shut_in(self, thing):
        """Name of the closed container around a thing, or ""."""
        while thing.place in self.things:
            thing = self.things[thing.place]
            if thing.open is False:
                return thing.name
        return ""

    def meant(self, kind):
        """The thing that a skill means by a kind: the one found last, else one within reach, else any, else
        None.
        """
        every = [t for t in self.things.values() if t.kind == kind and t is not self.held]
        return min(every, key=lambda t: (t is not self.focus, not self.reach(t)), default=None)

    def reach(self, thing):
        return self.spot(thing) == self.here and not self.shut_in(thing)

    def act(self, skill):
        verb, name = _SKILL.fullmatch(skill).groups()
        if verb == "find":
            if name not in self.things:
                return (f"Cannot find {name}. This object may not exist in this scene. "
                        "Try to explore other instances instead.")
            if self.spot(self.things[name]) != "hand":
                self.focus, self.here = self.things[name], self.spot(self.things[name])
            return ""
        if verb in ("put down", "drop"):
            return self._release("Floor" if verb == "drop" else None)
        if verb in ("open", "close"):
            thing = self.things.get(name)  # a door by its number, as there
        else:
            thing = self.meant(name)
        if thing is None:
            return f"Cannot find {name} to {verb}. Find the object before doing so."
        if verb == "pick up":
            return self._pick(thing)
        failed = f"{verb.capitalize()} action failed."
        if not self.reach(thing):
            return f"{failed} The {name} is not near, or not visible. Find it first."
        if verb in ("open", "close"):
            if thing.open is None or thing.open == (verb == "open"):
                return f"{failed} The {name} is already {'open' if verb == 'open' else 'closed'}"
            if thing.on:
                return f"{failed} The {name} is turned on"
            thing.open = verb == "open"
            if thing.kind == "Fridge" and verb == "close":
                self._change(thing, cold=True, hot=False)
        elif verb == "slice":
            if self.held is None or self.held.kind not in ("Knife", "ButterKnife") or thing.sliced:
                return "Slice action failed. It takes a knife in hand and an object that is whole"
            thing.sliced = True
        else:
            if thing.open:
                return f"{failed} The {name} is open"
            if thing.on == (verb == "turn on"):
                return f"{failed} The {name} is already {verb.removeprefix('turn ')}"
            thing.on = verb == "turn on"
            if thing.on and thing.kind == "Microwave":
                self._change(thing, hot=True, cold=False)
            elif thing.on and thing.kind == "Faucet":
                self._change(self.things["Sink"], clean=True)
        return ""

    def _change(self, furniture, **state):
        for thing in self.things.values():
            if thing.place is not None and self.spot(thing) == furniture.name:
                vars(thing).update(state)

    def _pick(self, thing):
        if self.held:
            return f"Robot is currently holding {self.held.kind}"
        if not self.reach(thing):
            where = self.shut_in(thing) or self.spot(thing)
            return (f"{thing.kind} is not visible because it is in {where}. "
                    "Go there to pick the object instead.")
        self.held, thing.place = thing, "hand"
        self.focus = self.things.get(self.here)
        return ""

    def _release(self, place):
        if self.held is None:
            return "Robot is not holding any object"
        target = self.focus
        if target and target.kind == "Faucet":
            target = self.things["Sink"]
        if place is None and not self._can_hold(target):
            name = target.name if target else "nothing"
            return (f"Putting the object on {name} failed. First check whether the receptacle is open or "
                    "not. Also try other instances of the receptacle")
        self.held.place = place or target.name
        self.held = None
        return ""

    def _can_hold(self, target):
        """Can a thing be put into or onto it now?"""
        if target is None or target.open is False or self.shut_in(target):
            return False
        return target.kind not in HOLDS_NOTHING if target.place is None else target.kind in CONTAINERS

    def met(self):
        """Conditions of the goal -> list of bool. One thing must meet all of its own: the best one counts,
        where two are asked for the best two.
        """
        goal = self.goal
        wanted = [t for t in self.things.values() if t.kind == goal.kind and goal.color in ("", t.color)]
        if goal.type == "look_at_obj_in_light":
            return [self.held in wanted, any(self.things[lamp].on for lamp in self.targets)]
        each = sorted((self._conditions(t) for t in wanted), key=sum)
        best = each[-2:] if goal.type == "pick_two_obj_and_place" else each[-1:]
        return [condition for thing in best for condition in thing]

    def _conditions(self, thing):
        """Of one thing that is to be placed somewhere: where it is, and what else the goal asks of it."""
        goal = self.goal
        conditions = [self.spot(thing) in self.targets]
        if goal.type in STATE:
            conditions.append(getattr(thing, STATE[goal.type]))
        if goal.sliced:
            conditions.append(thing.sliced)
        if goal.inside:
            conditions.append(thing.place in self.things and self.things[thing.place].kind == goal.inside)
        return conditions

    def draw(self):
        """What can be seen: the furniture along the wall, the place that was found last, what is on it, and
        the hand. (252, 336, 3)
        """
        image = Image.new("RGB", (336, 252), (236, 232, 224))
        pen, small = ImageDraw.Draw(image), _small()
        for i, t in enumerate(t for t in self.things.values() if t.place is None):
            x, y = 2 + 67 * (i % self.columns), 2 + 44 * (i // self.columns)
            shade = (196, 170, 140)
            if t.on:
                shade = (255, 225, 90)
            elif t.open:
                shade = (250, 250, 248)
            edge, width = ((200, 40, 40), 3) if t.name == self.here else ((110, 90, 70), 1)
            pen.rectangle((x, y, x + 63, y + 40), shade, edge, width)
            pen.text((x + 32, y + 20), t.name, "black", small, "mm")
        pen.rectangle((0, 136, 336, 252), (220, 226, 230))
        pen.text((6, 140), f"{self.room}: at {self.here or 'the door'}", "black", small)
        seen = [t for t in self.things.values() if t.place and t is not self.held and self.reach(t)]
        seen = seen[:10]
        if self.held:
            seen.append(self.held)
        for i, t in enumerate(seen):
            x, y = (306, 224) if t is self.held else (28 + 54 * (i % 5), 172 + 48 * (i // 5))
            pen.ellipse((x - 13, y - 13, x + 13, y + 13), COLORS[t.color], "black")
            if t.sliced:
                pen.line((x - 13, y, x + 13, y), "white", 3)
            pen.text((x, y + 19), t.name, "black", small, "mm")
        pen.rectangle((276, 196, 334, 250), None, (90, 90, 90))
        pen.text((305, 202), "hand", "black", small, "mm")
        return np.asarray(image)


@functools.cache
def _small():
    return load_font(8)  # kept: reading a font takes longer than the drawing


class HouseholdEnv:
    """EBAlfEnv's interface.

    Episodes follow one another at every reset(), in the order of the split or of selected_indexes.
    """

    def __init__(self, splits, eval_set="base", selected_indexes=()):
        if eval_set not in splits:
            raise BadInput(f"--subset {eval_set}: the splits have {', '.join(splits)}")
        self.dataset = splits[eval_set]
        if len(selected_indexes):
            self.dataset = [self.dataset[i] for i in selected_indexes]
        self.number_of_episodes = len(self.dataset)
        self._current_episode_num = 0
        self._max_episode_steps, self._max_invalid_actions = MAX_STEPS, MAX_INVALID
        self.language_skill_set = SKILLS
        self.episode_language_instruction = ""
        self.episode_log = []
        self.world = None

    def reset(self):
        assert self._current_episode_num < self.number_of_episodes
        entry = self.dataset[self._current_episode_num]
        self.world = World(entry["task"])
        self._current_episode_num += 1
        self._current_step = 0
        self._cur_invalid_actions = 0
        self.language_skill_set = self.world.skills
        self.episode_language_instruction = entry["instruction"]
        self.episode_log = []
        return {"head_rgb": self.world.draw()}

    def step(self, action, reasoning=""):
        """action: an index into language_skill_set -> (observation, reward: progress gained, done, info)."""
        assert self.world is not None, "reset() first"
        skill = self.language_skill_set[action]
        before = self.world.met()
        why = self.world.act(skill)
        met = self.world.met()
        self._current_step += 1
        self._cur_invalid_actions += bool(why)
        ended = (self._current_step >= self._max_episode_steps
                 or self._cur_invalid_actions >= self._max_invalid_actions)
        done = all(met) or ended
        feedback = f"Last action is invalid. {why}" if why else "Last action executed successfully."
        info = {"task_success": float(all(met)), "task_progress": sum(met) / len(met),
                "instruction": self.episode_language_instruction, "env_step": self._current_step,
                "last_action_success": float(not why), "action_id": action, "action_description": skill,
                "reasoning": reasoning, "env_feedback": feedback}
        self.episode_log.append(info)
        return {"head_rgb": self.world.draw()}, (sum(met) - sum(before)) / len(met), done, info

    def close(self):
        self.world = None
