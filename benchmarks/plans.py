"""What a planner is asked, and what its reply is read as: EmbodiedBench's prompt and JSON plan, in our words
and by our rules.

A prompt holds the rules, the numbered actions, worked examples if wanted, the instruction, and what was done
so far with the environment's feedback. A reply should be one JSON object with the fields of EmbodiedBench's
schema (Yang et al. 2025):

    {"visual_state_description": "...", "reasoning_and_reflection": "...", "language_plan": "...",
     "executable_plan": [{"action_id": 14, "action_name": "find a Mug"},
                         {"action_id": 97, "action_name": "pick up the Mug"}]}

Models write much that is nearly so. EmbodiedBench mends quotes and code fences at best, and its own worked
examples would not pass: they mix quotes and have no commas between the actions. Here a reply is read as far
as its meaning is clear, and every liberty that was taken is noted.

Next:  embodied.py
"""
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from runs.errors import BadInput

MAX_STEPS = 30  # actions of an episode (EmbodiedBench): no more of a plan can be carried out
ASKED = 20      # actions that a plan is asked to have at most (EmbodiedBench); a longer one is played, too
SHOTS = 10      # worked examples that EmbodiedBench shows


# ---- 1. The prompt -----------------------------------------------------------------------------------------
# Our words; the fields of the JSON are EmbodiedBench's. Modes as in the paper: direct, CoT, and ours, which
# points.
RULES = {
    "alfred": (
        "- find: {find}\n"
        "- pick up: only what you are at and can see, with an empty hand. What is in something closed must "
        "be opened first.\n"
        "- put down: puts what you hold into or onto what you found last. drop only lets it fall.\n"
        "- open, close, turn on, turn off, slice: only what you are at; slicing takes a knife in the hand.\n"
        "- To clean a thing, put it in the sink and turn the faucet on and off; to heat it, put it in the "
        "microwave, close it and turn it on and\n"
        "  off; to cool it, put it in the fridge and close it."),
    "habitat": (
        "- navigate to: go to a piece of furniture. Always do so before you use it.\n"
        "- pick up: only what is where you are, with an empty hand, and not inside something closed.\n"
        "- place at: only where you are, and only when you hold something.\n"
        "- open, close: only what you are at, and only if it is not so already.")}
FORM = (
    "one JSON object in this form, with at most {most} action(s) in its plan, each with an id and the name "
    "of that id:\n"
    '{{"visual_state_description": "what the picture shows", "reasoning_and_reflection": "what was done, '
    "why the last action failed if it\n"
    'did, and what is left to do", "language_plan": "the plan in words", "executable_plan": [{{'
    '"action_id": 0, "action_name": "..."}}]}}')
THINK = "Think first, then answer: <think> your reasoning </think><answer> the plan </answer>."
ASK = {
    "base": f"Reply with {FORM}",
    "cot": f"{THINK} The plan is {FORM}",
    "grounded": f"{THINK} In your reasoning, point at each\nobject that you rely on, in pixels of the "
                f'picture: <point x1="412" y1="96" alt="red mug">red mug</point>. The plan is {FORM}'}
EXAMPLES = [  # (instruction, actions): whichever an environment has
    ("Put a chilled tomato on the table.",
     ["find a Tomato", "pick up the Tomato", "find a Fridge", "open the Fridge",
      "put down the object in hand", "close the Fridge", "open the Fridge", "find a Tomato",
      "pick up the Tomato", "find a DiningTable", "put down the object in hand"]),
    ("Read the book by the lamp.",
     ["find a Book", "pick up the Book", "find a DeskLamp", "turn on the DeskLamp"]),
    ("Put two forks in the drawer.",
     ["find a Drawer", "open the Drawer", "find a Fork", "pick up the Fork", "find a Drawer",
      "put down the object in hand", "find a Fork_2", "pick up the Fork", "find a Drawer",
      "put down the object in hand"]),
    ("Move an apple from the sofa to the sink.",
     ["navigate to the sofa", "pick up the apple", "navigate to the sink in the kitchen",
      "place at the sink in the kitchen"])]


