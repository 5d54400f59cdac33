"""The memory ledger against true bytes: parameters, adapter, optimizer, cache, every tensor alive at the worst time.

No GPU is needed: a dispatch mode sees each tensor that is made on the CPU and when it goes, which is what an
allocator sees.
"""
import inspect
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig

from runs import fast, ledger
from runs.errors import BadInput
from runs.settings import QWEN_7B, parse_config, preset_arguments
import policy as P
import train_grpo
import train_sft
from tiny import models

torch.set_num_threads(1)
HIDDEN, MLP, LAYERS, RANK = 256, 1024, 4, 16


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that were made inside and are still alive: now, and at most. known: made before."""

    def __init__(self, known):
        super().__init__()
        self.now, self.peak = 0, 0
        self.seen = {t.untyped_storage()._cdata for t in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self.seen and size:
                    self.seen.add(key)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, key, size)
        return out

    def gone(self, key, size):
        self.seen.discard(key)
        self.now -= size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Wider than the tiny models, so that the parts which the ledger counts are what matters; vocabulary 8,000."""
    tokenizer = models.build_tokenizer(["How many red squares are there?"])
    config = models.build_model(tokenizer, "base").config
    wide = dict(hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=8,
                num_key_value_heads=2, vocab_size=8000, layer_types=["full_attention"] * LAYERS)
    for name, value in wide.items():
        setattr(config.text_config, name, value)
    config.text_config.rope_parameters["mrope_section"] = [4, 6, 6]
    config.vision_config.out_hidden_size = HIDDEN
    path = tmp_path_factory.mktemp("model") / "wide"
    models.save(P.AutoModelForImageTextToText.from_config(config), models.build_processor(tokenizer), path)
    return path


def nf4_here():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "nf4"])
@pytest.mark.parametrize("rank", [0, RANK])
def test_weights_adapter_and_optimizer_are_exact(folder, dtype, rank):
    if dtype == "nf4":
        nf4_here()
    policy = P.load_policy(folder, lora_rank=rank, dtype=dtype)
    true = 0
    for name, p in policy.model.named_parameters():
        if "lora_" not in name:
            true += p.nbytes
            state = getattr(p, "quant_state", None)
            if state is not None:
                scales = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
                true += sum(t.nbytes for t in scales)
    weights, trained = ledger.weight_bytes(str(folder), dtype, rank)
    assert weights == true
    if dtype == "nf4" and not rank:
        return  # nothing of it is trained (train_grpo.check refuses)
    parameters = list(P.trainable(policy).values())
    assert trained == sum(p.nbytes for p in parameters)
    optimizer = torch.optim.AdamW(parameters)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert 2 * trained == sum(t.nbytes for state in optimizer.state.values() for k, t in state.items() if k != "step")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cache_is_exact(folder, dtype):
    """A prompt once for its group, and a column for each token to come."""
    policy = P.load_policy(folder, dtype=dtype)
    prompts = encoded(policy, 3, 7)
    _, cache = P._prefill(policy, prompts)
    group, new = 4, 9
    room = fast.Room(cache, prompts, torch.arange(2).repeat_interleave(group), new, fixed=True)
    true = sum(t.nbytes for layer in room.prompts for t in layer) + sum(t.nbytes for t in room.own)
    width = 4 if dtype == "float32" else 2
    assert ledger.cache_bytes(policy.core.config.text_config, prompts.mask.numel() + 2 * group * new, width) == true


def made(policy, checkpointing, rows, prompt, new, prompts=1):
    """The ledger's {phase: bytes}, less what is loaded; with text prompts of a known length instead of pictures."""
    cfg = train_grpo.Config(policy=policy.path, dtype=str(policy.core.dtype).removeprefix("torch."), lora_rank=RANK,
                            checkpointing=checkpointing, micro_batch=rows * prompts, prompts=prompts, group_size=rows,
                            max_new_tokens=new, image_pixels=784, video_pixels=784, judge="base")
    before, ledger.TEXT_TOKENS = ledger.TEXT_TOKENS, prompt - 1
    try:
        phases = ledger.phases(cfg)
    finally:
        ledger.TEXT_TOKENS = before
    loaded = ("weights", "adapter", "optimizer", "teachers")
    return {name: sum(size for part, size in parts.items() if part not in loaded) for name, parts in phases.items()}


def live_bytes(policy):
    return LiveBytes([*policy.model.parameters(), *policy.model.buffers(), policy.ban])


