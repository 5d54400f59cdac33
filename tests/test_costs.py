"""The cost model against a count of real calls, and by hand.

The oracle is PyTorch's FlopCounterMode: it counts the matrix products that policy.sample and policy.token_logprobs
really make. It does not know the CPU's attention kernel, so here attention is made of matrix products, too.
"""
import json
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from runs import costs
from runs.costs import Config, Cost, Machine, Model
from runs.errors import BadInput
from runs.ledger import model_config
from runs.settings import QWEN_7B, parse_config, preset_arguments
import policy as P
import train_grpo
from test_policy import ITEMS

torch.set_num_threads(1)
TINY = str(costs.TINY / "base")
PROMPTS, GROUP, NEW = 3, 4, 9


# ---- 1. Against a count ------------------------------------------------------------------------------------
def counted(act):
    """FLOP of a call, and what it returns."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = act()
    return counter.get_total_flops(), result


def near(flop):
    return pytest.approx(flop, rel=.02)


class Case:
    def __init__(self, fast, rank, checkpointing=False):
        self.fast = fast
        self.policy = P.load_policy(TINY, lora_rank=rank, fast=fast, checkpointing=checkpointing)
        self.policy.ban[self.policy.tokenizer.eos_token_id] = -torch.inf
        items = [ITEMS["picture"]] * PROMPTS  # equal ones: nothing is padded
        self.encoded, self.prompts = counted(lambda: P.encode_prompts(self.policy, items))
        ids = self.prompts.input_ids
        seen = int((ids[0] == self.policy.core.config.image_token_id).sum())
        self.cfg = Config(policy=TINY, prompts=PROMPTS, group_size=GROUP, lora_rank=rank, reward="outcome",
                          prompt_tokens=ids.shape[1], seen_tokens=seen, checkpointing=checkpointing)

    def sample(self, tokens):
        return counted(lambda: P.sample(self.policy, self.prompts, GROUP, max_new_tokens=tokens))[0]

    def predicted(self, phase, tokens):
        return costs.phases(replace(self.cfg, max_new_tokens=tokens), self.fast)[phase].flop


@pytest.mark.parametrize("fast, rank", [(False, 64), (True, 64), (True, 0)])
def test_sampling_is_counted_right(fast, rank):
    """The vision tower, the prefill, one step of decoding, and all steps."""
    case = Case(fast, rank)
    assert case.predicted("encode", 1) == near(case.encoded)
    prefill = case.sample(1)
    assert case.predicted("prefill", 1) == near(prefill)
    assert case.predicted("decode", 2) == near(case.sample(2) - prefill)
    assert case.predicted("decode", NEW) == near(case.sample(NEW) - prefill)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fast, rank", [(False, 64), (True, 64), (True, 0)])
def test_the_update_is_counted_right(fast, rank, checkpointing):
    """Scoring, and its backward pass. Kills a gradient that is forgotten or counted twice."""
    case = Case(fast, rank, checkpointing)
    ids = torch.randint(60, 300, (PROMPTS * GROUP, NEW), generator=torch.Generator().manual_seed(0))
    loss, (logprobs, _) = counted(
        lambda: P.token_logprobs(case.policy, case.prompts, GROUP, ids, torch.ones_like(ids)))
    backward, _ = counted(logprobs.sum().backward)
    assert case.predicted("loss", NEW) == near(loss)
    assert case.predicted("backward", NEW) == near(backward)


# ---- 2. By hand --------------------------------------------------------------------------------------------
def seven_b(*flags):
    words = ["--preset", "7b-bf16", "--max_new_tokens", "256", "--sample_batch", "56", "--micro_batch", "8",
             "--beta", "0", *flags]
    return parse_config(Config, "", preset_arguments("train_grpo", Config, words))


def test_the_7b_by_hand():
    """The numbers of runs/README.md, each from the model's published sizes."""
    model = Model(QWEN_7B, "bfloat16", 64, fast=True)
    layer = 2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944  # q and o; k and v; gate, up and down
    assert model.matrices == 28 * layer == 6_525_288_448
    assert model.head == 3584 * 152_064 == 544_997_376
    ends = 4 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18944)  # in and out of the seven
    assert model.thin == 28 * 64 * ends == 161_480_704

    found = costs.phases(seven_b("--reward", "no-rq"), fast=True)
    prompt = 512 + 160
    tokens = 7 * prompt
    pairs = tokens * prompt
    layers = 2 * (model.matrices + model.thin) * tokens
    assert found["prefill"].flop == layers + 4 * 28 * 3584 * pairs + 2 * 7 * model.head
    # Decoding: 255 times the weights, A and B, the head; 57,344 bytes for each key and value; what tokens carry.
    cached = 7 * prompt * 255 + 56 * 255 * 128
    carried = 56 * 255 * 28 * ends * 2
    assert found["decode"].bytes == 255 * 2 * (model.matrices + model.thin + model.head) + 57_344 * cached + carried
    assert found["judge"] == Cost()


