"""LIBERO: the policy as a robot's controller. Two pictures and an instruction go in, the arm's next eight
actions come out as text.

The paper (sec. 5.4, table 5) post-trains its model and the baselines as vision-language-action models:
third-person and wrist camera re-rendered at 224 x 224, failed demonstrations and no-ops left out, 50 trials a
task (20 in LIBERO-90). How actions become tokens it does not say. Here as in OpenVLA (arXiv:2406.09246, sec.
3.2): every dimension is cut into 256 equal bins between its 1st and 99th percentile over the demonstrations,
and a bin is one token, `<action_000>` .. `<action_255>`. (OpenVLA's code has 256 edges, so 255 bins.) The
tokens are added to the tokenizer: Qwen2.5-VL's embedding table has 399 rows that no token uses, a smaller one
grows. An answer is a chunk of 8 actions, 56 tokens, all carried out before the cameras look again. Training
is train_sft.py as it is, on chat rows.

    # 1) Demonstrations -> OUT/demos/*.hdf5: scripted ones, or the hub's, replayed with pictures of 224 pixels
    python -m benchmarks.libero --do record --suites object --tasks 0 1
    python -m benchmarks.libero --do rerender --demos DIR --suites object
    # 2) -> OUT/train.jsonl, val.jsonl, actions.json; then OUT/base: the same model with 256 more tokens
    python -m benchmarks.libero --do convert
    python -m benchmarks.libero --do tokens --policy tiny/base
    python train_sft.py --data out/libero/train.jsonl --policy out/libero/base --out out/libero/sft \\
        --image_pixels 50176
    # 3) Held-out chunks, without a simulator; then episodes -> OUT/table.md, OUT/*.gif
    python -m benchmarks.libero --do openloop --policy out/libero/sft/merged --image_pixels 50176
    python -m benchmarks.libero --do rollout --policy out/libero/sft/merged --image_pixels 50176

What is simplified: no proprioception; a chunk that cannot be read is a pause of eight steps, counted; Qwen's
new tokens keep random output rows under LoRA, which trains the layers below them (--lora_rank 0 trains the
rows, too).
Trials are drawn as in OpenVLA's evaluation (experiments/robot/libero): chance is seeded once a task, so that
fixtures stand elsewhere in each of the 50 trials. What differs from it:
- It sees one camera, we two. Its pictures are drawn with 256 pixels, shrunk to 224 by Lanczos, and their
  middle (.9 of the area) is enlarged to 224 again, as it trains with random crops of that size. Here they are
  drawn with 224 (the paper); `--side 256 --crop .9` in rerender, convert and rollout alike does as it does,
  but training has the same middle crop.
- Its pictures pass through JPEG and are mirrored, too; ours are turned upright alone.
- It looks again after every action, we after a chunk. --temperature 0 is greedy, as there.
- A simulator that fails ends the run, which goes on when it is started again; there the trial counts as failed.
Needs:  pip install -r benchmarks/libero-requirements.txt for record, rerender and rollout; h5py for convert.
Writes: under --out, what is named above; rollouts.jsonl is append-only, and a second run asks only for what
is missing.
Before: train_sft.py. Next: results/libero.md (a run on a laptop)
"""
import io
import json
import math
import os
import re
from collections import Counter, defaultdict
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest
from tqdm import tqdm

from runs.checkpoints import follow_budget
from runs.errors import BadInput, run_main
from runs.files import alone, append_jsonl, read_jsonl, save_figure, write_atomically
from runs.settings import Settings, flag, parse_config, pixel_budget, preset_arguments
from verifier.answers import clean
from verifier.coordinates import Media, seen_size
from verifier.media import load_media
from train_sft import read_chats
import policy as P
from benchmarks.sources import existing_folder

ROOT = Path(__file__).parent.parent


@dataclass
class Config(Settings):
    do: str = flag("", "record, rerender, convert, tokens, openloop or rollout")
    out: str = flag("out/libero", "folder to write, and where the other steps' files are")
    demos: str = flag("", "folder of demonstrations, *.hdf5 (default: OUT/demos)")
    policy: str = flag(str(ROOT / "tiny/base"), "model folder or hub name")
    suites: list[str] = field(default_factory=lambda: ["object"], metadata={
        "help": "of object, spatial, goal, 10, 90"})
    tasks: list[int] = field(default_factory=list, metadata={
        "help": "numbers of tasks within a suite (default: all)"})
    starts: int = flag(10, "record: random starts a task")
    every: int = flag(4, "record, rerender: steps between pictures; 1 is the hub's, and slow on a CPU")
    side: int = flag(224, "record, rerender, rollout: pixels of a side that cameras are drawn with (paper: "
                          "224; OpenVLA: 256); pictures are then resized to 224")
    crop: float = flag(1., "convert, rollout: share of a picture's area, in its middle, that is shown "
                           "(OpenVLA: .9)")
    chunk: int = flag(8, "convert: actions an answer")
    holdout: float = flag(.1, "convert: share of each task's demonstrations that goes to val.jsonl")
    trials: int = flag(0, "rollout: episodes a task (0: the protocol's 50, or 20 in LIBERO-90)")
    envs: int = flag(1, "rollout: episodes side by side, one answer of the policy for all")
    films: int = flag(1, "rollout: of so many episodes a task a gif is kept")
    temperature: float = flag(0., "0: greedy")
    limit: int = flag(256, "openloop: chunks at most")
    batch: int = flag(32, "openloop: chunks at a time")
    seed: int = flag(7, "seed of random starts, of new tokens and of sampling")