def count_shots(cfg):
    """How many worked examples are shown: --shots, where -1 means EmbodiedBench's 10 of a file, else none."""
    if cfg.shots >= 0:
        return cfg.shots
    return SHOTS if cfg.examples else 0


def examples_file(cfg, subset):
    """--examples, or for long_horizon the file of examples of its own that EmbodiedBench has beside it:
    alfred_long_horizon_examples.json beside alfred_examples.json. (EB-Habitat has one file for all.)
    """
    path = Path(cfg.examples)
    own = path.with_name(path.name.replace("_examples", "_long_horizon_examples"))
    return own if subset == "long_horizon" and own.is_file() else path


def read_examples(path):
    """A file of examples -> texts. BadInput where it is none."""
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        texts = None
    except OSError as error:
        raise BadInput(f"--examples {path}: cannot be read ({type(error).__name__}); give EmbodiedBench's "
                       "evaluator/config/alfred_examples.json or habitat_examples.json") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"--examples {path}: should be a JSON list of texts, "
                       "as EmbodiedBench's alfred_examples.json is")
    return texts


def examples(cfg, actions, subset=""):
    """Worked examples as texts: EmbodiedBench's file as it is, or our own with the ids of these actions."""
    if cfg.examples:
        return read_examples(examples_file(cfg, subset))[:count_shots(cfg)]
    texts = []
    for instruction, names in EXAMPLES:
        if set(names) <= set(actions):
            plan = [{"action_id": actions.index(name), "action_name": name} for name in names]
            reply = json.dumps({"language_plan": "; ".join(names), "executable_plan": plan})
            texts.append(f"Instruction: {instruction}\n{reply}")
    return texts[:count_shots(cfg)]


def write_prompt(cfg, actions, instruction, history, subset=""):
    """What the planner is asked. history: [(number of the action, feedback), ...], oldest first."""
    find = "go to a thing or a piece of furniture. Always do so before you use it."
    # Later releases of EmbodiedBench have eight small moves, and find goes nowhere.
    if any(action.startswith("Move forward") for action in actions):
        find = "say what you look for; then move, turn and tilt until it is in sight and near."
    habitat = any(action.startswith("navigate to") for action in actions)
    rules = RULES["habitat" if habitat else "alfred"]

    parts = ["You are a robot in a home. "
             "Carry out an instruction with the actions listed here and no others."]
    parts.append(rules.replace("{find}", find))
    parts.append("Things of one kind are numbered, as in Cabinet, Cabinet_2: "
                 "what is not in one may be in another.")
    parts.append("Actions, by id:\n" + "\n".join(f"{i}: {action}" for i, action in enumerate(actions)))
    parts += [f"Example {i}. {text}" for i, text in enumerate(examples(cfg, actions, subset), 1)]
    parts.append(f"The instruction: {instruction}")
    if history:
        done = []
        for i, (number, why) in enumerate(history, 1):
            done.append(f"{i}. action {number}, {actions[number]}: {why}")
        parts.append("Done so far:\n" + "\n".join(done)
                     + "\nDo not repeat what failed; find out why, and plan from where you are now.")
    parts.append("The picture shows what you see now. " + ASK[cfg.mode].format(most=cfg.actions or ASKED))
    return "\n\n".join(parts)


# ---- 2. The plan: any string becomes a Plan, in linear time ------------------------------------------------
@dataclass
class Plan:
    """status: "ok"; "repaired" (notes say what was not as asked); "empty" (the model sees nothing to do);
    "invalid" (its first action is none of the list); "error" (no plan could be read).
    """
    actions: list  # numbers of actions
    status: str
    notes: list


MAX_REPLY = 50_000  # characters; of a longer reply the end is read
FIELDS = {"visual_state_description": str, "reasoning_and_reflection": str, "language_plan": str,
          "executable_plan": list}
_LIST = re.compile(r"executable_plan[\"']?\s{0,50}:\s{0,50}\[")
_NUMBER = re.compile(r"\s*(-?\d{1,9})(?:\.0)?\s*")
_ITEM = re.compile(r"\{([^{}]*)(\}?)")
_ID = re.compile(r"action_id[\"']?\s{0,9}:\s{0,9}[\"']?(-?\d{1,9}(?:\.0)?)(?![\d.])")
_NAME = re.compile(r"action_name[\"']?\s{0,9}:\s{0,9}([\"'])([^\"'\n]{0,200})\1")