def test_what_the_fast_paths_take_away():
    """A group of 8 with 672 and 256 tokens: plainly 8 x 927 are read, packed 672 + 8 x 255."""
    cfg = replace(seven_b(), seen_tokens=512, prompt_tokens=672, new_tokens=256)
    assert costs.rows(cfg, False, 1) == (8 * 927, 8 * 927 ** 2, 1)
    assert costs.rows(cfg, True, 1) == (672 + 8 * 255, 672 ** 2 + 8 * 255 * 927, 1)
    # A prompt's cache: read once for 8, not copied at every token (read, written, read), nor for 7 heads each.
    model = Model(QWEN_7B, "bfloat16", 0, fast=True)
    moved = {}
    for fast in (False, True):
        _, decode = costs.sampling(replace(cfg, lora_rank=0), model, fast)
        moved[fast] = decode.bytes
    own = 56 * 255 * 128
    assert moved[False] - moved[True] == 57_344 * (17 * (56 * 255 * 672 + own) - (7 * 255 * 672 + own))


def test_four_bits_move_more_and_a_slow_machine_waits_for_the_slower():
    four, sixteen = [Model(QWEN_7B, dtype, 0, fast=True).weights for dtype in ("nf4", "bfloat16")]
    assert four / sixteen == pytest.approx(4.52 / 2)
    machine = Machine(flop=100, bytes=10)
    assert machine.seconds(Cost(flop=500, bytes=20)) == 5 and machine.seconds(Cost(flop=500, bytes=80)) == 8


def test_skipped_groups_and_the_reference():
    cfg = seven_b()
    whole, skipped, with_kl = [costs.phases(each, fast=True) for each in
                               (cfg, replace(cfg, skipped=3.5), replace(cfg, beta=.01))]
    assert skipped["loss"].flop == pytest.approx(whole["loss"].flop / 2)
    assert skipped["judge"] == whole["judge"] and whole["judge"].flop > 0
    assert 1.9 < with_kl["loss"].flop / whole["loss"].flop < 2  # without the adapter
    assert with_kl["backward"] == whole["backward"]


# ---- 3. The command ----------------------------------------------------------------------------------------
def test_its_flags_are_those_of_training():
    for name, field in Config.__dataclass_fields__.items():
        if name not in ("policy", "prompt_tokens", "new_tokens", "skipped", "seen_tokens", "tflops", "gb_per_second"):
            assert field.default == getattr(train_grpo.Config, name), name
    assert model_config(train_grpo.TINY_TEACHER).text_config.num_hidden_layers == 8


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["costs.py", *words])
    costs.main()


def test_a_run_is_read(tmp_path, monkeypatch, capsys):
    """Its settings, its lengths, its seconds. Each step of these took 2, 3 and 4 times what is predicted."""
    cfg = replace(Config(), prompt_tokens=50, new_tokens=30, skipped=4)
    machine = Machine(1e9, 1e9)
    predicted = costs.phases(cfg, fast=True)
    seconds = {}
    for times, (name, parts) in enumerate(costs.TIMED_AS.items(), 2):
        seconds[name] = times * sum(machine.seconds(predicted[part]) for part in parts)
    settings = vars(train_grpo.Config()) | dict(kind="config", num_processes=2, prompts=32, policy=cfg.policy)
    step = dict(kind="train", length=30, skipped=8, prompt_length=50, seconds=seconds)
    log = tmp_path / "metrics.jsonl"
    log.write_text("\n".join(json.dumps(row) for row in (settings, dict(kind="eval"), step, step)))
    machine_flags = ("--tflops", ".001", "--gb_per_second", "1")
    run(monkeypatch, str(tmp_path), *machine_flags)
    said = capsys.readouterr().out
    assert "2 steps by the fast path" in said
    for name, value in seconds.items():
        line = next(line for line in said.splitlines() if line.startswith(f"| {name} "))
        assert f"| {value:.3f} |" in line
        ratio = value / float(line.split("|")[2])
        assert ratio == pytest.approx(2 + list(seconds).index(name), rel=.01)
    with pytest.raises(BadInput, match="is not there; name the --out"):
        run(monkeypatch, str(tmp_path / "nowhere"))
    log.write_text(json.dumps(settings))
    with pytest.raises(BadInput, match="no step of train_grpo.py yet"):
        run(monkeypatch, str(tmp_path))


def test_this_machine_is_measured(monkeypatch, capsys):
    times = iter([.5, .25])
    monkeypatch.setattr(costs, "fastest", lambda *args, **options: next(times))
    run(monkeypatch)
    assert f"{2 * 512 ** 3 / .5 / 1e12:.3g} TFLOP/s, 2 GB/s" in capsys.readouterr().out