# ---- 1. Actions as text ------------------------------------------------------------------------------------
# An action: dx, dy, dz (1 is 5 cm), three rotations, gripper (-1 opens, 1 closes), each within [-1, 1], 20
# times a second.
BINS, DIMS, GRIPPER = 256, 7, 6
OPEN, PAUSE = -1., (0.,) * GRIPPER
PROMPT = "What action should the robot take to {}?"  # OpenVLA's
_TOKEN = re.compile(r"<action_([0-9]{3})>")


@dataclass
class Actions:
    """The codec. low, high: (7,) the range that the bins cut up; chunk: actions an answer."""
    low: list
    high: list
    chunk: int = 8

    @classmethod
    def of(cls, actions, chunk=8):
        """From actions (N, 7): 1st and 99th percentile; the gripper keeps its own range, as in OpenVLA."""
        low, high = np.quantile(actions, [.01, .99], axis=0)
        low[GRIPPER], high[GRIPPER] = -1, 1
        return cls(low.tolist(), high.tolist(), chunk)

    def bins(self, actions):
        """Actions (T, 7)

        -> bins (T, 7); what is out of range goes to the outermost. A dimension that never moved has one bin,
        0.
        """
        low, high = np.array(self.low), np.array(self.high)
        share = (np.clip(actions, low, high) - low) / np.where(high > low, high - low, 1)
        return np.minimum(share * BINS, BINS - 1).astype(int)

    def encode(self, actions):
        """Up to `chunk` actions (T, 7)

        -> the answer. A chunk that the demonstration's end cuts short is filled with pauses.
        """
        pause = (*PAUSE, actions[-1][GRIPPER])
        actions = [*actions, *[pause] * (self.chunk - len(actions))]
        return "".join(f"<action_{b:03d}>" for b in self.bins(actions).flat)

    def decode(self, text):
        """Any text

        -> actions (chunk, 7), the bins' centres, the gripper fully open or closed; None where it is not one
        whole chunk.
        """
        bins = [int(b) for b in _TOKEN.findall(text)]
        nothing_else = len(text) == len(bins) * len("<action_000>")
        if len(bins) != self.chunk * DIMS or not nothing_else or max(bins) >= BINS:
            return None
        low, high = np.array(self.low), np.array(self.high)
        actions = low + (np.reshape(bins, (-1, DIMS)) + .5) * (high - low) / BINS
        # As OpenVLA carries it out; no centre is 0.
        actions[:, GRIPPER] = np.where(actions[:, GRIPPER] < 0, -1, 1)
        return actions


def add_tokens(policy, seed=0):
    """Give a policy the 256 action tokens, in place. They are ordinary tokens: not special, so policy.ban
    lets them be sampled.

    Their rows are drawn around the mean of the others with the others' spread, in the embedding and, where it
    is not the same matrix, in the output: rows alike would be a tie that a frozen table (LoRA) could never
    break.
    """
    from tokenizers import AddedToken  # here, not above: no other step needs it
    tokens = [f"<action_{b:03d}>" for b in range(BINS)]
    policy.tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in tokens])
    core, new = policy.core, policy.tokenizer.convert_tokens_to_ids(tokens)
    if max(new) >= core.get_input_embeddings().num_embeddings:
        core.resize_token_embeddings(max(new) + 1, pad_to_multiple_of=8, mean_resizing=False)
    policy.__dict__.pop("ban", None)  # what may be sampled has changed
    tables = [core.get_input_embeddings().weight, core.get_output_embeddings().weight]
    if tables[0] is tables[1]:
        tables = tables[:1]  # one matrix serves both
    with torch.no_grad():
        for table in tables:
            old = table[:min(new)].float()
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(BINS, old.shape[1], generator=generator).to(old.device)
            table[new] = (old.mean(0) + noise * old.std(0)).to(table.dtype)


# ---- 2. The simulator --------------------------------------------------------------------------------------
# Our name: LIBERO's name, table 5's column, most steps (OpenVLA's run_libero_eval.py: the longest
# demonstration and some), trials per task.
SUITES = {"object": ("libero_object", "Object", 280, 50),
          "spatial": ("libero_spatial", "Spatial", 220, 50),
          "goal": ("libero_goal", "Goal", 300, 50),
          "10": ("libero_10", "Long", 520, 50),
          "90": ("libero_90", "90", 400, 20)}
SETTLE = 10  # steps in which things come to rest
SIDE = 224   # pixels of a side of what the policy is shown
CAMERAS = ("agentview", "robot0_eye_in_hand")