def read_plan(reply, actions, match="name", most=MAX_STEPS):
    """A model's reply -> Plan. Total, and linear in the reply. most: actions of it that count.

    Only what stands outside <think> is read, and of that the end. JSON is read as JSON. If it is none (single
    quotes, missing or trailing commas, a cut end, another object before it), the actions are looked for in
    the last list called executable_plan, and one that is itself cut off is dropped: half an id is another
    action. match="name": an action_name that names an action of the list, in any case, spacing and with any
    article, decides, and the id only where it does not; models write names better than numbers. "id": the id
    alone, as in EmbodiedBench. An action that is none of the list ends the plan before it, as there.
    """
    _, _, after_reasoning = reply.rpartition("</think>")
    text = after_reasoning.partition("<think>")[0][-MAX_REPLY:]
    notes = []
    items = _read_json(text, notes)
    if items is None:
        items = _look_for(text, notes)
    if items is None:
        return Plan([], "error", notes + ["no plan found"])
    if not items:
        return Plan([], "empty", notes)
    if len(items) > most:
        notes.append(f"{len(items)} actions, of which {most} count")
    numbers = {_fold(name): i for i, name in reversed(list(enumerate(actions)))}
    chosen = []
    for item in items[:most]:
        number, name = _number_and_name(item)
        by_id = _index(number, len(actions))
        by_name = numbers.get(_fold(name))
        action = by_name if match == "name" and by_name is not None else by_id
        said = f"action {str(number)[:20]}, {name[:60]}"
        if action is None:
            notes.append(f"{said}: none of the list")
            break
        if type(number) is not int or by_name != by_id:
            notes.append(f"{said}: read as {action}, {actions[action]}")
        chosen.append(action)
    if not chosen:
        return Plan(chosen, "invalid", notes)
    return Plan(chosen, "repaired" if notes else "ok", notes)


def _number_and_name(item):
    """An entry of a plan -> (its action_id, its action_name), "" for what is missing or of another type."""
    if isinstance(item, dict):
        number, name = item.get("action_id"), item.get("action_name")
    else:
        number, name = item, item  # bare: [3, 7], ["find a Mug"]
    if not isinstance(number, (int, float, str)):
        number = ""
    return number, name if isinstance(name, str) else ""


def _index(number, count):
    """3, "3" or 3.0 -> 3, if there are so many actions; else None."""
    digits = _NUMBER.fullmatch(str(number)[:20])
    if digits and 0 <= int(digits[1]) < count:
        return int(digits[1])
    return None


def _read_json(text, notes):
    """The plan's list of actions if the text is, or surrounds, an object of the schema as far as the plan
    goes; else None.
    """
    try:
        start, end = text.index("{"), text.rindex("}") + 1
        plan = json.loads(text[start:end])
        items = plan["executable_plan"]
        if not isinstance(items, list):
            return None
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if re.sub(r"</?answer>", "", text[:start] + text[end:]).strip():
        notes.append("text around the JSON")
    for name, kind in FIELDS.items():
        if not isinstance(plan.get(name), kind):
            notes.append(f"{name} is missing or not a {kind.__name__}")
    return items


def _look_for(text, notes):
    """The actions of the last list that is called executable_plan, in text that is no JSON; None where there
    is no such list.
    """
    start = max((m.end() for m in _LIST.finditer(text)), default=None)
    if start is None:
        return None
    notes.append("not JSON; the actions were looked for")
    inside, closed, _ = text[start:].partition("]")
    items = []
    for body, end in _ITEM.findall(inside):
        if not end:
            continue  # cut off
        number, name = _ID.search(body), _NAME.search(body)
        items.append({"action_id": int(float(number[1])) if number else None,
                      "action_name": name[2] if name else None})
    an_empty_list = closed and not inside.strip()
    return items if items or an_empty_list else None


@lru_cache(4096)
def _fold(name):
    return re.sub(r"\b(?:an?|the)\b|[\W_]+", "", name[:200].lower())