def encoded(policy, *words):
    return P.encode_prompts(policy, [(None, "a " * count) for count in words])


def holds(predicted, live):
    assert .9 < predicted / live.peak < 1.1, (predicted / 1e6, live.peak / 1e6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mlp", [256, 1024])
def test_the_vision_tower_is_predicted(folder, dtype, mlp):
    """What matters most: the rotation of q and k, the MLP. The pixels are what the GPU gets from the processor."""
    config = AutoConfig.from_pretrained(folder)
    config.vision_config.intermediate_size = mlp
    model = P.AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    model.model.visual.patch_embed.proj.__class__ = P.PatchesAsRows
    pictures, side = 2, 28
    pixels = torch.randn(pictures * side * side, 3 * 2 * 14 * 14)
    grid = torch.tensor([[1, side, side]] * pictures)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live, torch.no_grad():
        model.get_image_features(pixels.clone(), grid)
    sizes = SimpleNamespace(seen=side * side // 4, prompts=pictures, vision=config.vision_config,
                            width=4 if dtype == "float32" else 2)
    holds(ledger.encode(sizes)["activations"], live)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("prompts, rows, words, new", [
    (1, 1, 200, 64), (1, 4, 250, 8), (1, 2, 60, 120), (1, 1, 20, 300), (2, 4, 30, 30)])
def test_the_update_is_predicted(folder, dtype, checkpointing, prompts, rows, words, new):
    """What matters most: layers, one long prompt of a group, both, logits; the last case has two groups."""
    policy = P.load_policy(folder, lora_rank=RANK, dtype=dtype, checkpointing=checkpointing)
    ids = torch.randint(100, 200, (prompts * rows, new))
    for p in P.trainable(policy).values():
        p.grad = torch.zeros_like(p)  # of the micro-batches before
    with live_bytes(policy) as live:
        given = encoded(policy, *[words] * prompts)
        logprobs, _ = P.token_logprobs(policy, given, rows, ids, torch.ones_like(ids))
        logprobs.sum().backward()
    predicted = made(policy, checkpointing, rows, int(given.lengths()[0]), new, prompts)
    gradients = sum(p.nbytes for p in P.trainable(policy).values())
    holds(max(predicted["loss"], predicted["backward"]) - gradients, live)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("words, new", [(400, 6), (100, 80)])
def test_the_judge_is_predicted(folder, dtype, words, new):
    """What matters most: reading, the logits of answers that fill a chunk (the worst case)."""
    policy = P.load_policy(folder, lora_rank=RANK, dtype=dtype)
    ids = torch.randint(100, 200, (8, new))
    asked_for = torch.ones_like(ids)
    asked_for[:, 0] = 0  # of the reasoning
    with live_bytes(policy) as live, torch.no_grad(), P.adapter_off(policy):
        given = encoded(policy, words)
        P.token_logprobs(policy, given, 8, ids, torch.ones_like(ids), wanted=asked_for)
    predicted = made(policy, True, 8, int(given.lengths()[0]), new)
    holds(predicted["verify"], live)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("group, words, new", [(8, 200, 8), (48, 10, 4)])
def test_sampling_is_predicted(folder, monkeypatch, dtype, group, words, new):
    """As on a GPU, with room for all tokens from the start. What matters most: prompts, logits."""
    monkeypatch.setattr(P, "has_graphs", lambda device: True)
    monkeypatch.setattr(P, "captured", lambda read, device: read)
    monkeypatch.setattr(fast, "product", lambda a, b: (a @ b).float())  # a CPU casts a and b
    policy = P.load_policy(folder, lora_rank=RANK, dtype=dtype)
    policy.ban[policy.tokenizer.eos_token_id] = -torch.inf  # rollouts of full length: the worst case
    with live_bytes(policy) as live:
        given = encoded(policy, words, words * 4 // 5)  # one is padded: a mask
        P.sample(policy, given, group, max_new_tokens=new)
    predicted = made(policy, True, group, int(given.lengths()[0]), new, prompts=2)
    holds(max(predicted["prefill"], predicted["decode"]), live)


def test_the_7b_is_the_published_one():
    """8,292,166,656 parameters on its model card, 16.58 GB in bfloat16; NF4 leaves 6.9 (embedding, head and vision
    tower stay bfloat16)."""
    weights, trained = ledger.weight_bytes(QWEN_7B, "bfloat16", 64)
    assert weights == 2 * 8_292_166_656
    sizes = [(3584, 3584), (3584, 512), (3584, 512), (3584, 3584), (3584, 18944), (3584, 18944), (18944, 3584)]
    assert trained == 4 * 28 * sum(64 * (a + b) for a, b in sizes)
    linear = 28 * sum(a * b for a, b in sizes)
    nf4, _ = ledger.weight_bytes(QWEN_7B, "nf4", 0)
    assert nf4 == pytest.approx(weights - 2 * linear + linear * (.5 + 1 / 64 + 4 / (64 * 256)), rel=1e-4)


def test_presets_fit_the_cards_they_are_for():
    for script, module in (("train_sft", train_sft), ("train_grpo", train_grpo)):
        for preset, card in (("7b", 24), ("7b-bf16", 40)):
            cfg = parse_config(module.Config, "", preset_arguments(script, module.Config, ["--preset", preset]))
            assert ledger.peak_gb(cfg) < card


def seven_b(*words):
    arguments = preset_arguments("train_grpo", train_grpo.Config, ["--preset", "7b", *words])
    return parse_config(train_grpo.Config, "", arguments)


def test_what_does_not_fit_is_refused_and_the_line_names_what_to_lower(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["train_grpo.py", "--preset", "7b", "--dry_run", *words])
        train_grpo.main()

    run("--memory_gb", "24")
    table, peak = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert peak == "peak 18.5 GB, with 1 GB for the driver; there are 24.0 GB"
    assert table.splitlines()[0].split() == ["GB", "encode", "prefill", "decode", "verify", "loss", "backward"]
    assert table.splitlines()[-1].split() == ["sum", "15.05", "16.61", "16.41", "13.79", "17.08", "17.53"]
    with pytest.raises(BadInput, match="backward is the largest phase; lower --micro_batch .now 8.") as error:
        run("--memory_gb", "18")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="decode is the largest phase; lower --sample_batch .now 56."):
        run("--memory_gb", "18", "--micro_batch", "1", "--max_new_tokens", "2048")
    assert ledger.peak_gb(seven_b("--micro_batch", "8")) > 18 > ledger.peak_gb(seven_b("--micro_batch", "4"))


@pytest.mark.parametrize("preset", ["tiny", "7b"])
@pytest.mark.parametrize("module", [train_sft, train_grpo])
def test_every_flag_that_the_cure_names_lowers_its_phase(preset, module):
    """Kills a cure that sends a person to a flag which does nothing, and one that names a flag at its least."""
    words = ["--preset", preset, "--micro_batch", "8", "--policy", QWEN_7B]
    if module is train_grpo:
        words += ["--group_size", "4", "--prompts", "8", "--sample_batch", "64"]
    cfg = parse_config(module.Config, "", preset_arguments(module.__name__, module.Config, words))
    for phase, parts in ledger.phases(cfg).items():
        flags = ledger.flags_that_lower(cfg, phase)
        assert len(flags) >= 2
        for name in flags:
            less = replace(cfg, **{name: getattr(cfg, name) // 4})
            assert sum(ledger.phases(less)[phase].values()) < sum(parts.values()), (phase, name)
    least = replace(cfg, micro_batch=1)
    assert "micro_batch" not in ledger.flags_that_lower(least, "backward")


def test_the_cure_names_four_bits_and_checkpointing_first():
    cfg = seven_b("--dtype", "bfloat16", "--checkpointing", "False")
    assert "add --dtype nf4 --checkpointing True" in ledger.cure(cfg, "backward")
    assert "add --dtype nf4, or" in ledger.cure(cfg, "decode") and "larger card" in ledger.cure(seven_b(), "decode")


def test_one_phase_by_hand():
    """The example of the head comment: decode's cache of the 7b preset."""
    prompts, prompt, rollouts, new = 7, 2048 + 256, 56, 768
    keys_and_values = 2 * 28 * 4 * 128 * 2  # layers, key-value heads, head size, bytes
    assert keys_and_values == 57344
    assert ledger.phases(seven_b())["decode"]["cache"] == (prompts * prompt + rollouts * new) * keys_and_values


def test_the_scorers_chunk_is_the_one_that_is_counted():
    assert ledger.CHUNK == P.CHUNK and f"max({ledger.CHUNK_TOKENS}, CHUNK" in inspect.getsource(P._token_scores)