def _drawing_library():
    """"osmesa" draws on the CPU; "egl" on a GPU, and on the CPU too where Mesa's is installed."""
    if torch.cuda.is_available() or not find_library("OSMesa"):
        return "egl"
    return "osmesa"


def suite_of(name):
    """LIBERO's own object for one of SUITES. Raises BadInput where the simulator is not installed."""
    if name not in SUITES:
        raise BadInput(f"--suites {name}: choose {', '.join(SUITES)}")
    # To draw without a screen; both are read while the simulator is imported.
    for variable in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        os.environ.setdefault(variable, _drawing_library())
    try:
        from libero.libero import benchmark  # the simulator: optional, and slow to load
    except (ImportError, AttributeError) as error:  # AttributeError: PyOpenGL without a library to draw with
        raise BadInput(f"LIBERO is not installed ({error}); "
                       "pip install -r benchmarks/libero-requirements.txt, as that file says") from None
    return benchmark.get_benchmark(SUITES[name][0])(task_order_index=0)


def tasks_of(cfg):
    """The tasks that were asked for: yields (suite's name, the suite, number)."""
    for name in cfg.suites:
        suite = suite_of(name)
        if not set(cfg.tasks) <= set(range(suite.n_tasks)):
            raise BadInput(f"--tasks {cfg.tasks}: {name} has tasks 0 to {suite.n_tasks - 1}")
        yield from ((name, suite, number) for number in cfg.tasks or range(suite.n_tasks))


class Scenes:
    """What chance draws for each trial of a task: OpenVLA seeds the environment once (seed 0) and resets it
    before every trial.

    An initial state holds what moves; fixtures stand where the reset puts them, from numpy's global
    generator. Its state before each trial is kept. So trial k has the same scene whether the trials before it
    were played, stand in the log of an earlier run, or run beside it.
    """

    def __init__(self):
        self.before = []  # the generator's state before trial 0, 1, ...

    def reset(self, env, trial):
        """Reset `env` to the scene of a trial. One reset, and one for each trial before it not drawn yet."""
        if not self.before:
            env.seed(0)
            self.before.append(np.random.get_state())
        for k in range(min(trial, len(self.before) - 1), trial + 1):
            np.random.set_state(self.before[k])
            env.reset()
            if k + 1 == len(self.before):
                self.before.append(np.random.get_state())


class World:
    """One task in the simulator. What `play` and `replay` need: start, step, see, obs, state.

    side: pixels of a side that the cameras are drawn with; scenes: shared by the worlds of one task
    """

    def __init__(self, suite, number, side=SIDE, scenes=None):
        from libero.libero import get_libero_path  # the simulator: optional, and slow to load
        from libero.libero.envs import OffScreenRenderEnv
        task = suite.get_task(number)
        self.side = side
        self.scenes = scenes or Scenes()
        self.name, self.instruction = task.name, task.language
        self.inits = suite.get_task_init_states(number)
        self.bddl = Path(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)
        # Pictures are drawn when asked for: 20 times faster.
        self.env = OffScreenRenderEnv(bddl_file_name=str(self.bddl), use_camera_obs=False)

    def start(self, init=None, seed=0, trial=None):
        """To an initial state, or to a random one; then let things come to rest.

        The same init and seed give the same episode, and so do the same init and trial (Scenes).
        """
        if trial is None:
            self.env.seed(seed)  # fixtures are placed by chance, too, so also where there is an init
            self.env.reset()
        else:
            self.scenes.reset(self.env, trial)
        if init is not None:
            self.env.set_init_state(init)
        for _ in range(SETTLE):
            self.step((*PAUSE, OPEN))

    def step(self, action):
        """Carry out an action (7,) -> whether the task is done."""
        self.obs, _, done, _ = self.env.step(np.array(action))
        return bool(done)

    def see(self):
        """Third-person and wrist picture, upright: two (side, side, 3) uint8. OpenGL's first row is the lowest.
        (The environment's own observations are drawn a moment before its step ends; a pixel in fifty differs
        by a little.)
        """
        return [self.env.sim.render(width=self.side, height=self.side, camera_name=c)[::-1] for c in CAMERAS]

    def state(self):
        return self.env.get_sim_state()

    def close(self):
        self.env.close()


# ---- 3. Demonstrations -------------------------------------------------------------------------------------
def scripted(world, most):
    """Pick up what the task is about and let it fall where it belongs, by their true positions.

    -> actions taken (T, 7), at most `most` of them

    Six waypoints: above the thing, at it, closing, lifted, above the goal, opening. Good for libero_object,
    where all is grasped from above and put into a basket; not for drawers, stoves or rims of bowls.
    """
    thing, goal = world.env.obj_of_interest
    up = np.array([0, 0, .2])
    taken = []
    stage = since = 0  # the waypoint, and for how many steps it has been the aim
    while len(taken) < most and stage < 6:
        if stage < 2:  # not grasped yet
            at = world.obs[f"{thing}_pos"].copy()
        over = np.array([*world.obs[f"{goal}_pos"][:2], at[2]]) + up
        waypoints = [(at + up / 2, -1), (at, -1), (at, 1), (at + up, 1), (over, 1), (over, -1)]
        target, grip = waypoints[stage]
        error = target - world.obs["robot0_eef_pos"]
        taken.append([*np.clip(10 * error, -1, 1), 0, 0, 0, grip])
        since += 1
        if world.step(taken[-1]):
            break
        takes_time = stage in (2, 5)  # fingers close, things fall
        arrived = np.linalg.norm(error) < .012 and not takes_time
        if arrived or since >= (15 if stage == 2 else 60):
            stage += 1
            since = 0
    return np.array(taken)


