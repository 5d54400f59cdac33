"""The engines' own code against a real serve.py: reward managers, configurations, checkpoints.

Nothing of the engines stands in this repository, and none is a package that pip could bring beside ours. So these
are not among the tests that run by themselves. Name your checkouts (one will do):

    ARGOS_EASYR1=~/EasyR1 ARGOS_VERL=~/verl ARGOS_PYTHON=~/argos/.venv/bin/python \
        python -m pytest tests/checkouts.py -n 0 -s

`python` is the engine's environment (benchmarks/engines.md says what is in it), ARGOS_PYTHON this project's:
serve.py runs there. Both engines call their package "verl", so each child process below sees one of them alone,
and nothing of this project: rewards.py is loaded by its path. The overrides are those of benchmarks/engines.md,
word for word, with other paths: a flag on that page that an engine does not know fails here.

-s shows what EasyR1 would log: benchmarks/results/easyr1.txt. Their data sets: tests/checkouts_data.py.
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks/engines.md"
PYTHON = os.environ.get("ARGOS_PYTHON", sys.executable)
CHECKOUTS = {"easyr1": os.environ.get("ARGOS_EASYR1"), "verl": os.environ.get("ARGOS_VERL")}

needs_easyr1 = pytest.mark.skipif(not CHECKOUTS["easyr1"], reason="ARGOS_EASYR1 names no checkout")
needs_verl = pytest.mark.skipif(not CHECKOUTS["verl"], reason="ARGOS_VERL names no checkout")

# Two questions: A calls for points, B does not. In B's group one response points (at nothing): then all of the
# group are scored on points, but only where the verifier sees the group whole.
QUESTION = {"id": "A", "image": "red.png", "question": "How many red squares are there?", "answer": "1",
            "kind": "count"}
PLAIN = {"id": "B", "image": "red.png", "question": "What color is the square?", "answer": "red", "kind": "phrase",
         "options": ["red", "blue"], "grounding": False}
SEEN = '<think>I see <point x1="24" y1="24" alt="red square">red square</point>. That makes 1.</think>'
UNSEEN = SEEN.replace('x1="24"', 'x1="70"')
RESPONSES = {
    "A": [SEEN + "<answer>1</answer>", UNSEEN + "<answer>1</answer>", SEEN + "<answer>2</answer>",
          "no tags at all"],
    "B": ["<think>The square is red.</think><answer>red</answer>", UNSEEN + "<answer>red</answer>",
          "<think>The square is blue.</think><answer>blue</answer>",
          "<think>Red it is.</think><answer>red</answer>"],
}
ROWS = {"A": json.dumps(QUESTION), "B": json.dumps(PLAIN)}
TORN = [(name, i) for i in range(4) for name in "AB"]  # A B A B ...: as EasyR1's _balance_batch leaves them


# ---- 1. Processes ------------------------------------------------------------------------------------------
def child(engine, function, *arguments):
    """Call a function of this file in a process that sees one engine (or this project: "argos") -> its result."""
    python = PYTHON if engine == "argos" else sys.executable
    command = [python, __file__, function, json.dumps(arguments, default=str)]
    env = dict(os.environ, PYTHONPATH=str(CHECKOUTS.get(engine) or ROOT), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1",
               RAY_DISABLE_IMPORT_WARNING="1")
    where = CHECKOUTS.get(engine) or ROOT
    done = subprocess.run(command, env=env, cwd=where, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    *said, result = done.stdout.rstrip("\n").split("\n")
    print("\n".join(said))
    return json.loads(result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from PIL import Image, ImageDraw  # here: the children need neither
    folder = tmp_path_factory.mktemp("data")
    image = Image.new("RGB", (84, 84), (215, 215, 210))
    ImageDraw.Draw(image).rectangle((14, 14, 36, 36), (225, 30, 30))
    image.save(folder / "red.png")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """A real serve.py with a judge, in this project's environment -> its address."""
    command = [PYTHON, "serve.py", "--data", folder, "--judge", ROOT / "tiny/teacher", "--port", "0"]
    env = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    env.pop("PYTHONPATH", None)
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    try:
        address = None
        for line in process.stdout:
            address = re.search(r"http://\S+", line)
            if address:
                break
        assert address, "serve.py did not start"
        yield address[0]
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def expected(folder):
    """{row: [the verdict on each response]}, in one process, whole groups: what all engines must come to."""
    return child("argos", "in_process", str(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model as our scripts save it, with a pixel budget: what the engines train."""
    folder = tmp_path_factory.mktemp("sft") / "merged"
    child("argos", "save_merged", folder)
    return folder


def save_merged(folder):
    sys.path.insert(0, str(ROOT))
    import policy  # here, too
    from runs.checkpoints import budget_of
    from runs.settings import Settings
    one = policy.load_policy(ROOT / "tiny/teacher")
    one.budget = budget_of(Settings())
    policy.save_policy(one, folder, merged=True)


def in_process(folder):
    sys.path.insert(0, str(ROOT))
    import serve  # here: in this process alone
    from runs.settings import parse_config
    from verifier.samples import Sample
    cfg = parse_config(serve.Config, "", ["--data", folder, "--judge", str(ROOT / "tiny/teacher")])
    verifier = serve.build_verifier(cfg)
    found = {}
    for name, row in ROWS.items():
        sample = Sample.from_row(json.loads(row), folder, name)
        verdicts = verifier.verify_group(sample, RESPONSES[name])
        found[name] = [{term: getattr(v, term) for term in ("reward", "outcome", "grounding", "reasoning")}
                       for v in verdicts]
    return found


# ---- 2. The page's commands --------------------------------------------------------------------------------
def overrides(program):
    """What follows `-m PROGRAM` in the page's commands, as the shell would hand it over."""
    text = PAGE.read_text().replace("\\\n", " ")
    for line in text.split("\n"):
        words = shlex.split(line, comments=True) if f" -m {program} " in f"{line} " else []
        if words:
            return words[words.index(program) + 1:]
    raise AssertionError(f"{PAGE}: no command has -m {program}")


def changed(words, **values):
    """The overrides with other values. data__train_files=x stands for data.train_files=x. Each must be there."""
    words = list(words)
    for name, value in values.items():
        key = name.replace("__", ".")
        places = [i for i, word in enumerate(words) if word.lstrip("+").partition("=")[0] == key]
        assert len(places) == 1, f"{key} stands {len(places)} times in the page's command"
        plus = "+" if words[places[0]].startswith("+") else ""
        words[places[0]] = f"{plus}{key}={value}"
    return words


# ---- 3. Reward managers ------------------------------------------------------------------------------------
def easyr1_config(words):
    """EasyR1's own main(), up to where it would start its trainer -> its PPOConfig.

    vLLM is not asked for anything here, so its place is held by something that has every name.
    """
    class NoVllm:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("vllm", "msgspec"):  # msgspec comes with vLLM
                return ModuleSpec(name, self, is_package=True)

        def create_module(self, spec):
            return MagicMock(__spec__=spec, __path__=[], __name__=spec.name)

        def exec_module(self, module):
            pass

    sys.meta_path.insert(0, NoVllm())
    from verl.trainer import main
    kept = []
    runner = SimpleNamespace(run=SimpleNamespace(remote=kept.append))
    real = main.ray, main.Runner
    main.ray = SimpleNamespace(is_initialized=lambda: True, get=lambda thing: thing)
    main.Runner = SimpleNamespace(remote=lambda: runner)
    sys.argv = ["main", *words]
    main.main()
    main.ray, main.Runner = real
    return kept[0]


def batch(proto, tokenizer, order):
    """The rollouts as the trainers hold them, a DataProto: padded responses, rows beside them."""
    import numpy as np
    import torch
    texts = [RESPONSES[name][i] for name, i in order]
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    width = max(map(len, ids))
    responses = torch.full((len(ids), width), tokenizer.pad_token_id)  # (B, T)
    mask = torch.zeros_like(responses)                                 # (B, T)
    for i, own in enumerate(ids):
        responses[i, :len(own)] = torch.tensor(own)
        mask[i, :len(own)] = 1
    prompts = torch.full((len(ids), 1), tokenizer.eos_token_id)
    tensors = {"responses": responses, "response_mask": mask, "prompts": prompts,
               "attention_mask": torch.cat([torch.ones_like(prompts), mask], dim=1)}
    rows = np.array([ROWS[name] for name, _ in order], dtype=object)
    extra = {"ground_truth": rows, "data_source": np.array(["argos"] * len(rows), dtype=object),
             "reward_model": np.array([{"ground_truth": row} for row in rows], dtype=object),
             "extra_info": np.array([{} for _ in rows], dtype=object)}
    return proto.from_dict(tensors=tensors, non_tensors=extra)


def easyr1_rewards(words, order, model, as_actor):
    from transformers import AutoTokenizer
    config = easyr1_config(words)
    from verl.protocol import DataProto
    from verl.trainer.metrics import reduce_metrics
    from verl.workers.reward import AutoRewardManager
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = batch(DataProto, tokenizer, order)
    if as_actor:  # as Runner.run makes it
        import ray
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        manager = ray.remote(AutoRewardManager).options(num_cpus=config.worker.reward.num_cpus).remote(
            config.worker.reward, tokenizer)
        tensor, metrics = ray.get(manager.compute_reward.remote(data))
        ray.shutdown()
    else:
        import transformers
        print(f"transformers {transformers.__version__}; the batch: {' '.join(f'{n}{i}' for n, i in order)}")
        tensor, metrics = AutoRewardManager(config.worker.reward, tokenizer).compute_reward(data)
        print("token_level_scores.sum(-1)  ", [round(one, 4) for one in tensor.sum(-1).tolist()])
        for key, value in reduce_metrics(metrics).items():
            print(f"reward/{key:20} {value:.4f}  of {len(metrics[key])}")
    return [tensor.sum(-1).tolist(), {key: list(map(float, values)) for key, values in metrics.items()}]


def easyr1_words(folder, server, model, **more):
    return changed(overrides("verl.trainer.main"), data__train_files=folder / "rl.jsonl",
                   data__val_files=folder / "rl.jsonl", worker__actor__model__model_path=model,
                   worker__reward__reward_function=f"{ROOT}/rewards.py:easyr1",
                   worker__reward__reward_function_kwargs__url=server, **more)


@needs_easyr1
@pytest.mark.parametrize("as_actor", [False, True])
def test_easyr1s_reward_manager_gets_the_whole_reward(as_actor, folder, server, model, expected):
    """Torn groups, transformers 4, no PYTHONPATH to this project: the reward of whole groups in one process."""
    rewards, metrics = child("easyr1", "easyr1_rewards", easyr1_words(folder, server, model), TORN, model,
                             as_actor)
    verdicts = [expected[name][i] for name, i in TORN]
    assert rewards == pytest.approx([one["reward"] for one in verdicts], abs=1e-5)
    for term in ("outcome", "grounding", "reasoning"):
        assert metrics[term] == pytest.approx([one[term] for one in verdicts if one[term] is not None], abs=1e-5)
    assert metrics["not_scored"] == [0.0] * len(TORN)
    # R_rq is in; and B's group was whole: its first response does not point, and is scored on points all the same.
    assert max(metrics["reasoning"]) > .1 and expected["A"][0]["reward"] > .8
    assert expected["B"][0]["grounding"] == 0


@needs_easyr1
def test_easyr1_waits_for_a_server_and_then_names_it(folder, model):
    """Not a silent 0."""
    words = easyr1_words(folder, "http://127.0.0.1:9", model, worker__reward__reward_function_kwargs__deadline=1)
    with pytest.raises(AssertionError, match="127.0.0.1:9 does not answer"):
        child("easyr1", "easyr1_rewards", words, TORN, model, False)


def easyr1_checks(words):
    config = easyr1_config(words)
    from verl.trainer.ray_trainer import RayPPOTrainer
    RayPPOTrainer(config, None, None, range(80), range(1), {}, None, reward_fn=None)  # its checks of batch sizes
    world, actor = config.trainer.n_gpus_per_node * config.trainer.nnodes, config.worker.actor
    # As FSDPWorker._init_dist_mesh computes it, which needs GPUs.
    own = actor.global_batch_size * config.worker.rollout.n // world
    even = actor.global_batch_size * config.worker.rollout.n % world == 0
    fits = own % actor.micro_batch_size_per_device_for_update == 0
    return [even and fits and world % config.worker.rollout.tensor_parallel_size == 0, config.to_dict()]


@needs_easyr1
def test_easyr1_knows_every_flag_of_the_page(folder, server, model):
    """A flag that it does not know ends its main(). A file that is not there becomes None, and is found here."""
    fits, config = child("easyr1", "easyr1_checks", easyr1_words(folder, server, model))
    assert fits
    assert config["data"]["format_prompt"] is None  # else its own template stands around our prompt
    reward = config["worker"]["reward"]
    assert (reward["reward_function"], reward["reward_function_name"]) == (str(ROOT / "rewards.py"), "easyr1")
    assert reward["reward_function_kwargs"]["url"] == server
    _, untouched = child("easyr1", "easyr1_checks", overrides("verl.trainer.main"))
    assert untouched["worker"]["reward"]["reward_function_kwargs"]["url"].count("http://") == 2
    with pytest.raises(AssertionError, match="format_promt"):
        child("easyr1", "easyr1_checks", [*easyr1_words(folder, server, model), "data.format_promt=null"])


def verl_config(words):
    from hydra import compose, initialize_config_dir
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    with initialize_config_dir(os.path.abspath("verl/trainer/config"), version_base=None):
        config = compose("ppo_trainer", overrides=words)
    validate_config(config, need_reference_policy(config), need_critic(config))
    return config


def verl_rewards(words, order, model, older):
    """All rollouts at once through the reward loop's manager, or in order through the older one."""
    import asyncio
    from transformers import AutoTokenizer
    from verl import DataProto
    from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
    config = verl_config(words)
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = batch(DataProto, tokenizer, [tuple(one) for one in order])
    if older:
        from verl.workers.reward_manager.naive import NaiveRewardManager
        manager = NaiveRewardManager(tokenizer, 0, get_custom_reward_fn(config))
        result = manager(data, return_dict=True)
        scores = result["reward_tensor"].sum(-1).tolist()
        return [scores, {key: list(map(float, values)) for key, values in result["reward_extra_info"].items()}]

    async def all_at_once():  # as RewardLoopWorker.compute_score_batch
        manager = load_reward_manager(config, tokenizer)
        return await asyncio.gather(*[manager.run_single(data[i:i + 1]) for i in range(len(data))])
    results = asyncio.run(all_at_once())
    keys = results[0]["reward_extra_info"]
    return [[one["reward_score"] for one in results],
            {key: [float(one["reward_extra_info"][key]) for one in results] for key in keys}]


def verl_words(folder, server, model):
    return changed(overrides("verl.trainer.main_ppo"), data__train_files=folder / "rl.parquet",
                   data__val_files=folder / "rl.parquet", actor_rollout_ref__model__path=model,
                   reward__custom_reward_function__path=ROOT / "rewards.py",
                   reward__custom_reward_function__reward_kwargs__url=server)


@needs_verl
@pytest.mark.parametrize("older", [False, True])
def test_verls_reward_managers_get_the_reward(older, folder, server, model, expected):
    """One rollout at a time, so every question is scored on points (rewards.alone). A's rewards are the whole
    ones; so are B's here, as one of its group points."""
    scores, info = child("verl", "verl_rewards", verl_words(folder, server, model), TORN * 8, model, older)
    verdicts = [expected[name][i] for name, i in TORN * 8]
    assert scores == pytest.approx([one["reward"] for one in verdicts], abs=1e-5)
    assert info["score"] == pytest.approx(scores) and max(info["reasoning"]) > .1
    assert info["not_scored"] == [0.0] * len(scores)


@needs_verl
def test_verl_knows_every_flag_of_the_page(folder, server, model):
    reward = child("verl", "verl_reward_config", verl_words(folder, server, model))
    assert reward["name"] == "verl" and reward["reward_kwargs"] == {"url": server}
    untouched = child("verl", "verl_reward_config", overrides("verl.trainer.main_ppo"))
    assert untouched["reward_kwargs"]["url"].count("http://") == 2
    with pytest.raises(AssertionError, match="train_fils"):
        child("verl", "verl_reward_config", [*verl_words(folder, server, model), "data.train_fils=x"])


def verl_reward_config(words):
    from omegaconf import OmegaConf
    return OmegaConf.to_container(verl_config(words).reward.custom_reward_function)


# ---- 4. Back home ------------------------------------------------------------------------------------------
def save_shard(model, folder):
    """What EasyR1's FSDPCheckpointManager leaves of a run on one GPU."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    trained = AutoModelForImageTextToText.from_pretrained(model)
    torch.save(trained.state_dict(), Path(folder, "model_world_size_1_rank_0.pt"))
    for part in (trained.config, trained.generation_config, AutoProcessor.from_pretrained(model, use_fast=True)):
        part.save_pretrained(Path(folder, "huggingface"))


def compare(model, back):
    """-> whether the weights are the same in bfloat16, the tokens of a text, and the budgets."""
    sys.path.insert(0, str(ROOT))
    import policy
    import torch
    both = [policy.load_policy(folder) for folder in (model, back)]  # raises where a weight is missing or unknown
    first, second = [one.model.state_dict() for one in both]
    same = all(torch.equal(first[name].bfloat16(), second[name].bfloat16()) for name in first)
    return [same and first.keys() == second.keys(), [one.tokenizer(SEEN)["input_ids"] for one in both],
            [one.budget for one in both]]


@needs_easyr1
def test_a_checkpoint_of_easyr1_comes_home(model, tmp_path):
    """By EasyR1's own model_merger.py, then the page's commands: the weights alone are taken over. The tokenizer
    that transformers 4 has saved is another one to transformers 5: our tiny models' texts become other tokens."""
    shutil.copytree(model, tmp_path / "out/sft/merged")
    actor = tmp_path / "checkpoints/argos/easyr1/global_step_80/actor"
    actor.mkdir(parents=True)
    child("easyr1", "save_shard", model, actor)
    merger = Path(CHECKOUTS["easyr1"], "scripts/model_merger.py")
    subprocess.run([sys.executable, merger, "--local_dir", actor], check=True, capture_output=True)
    commands = re.search(r"(cp -r out/sft/merged out/easyr1\n.*?)\n\n", PAGE.read_text(), re.S)[1]
    env = dict(os.environ, EASYR1=str(tmp_path))
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, env=env, check=True)
    same, tokens, budgets = child("argos", "compare", model, tmp_path / "out/easyr1")
    assert same and tokens[0] == tokens[1] and budgets[0] == budgets[1] != None  # noqa: E711


if __name__ == "__main__":  # a child: see there
    name, given = sys.argv[1:]
    print("\n" + json.dumps(globals()[name](*json.loads(given))))