def moving(actions, still=1e-4):
    """Which of the actions (T, 7) are no no-ops: the hand moves, or the gripper changes (OpenVLA's
    regenerate_libero_dataset.py).
    """
    kept, grip = [], None
    for i, action in enumerate(actions):
        if np.linalg.norm(action[:GRIPPER]) >= still or grip not in (None, action[GRIPPER]):
            kept.append(i)
            grip = action[GRIPPER]
    return kept


def replay(world, actions, every, init=None, seed=0):
    """Carry actions out again, look at every `every`-th step -> a demonstration, or None when they do not
    succeed (any more).

    Leaving out no-ops changes what follows them, so what is kept must be seen to succeed.
    """
    world.start(init, seed)
    demo = defaultdict(list, every=every, init=world.state(), instruction=world.instruction)
    for i, action in enumerate(actions):
        if i % every == 0:
            for name, picture in zip(("agentview_rgb", "eye_in_hand_rgb"), world.see()):
                demo[name].append(picture[::-1])  # in files they are upside down
        o = world.obs
        place, turn, fingers = o["robot0_eef_pos"], o["robot0_eef_quat"], o["robot0_gripper_qpos"]
        hand = np.concatenate([place, Rotation.from_quat(turn).as_rotvec()])
        demo["ee_pos"].append(hand[:3])
        demo["ee_ori"].append(hand[3:])
        demo["ee_states"].append(hand)
        demo["gripper_states"].append(fingers)
        demo["joint_states"].append(o["robot0_joint_pos"])
        demo["states"].append(world.state())
        demo["actions"].append(action)
        demo["robot_states"].append(np.concatenate([fingers, place, turn]))
        if world.step(action):
            return dict(demo)
    return None


def write_demo(path, demo, bddl=""):
    """One demonstration as the hub lays them out.

    Our addition: an attribute `every`, steps between pictures (there: 1).
    """
    import h5py  # here, not above: only demonstrations need it
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(f"{path}.tmp", "w") as file:
        data = file.create_group("data")
        data.attrs.update(problem_info=json.dumps({"language_instruction": demo["instruction"]}),
                          bddl_file_name=str(bddl), num_demos=1, total=len(demo["actions"]),
                          macros_image_convention="opengl", env_name="", env_args="{}")
        one = data.create_group("demo_0")
        one.attrs.update(num_samples=len(demo["actions"]), init_state=demo["init"])
        last = np.arange(len(demo["actions"])) == len(demo["actions"]) - 1
        for name in ("actions", "states", "robot_states"):
            one[name] = np.array(demo[name])
        one["rewards"] = last.astype(np.uint8)
        one["dones"] = last.astype(np.uint8)
        one.create_group("obs").attrs["every"] = demo["every"]
        for name in ("agentview_rgb", "eye_in_hand_rgb", "ee_pos", "ee_ori", "ee_states", "gripper_states",
                     "joint_states"):
            compression = "gzip" if name.endswith("rgb") else None
            one["obs"].create_dataset(name, data=np.array(demo[name]), compression=compression)
    os.replace(f"{path}.tmp", path)


def read_demos(path, report):
    """Yield the successful demonstrations of a file of the hub's layout, in the order of their numbers,
    pictures turned upright.

    -> dicts: name, instruction, actions (T, 7), states (T, n), every, third and wrist ((T - 1) // every + 1,
    H, W, 3) uint8. One that is unusable goes to report(reason, where). Raises BadInput for a file that
    is not of this layout. Nothing in it is run, and no other file is opened: links and external storage are
    refused. The hub marks every demonstration as a success; whether it is one now, --do rerender finds out.
    """
    import h5py  # here, not above: only demonstrations need it

    def inside(group, name, kind):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], kind):
            raise ValueError(f"no {name}")
        return group[name]

    def take(group, name, shape, types):  # types: characters of numpy's dtypes
        data = inside(group, name, h5py.Dataset)
        fits = len(data.shape) == len(shape)
        fits = fits and all(want in (None, have) for want, have in zip(shape, data.shape))
        here = not data.external and not data.is_virtual
        if not here or data.dtype.char not in types or not fits or not 0 < data.nbytes <= 1 << 30:
            raise ValueError(f"{name} is {data.dtype} {data.shape}")
        return data[:]

    try:
        with h5py.File(path, "r") as file:
            data = file["data"]
            instruction = clean("".join(json.loads(data.attrs["problem_info"])["language_instruction"]))
            names = [name for name in data if re.fullmatch("demo_[0-9]{1,6}", name)]
            for name in sorted(names, key=lambda name: int(name.removeprefix("demo_"))):
                where = f"{path} {name}"
                try:
                    one = inside(data, name, h5py.Group)
                    obs = inside(one, "obs", h5py.Group)
                    every = int(obs.attrs.get("every", 1))
                    actions = take(one, "actions", (None, DIMS), "fd")
                    length = len(actions)
                    if not 0 < length <= 10_000 or not np.isfinite(actions).all() or not 0 < every <= length:
                        raise ValueError(f"{length} actions, not all of them numbers")
                    shape = ((length - 1) // every + 1, None, None, 3)
                    third = take(obs, "agentview_rgb", shape, "B")[:, ::-1]
                    wrist = take(obs, "eye_in_hand_rgb", shape, "B")[:, ::-1]
                    states = take(one, "states", (length, None), "fd")
                    done = take(one, "rewards", (length,), "?bBilfd")[-1]
                except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                    report("unusable", f"{where} ({str(error)[:80]})")
                    continue
                if done != 1:
                    report("not a success", where)
                    continue
                yield dict(name=name, instruction=instruction, actions=actions, states=states, every=every,
                           third=third, wrist=wrist)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: not a LIBERO demonstration file ({str(error)[:80]}); "
                       "download or record it again") from None


def demo_files(cfg):
    """The files of demonstrations, sorted."""
    if cfg.do == "rerender" and not cfg.demos:
        raise BadInput("--do rerender: name the folder of the hub's files, "
                       "--demos LIBERO-datasets/libero_object")
    folder = existing_folder("demos", cfg.demos) if cfg.demos else Path(cfg.out, "demos")
    files = sorted(folder.glob("*.hdf5"))
    if not files:
        raise BadInput(f"{folder}: holds no *.hdf5; --do record writes some, or --demos names the hub's")
    return files


def record(cfg):
    """Scripted demonstrations from random starts (the initial states of the suite are for the evaluation), or
    the hub's replayed.
    """
    left_out = Counter()  # reason -> how many
    written = 0
    files = demo_files(cfg) if cfg.do == "rerender" else []
    for name, suite, number in tasks_of(cfg):
        task = suite.get_task(number).name
        world = None  # made for the first job that is not done yet
        if cfg.do == "record":
            jobs = [(f"{task}_{k:03d}", dict(seed=1000 * cfg.seed + k), None) for k in range(cfg.starts)]
        else:
            jobs = hub_jobs(files, task, left_out)
        for stem, start, actions in tqdm(jobs, desc=task[:40], unit="demo"):
            path = Path(cfg.out, "demos", f"{stem}_demo.hdf5")
            if path.exists():  # of an earlier, interrupted run
                continue
            world = world or World(suite, number, cfg.side)
            init = start.get("init", world.inits[0])
            if init.shape != world.inits[0].shape or not np.isfinite(init).all():
                left_out["of another scene"] += 1
                continue
            if actions is None:
                world.start(**start)
                actions = scripted(world, SUITES[name][2])
            demo = replay(world, actions[moving(actions)], cfg.every, **start)
            if demo is None:
                left_out["failed in the simulator"] += 1
                continue
            write_demo(path, demo, world.bddl.name)
            written += 1
        if world:
            world.close()
    reasons = "".join(f"; {n} {reason}" for reason, n in left_out.items())
    print(f"wrote {written} demonstrations to {cfg.out}/demos{reasons}")


def hub_jobs(files, task, left_out):
    """Yield (stem, what World.start takes, actions) of the hub's demonstrations of a task."""
    def count(reason, where):
        left_out[reason] += 1

    for file in files:
        if file.name == f"{task}_demo.hdf5":
            for demo in read_demos(file, count):
                yield f"{task}_{demo['name']}", dict(init=demo["states"][0]), demo["actions"]


def convert(cfg):
    """Demonstrations

    -> chat rows as train_sft.py reads them, one for every step with pictures; the last ones of a task to
    val.jsonl.
    """
    out = Path(cfg.out)
    left_out = Counter()          # reason -> how many
    by_task = defaultdict(list)   # instruction -> [(actions, shown)]

    def count(reason, where):
        left_out[reason] += 1

    for file in tqdm(demo_files(cfg), desc="convert", unit="file"):
        for demo in read_demos(file, count):
            kept = moving(demo["actions"])
            shown = []  # (which of the kept actions comes next, the two pictures)
            for new, old in enumerate(kept):
                if old % demo["every"]:
                    continue
                stem = f"media/{file.stem}-{demo['name']}-{old:04d}"
                images = [f"{stem}-third.png", f"{stem}-wrist.png"]
                shown.append((new, images))
                for name, pictures in zip(images, (demo["third"], demo["wrist"])):
                    save_figure(shown_of(pictures[old // demo["every"]], cfg.crop), out / name)
            by_task[demo["instruction"]].append((demo["actions"][kept], shown))
    sets = {"train": [], "val": []}  # of (instruction, actions, shown)
    for instruction, demos in by_task.items():
        held_out = math.ceil(cfg.holdout * len(demos)) if len(demos) > 1 else 0
        for i, demo in enumerate(demos):
            sets["val" if i >= len(demos) - held_out else "train"].append((instruction, *demo))
    if not any(len(actions) for _, actions, _ in sets["train"]):
        raise BadInput(f"{cfg.demos or cfg.out}: no demonstration to train on ({dict(left_out)}); "
                       "see --holdout")
    codec = Actions.of(np.concatenate([actions for _, actions, _ in sets["train"]]), cfg.chunk)
    for name, demos in sets.items():
        rows = []
        for instruction, actions, shown in demos:
            for new, images in shown:
                rows.append(chat_row(instruction, codec.encode(actions[new:new + cfg.chunk]), images))
        write_atomically(out / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        print(f"{name}.jsonl: {len(rows)} chunks of {len(demos)} demonstrations")
    write_atomically(out / "actions.json", json.dumps(vars(codec)))
    print(f"{len(by_task)} tasks" + "".join(f"; left out: {n} {reason}" for reason, n in left_out.items()))


def shown_of(pixels, crop=1.):
    """A camera's picture (H, W, 3) uint8 -> the picture of 224 x 224 that training and rollout show.

    Of another size (OpenVLA's 256; the hub's 128, better --do rerender) it is resized by Lanczos. crop: the
    share of the area, in the middle, that is then enlarged to 224 again, each side by sqrt(crop) of it; both
    as OpenVLA does, within half a pixel (its tf.image.crop_and_resize puts pixels' centres elsewhere).
    """
    picture = Image.fromarray(pixels)
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.LANCZOS)
    if crop < 1:
        edge = SIDE * (1 - math.sqrt(crop)) / 2
        picture = picture.resize((SIDE, SIDE), Image.BILINEAR, box=(edge, edge, SIDE - edge, SIDE - edge))
    return picture


def chat_row(instruction, answer, images):
    """One example as train_sft.py reads it."""
    user = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": PROMPT.format(instruction)}]
    said = [{"type": "text", "text": answer}]
    messages = [dict(role="user", content=user), dict(role="assistant", content=said)]
    return dict(messages=messages, images=images)


# ---- 4. The policy, asked ----------------------------------------------------------------------------------
def read_codec(cfg):
    path = Path(cfg.out, "actions.json")
    try:
        codec = Actions(**json.loads(path.read_text()))
        bounds = [codec.low, codec.high]
        if np.shape(bounds) != (2, DIMS) or not np.isfinite(bounds).all() or not 0 < codec.chunk <= 64:
            raise ValueError("other numbers")
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not the range of actions ({type(error).__name__}); "
                       "--do convert writes it") from None
    return codec


def load(cfg):
    actor = P.load_policy(cfg.policy, dtype=cfg.dtype)
    if len(actor.tokenizer("<action_255>", split_special_tokens=True)["input_ids"]) != 1:
        raise BadInput(f"{cfg.policy}: knows no action tokens; --do tokens adds them, "
                       "then train_sft.py teaches them")
    return actor


def as_media(pixels, cfg):
    """A camera's picture (H, W, 3) uint8 as the policy sees it: exactly what load_media makes of the file in
    training.
    """
    picture = shown_of(pixels, cfg.crop)
    size = seen_size(*picture.size, 1, cfg.min_pixels, cfg.image_pixels)
    seen = picture if picture.size == size else picture.resize(size, Image.BICUBIC)
    return Media([seen], [0.], picture.size)


def ask(actor, items, cfg, chunk, generator):
    """items: [([Media, Media], question), ...] -> one answer each."""
    greedy = cfg.temperature == 0
    prompts = P.encode_prompts(actor, items)
    drawn = P.sample(actor, prompts, 1, 1. if greedy else cfg.temperature, greedy=greedy,
                     max_new_tokens=chunk * DIMS + 1, generator=generator)
    return drawn.texts


def bins_of(rows):
    """The answers of chat rows as bins, (N, chunk * 7)."""
    return np.array([[int(b) for b in _TOKEN.findall(text)] for _, _, text in rows])


def openloop(cfg):
    """How near answers come to held-out chunks, beside always saying the same: the commonest bin of each
    place, the median bin.
    """
    out = Path(cfg.out)
    codec = read_codec(cfg)
    actor = load(cfg)
    rows = read_chats(out / "val.jsonl")
    train = bins_of(read_chats(out / "train.jsonl"))
    chosen = np.random.default_rng(cfg.seed).permutation(len(rows))[:cfg.limit]
    rows = [rows[i] for i in sorted(chosen)]
    truth = bins_of(rows)
    generator = torch.Generator(actor.device).manual_seed(cfg.seed)
    texts = []
    for i in tqdm(range(0, len(rows), cfg.batch), desc="open loop", unit="batch"):
        items = []
        for media, question, _ in rows[i:i + cfg.batch]:
            items.append(([load_media(path, **pixel_budget(cfg)) for path in media], question))
        texts += ask(actor, items, cfg, codec.chunk, generator)

    read = np.array([codec.decode(text) is not None for text in texts])
    unreadable = [-1] * truth.shape[1]  # never right
    said = np.array([_TOKEN.findall(text) if ok else unreadable for text, ok in zip(texts, read)], int)
    mode = np.array([np.bincount(column).argmax() for column in train.T])  # the commonest bin of each place
    median = np.median(train, axis=0)
    lines = [f"{len(rows)} held-out chunks, {(~read).sum()} answers unreadable "
             "(no token of theirs counts as right)", "",
             line("tokens", "accuracy", "always the commonest bin", "mean error, bins of 256",
                  "always the median bin"), "|---|---|---|---|---|"]
    groups = {"translation": [0, 1, 2], "rotation": [3, 4, 5], "gripper": [GRIPPER], "all": list(range(DIMS))}
    for name, dims in groups.items():
        at = np.isin(np.arange(truth.shape[1]) % DIMS, dims)
        t, s = truth[:, at], said[:, at]
        error = f"{np.abs(s - t)[read].mean():.1f}" if read.any() else "-"
        lines.append(f"| {name} | {(s == t).mean():.3f} | {(mode[at] == t).mean():.3f} | {error} | "
                     f"{np.abs(median[at] - t).mean():.1f} |")
    write_atomically(out / "openloop.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


# ---- 5. Episodes -------------------------------------------------------------------------------------------
def play(worlds, inits, most, answer, codec, trials=None):
    """One episode in each world, in lockstep: look, ask, carry out a whole chunk. -> dicts: success, steps,
    answers, unreadable, film.

    trials: their numbers in the protocol, which decide their scenes (World.start); answer: [(third, wrist),
    ...] -> [text, ...]. An episode ends when its task is done, or after `most` actions. An answer that is no
    chunk is a pause of as many steps, the gripper as it was.
    """
    for world, init, trial in zip(worlds, inits, trials or [None] * len(inits)):
        world.start(init, trial=trial)
    episodes = [dict(success=False, steps=0, answers=0, unreadable=0, film=[], grip=OPEN) for _ in inits]
    going = list(zip(worlds, episodes))
    while going:
        seen = [world.see() for world, _ in going]
        for (world, e), pictures, text in zip(going, seen, answer(seen)):
            actions = codec.decode(text)
            e["answers"] += 1
            e["unreadable"] += actions is None  # then it pauses, the gripper as it was
            e["film"].append(np.concatenate(pictures, 1))  # side by side
            if actions is None:
                actions = [(*PAUSE, e["grip"])] * codec.chunk
            for action in actions:
                e["success"], e["grip"] = world.step(action), action[GRIPPER]
                e["steps"] += 1
                if e["success"] or e["steps"] == most:
                    break
        going = [(world, e) for world, e in going if not e["success"] and e["steps"] < most]
    return episodes


def save_film(path, frames, milliseconds):
    pictures = [Image.fromarray(frame).quantize(64) for frame in frames]
    data = io.BytesIO()
    pictures[0].save(data, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    write_atomically(path, data.getvalue())


def answerer(actor, question, cfg, chunk, generator):
    """-> answer([(third, wrist), ...]) -> texts, as `play` asks."""
    def answer(seen):
        items = [([as_media(picture, cfg) for picture in pair], question) for pair in seen]
        return ask(actor, items, cfg, chunk, generator)
    return answer


def rollout(cfg):
    """The suite protocol.

    Every episode is one row of rollouts.jsonl; what is there, of the same weights and settings, is not run
    again.
    """
    out = Path(cfg.out)
    log = out / "rollouts.jsonl"
    codec = read_codec(cfg)
    weights = Path(cfg.policy, "model.safetensors")
    written = weights.stat().st_mtime_ns if weights.exists() else 0
    stamp = [str(cfg.policy), written, cfg.dtype, cfg.temperature, cfg.seed, cfg.min_pixels, cfg.image_pixels,
             cfg.side, cfg.crop, "seeded once a task", vars(codec)]
    logged = [row for _, row in read_jsonl(log, torn=True)] if log.exists() else []
    rows = {(row["suite"], row["task"], row["trial"]): row for row in logged if row.get("stamp") == stamp}
    actor = None  # loaded with the first episode that is not there yet
    wanted = []
    for name, suite, number in tasks_of(cfg):
        _, _, most, trials = SUITES[name]
        asked = [(name, number, trial) for trial in range(cfg.trials or trials)]
        wanted += asked
        todo = [trial for _, _, trial in asked if (name, number, trial) not in rows]
        worlds = []
        scenes = Scenes()
        bar = tqdm(range(0, len(todo), cfg.envs), desc=suite.get_task(number).name[:40], unit="batch",
                   disable=not todo)
        for i in bar:
            part = todo[i:i + cfg.envs]
            actor = actor or load(cfg)
            while len(worlds) < len(part):
                worlds.append(World(suite, number, cfg.side, scenes))
            instruction, inits = worlds[0].instruction, worlds[0].inits
            generator = torch.Generator(actor.device).manual_seed(1000 * cfg.seed + part[0])
            answer = answerer(actor, PROMPT.format(instruction), cfg, codec.chunk, generator)
            starts = [inits[trial % len(inits)] for trial in part]
            episodes = play(worlds, starts, most, answer, codec, part)
            for trial, e in zip(part, episodes):
                if trial < cfg.films:
                    end = "done" if e["success"] else "failed"
                    milliseconds = 50 * codec.chunk  # as fast as it happened
                    save_film(out / f"{name}-{number}-{trial}-{end}.gif", e["film"], milliseconds)
                row = dict(suite=name, task=number, trial=trial, instruction=instruction, stamp=stamp)
                row |= {key: e[key] for key in ("success", "steps", "answers", "unreadable")}
                append_jsonl(log, row)
                rows[name, number, trial] = row
        for world in worlds:
            world.close()
    text = table([rows[key] for key in wanted])
    write_atomically(out / "table.md", text)
    print(text)


PAPER = {  # table 5: Object, Spatial, Goal, Long, 90; their mean stands last
    "Qwen2.5-VL 7B": (84.0, 93.6, 80.6, 60.2, 82.3, 80.1),
    "Qwen2.5-VL-7B-Instruct": (81.6, 93.4, 84.4, 62.4, 77.3, 79.8),
    "Qwen2.5-VL 7B (SFT)": (88.0, 91.0, 84.0, 66.1, 83.3, 82.4),
    "Video-R1 (SFT)": (88.2, 91.0, 85.2, 64.0, 82.7, 82.2),
    "Video-R1": (89.2, 93.0, 89.6, 65.6, 80.1, 83.5),
    "Argos": (93.2, 91.2, 87.8, 63.8, 85.0, 84.2)}


def rate(rows):
    """Successes in percent with Wilson's 95 % interval: a bootstrap of no success at all would be sure of 0.
    """
    if not rows:
        return "-"
    test = binomtest(sum(r["success"] for r in rows), len(rows))
    low, high = test.proportion_ci(method="wilson")
    return f"{100 * test.statistic:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(rows):
    """Episodes -> Markdown: the paper's table 5 with our column of suites below it, then task by task."""
    suites = {name: [row for row in rows if row["suite"] == name] for name in SUITES}
    mean = "-"  # of all five, or not at all
    if all(suites.values()):
        means = [np.mean([row["success"] for row in suite]) for suite in suites.values()]
        mean = f"{100 * np.mean(means):.1f}"
    headings = [column for _, column, _, _ in SUITES.values()]
    lines = [line("success, %", *headings, "mean"), "|---" * 7 + "|"]
    lines += [line(f"paper: {name}", *numbers) for name, numbers in PAPER.items()]
    lines.append(line("ours", *map(rate, suites.values()), mean))
    lines += ["", line("suite", "task", "episodes", "success, %", "mean steps", "unreadable answers"),
              "|---" * 6 + "|"]
    for name, number in sorted({(row["suite"], row["task"]) for row in rows}):
        mine = [row for row in suites[name] if row["task"] == number]
        steps = sum(row["steps"] for row in mine)
        unreadable = sum(row["unreadable"] for row in mine)
        answers = sum(row["answers"] for row in mine)
        lines.append(line(name, f"{number}: {mine[0]['instruction']}", len(mine), rate(mine),
                          f"{steps / len(mine):.0f}", f"{unreadable} of {answers}"))
    return "\n".join(lines) + "\n"


def line(*cells):
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("libero", Config))
    steps = dict(record=record, rerender=record, convert=convert, tokens=tokens, openloop=openloop,
                 rollout=rollout)
    if cfg.do not in steps:
        raise BadInput(f"--do {cfg.do or '(nothing)'}: choose {', '.join(steps)}")
    for name in ("starts", "every", "side", "chunk", "envs", "limit", "batch"):
        if getattr(cfg, name) < 1:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    if not 0 < cfg.crop <= 1:
        raise BadInput(f"--crop {cfg.crop:g}: must be above 0 and at most 1")
    follow_budget(cfg, cfg.policy)
    with alone(cfg.out):
        steps[cfg.do](cfg)


def tokens(cfg):
    """A copy of the policy with the action tokens -> OUT/base."""
    dtype = "float32" if cfg.dtype == "float32" else "bfloat16"  # 4 bits cannot be written back
    policy = P.load_policy(cfg.policy, dtype=dtype)
    add_tokens(policy, cfg.seed)
    P.save_policy(policy, Path(cfg.out, "base"))
    rows = policy.core.get_input_embeddings().num_embeddings
    print(f"wrote {cfg.out}/base: {len(policy.tokenizer)} tokens, {rows} rows")


if __name__ == "__main__":
    run_main(main)
