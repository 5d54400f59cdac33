"""The fast paths of runs/fast.py against the plain ones, in float32 on a CPU: log-probabilities and gradients to 1e-5.

The plain path itself is held to the library's forward in test_policy.py. Each docstring names the bugs that its test
kills; every one was planted once and seen to fail here.
"""
import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from peft import PeftModel

import policy as P
from runs import fast
from runs.fast import Packed
from tiny import models
from test_policy import ITEMS, plain_logits, seed

torch.set_num_threads(1)
EVERYTHING = list(ITEMS.values())


# ---- 1. Policies, fast and plain ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A random model in which 2 query heads share a key head, as 7 do in the 7B."""
    torch.manual_seed(0)
    tokenizer = models.build_tokenizer(["How many red squares are there? When does it leave? Think and point."])
    config = models.build_model(tokenizer, "base").config
    config.text_config.num_key_value_heads = 2
    model = P.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():  # large weights: a mistake must matter
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(3)
    path = tmp_path_factory.mktemp("grouped") / "model"
    models.save(model, models.build_processor(tokenizer), path)
    return path


def load(path, lora_rank, **settings):
    """The same weights every time, and an adapter that does something."""
    policy = P.load_policy(path, lora_rank=lora_rank, **settings)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=.1)
    return policy


def both(path, lora_rank, **settings):
    return load(path, lora_rank, fast=True, **settings), load(path, lora_rank, fast=False, **settings)


def score(policy, items, group, ids, mask, temperature=1.):
    """-> log p, entropy, {name: gradient} of a loss in which each row has another weight."""
    policy.model.zero_grad()
    prompts = P.encode_prompts(policy, items)
    logprobs, entropy = P.token_logprobs(policy, prompts, group, ids, mask, temperature)
    weights = torch.linspace(-1, 1.5, logprobs.numel()).view_as(logprobs)
    (logprobs * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    return logprobs.detach(), entropy, gradients


def ragged(rows, longest, n=0):
    """Random completions of 1 to `longest` tokens; the first has one token, the last is the longest."""
    generator = seed(n)
    ids = torch.randint(60, 300, (rows, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator)
    lengths[0] = 1
    lengths[-1] = longest
    return ids, (torch.arange(longest) < lengths[:, None]).long()


def assert_same(one, other):
    logprobs, entropy, gradients = one
    plain_logprobs, plain_entropy, plain_gradients = other
    torch.testing.assert_close(logprobs, plain_logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, plain_entropy, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        assert (gradient - plain_gradients[name]).norm() <= 1e-5 * plain_gradients[name].norm(), name


# ---- 2. Scoring --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("items, group, longest", [
    (EVERYTHING, 3, 9),                      # pictures, clips, text, several of them: ragged, padded on the left
    ([ITEMS["picture"]], 4, 7),              # one group
    ([ITEMS["clip"], ITEMS["text"]], 1, 6),  # groups of one
    ([ITEMS["picture"], ITEMS["text"]], 2, 1)], ids=["all", "one group", "groups of one", "one token"])
def test_packed_rows_score_like_plain_ones(grouped, lora_rank, checkpointing, items, group, longest):
    """Kills a completion that sees its neighbour or too little of its prompt, positions that are off by one, rows put
    back in the wrong place, a detached prompt, a layer that is computed otherwise when it is computed again."""
    policy, plain = both(grouped, lora_rank, checkpointing=checkpointing)
    ids, mask = ragged(len(items) * group, longest)
    assert_same(score(policy, items, group, ids, mask, .7), score(plain, items, group, ids, mask, .7))


def test_the_plain_rows_are_the_librarys(grouped):
    """Both ends of the chain: fast = plain (above), plain = each prompt alone through the library (here)."""
    _, plain = both(grouped, 4)
    ids, mask = ragged(len(EVERYTHING), 8)
    logprobs, _, _ = score(plain, EVERYTHING, 1, ids, mask)
    for b, item in enumerate(EVERYTHING):
        row = ids[b][mask[b] == 1]
        logits = plain_logits(plain, item, row.tolist())
        expected = torch.log_softmax(logits + plain.ban, -1).gather(1, row[:, None])[:, 0]
        torch.testing.assert_close(logprobs[b, :len(row)], expected, atol=1e-5, rtol=1e-5)


def test_the_frozen_base_is_scored_with_the_adapter_off(grouped):
    """The reference of the KL and the judge. Kills a prompt that is read with the adapter on, or an adapter that was
    folded and stays."""
    policy, plain = both(grouped, 4)
    ids, mask = ragged(2 * len(EVERYTHING), 6)
    found = []
    for one in (policy, plain):
        prompts = P.encode_prompts(one, EVERYTHING)
        with torch.no_grad(), P.adapter_off(one):
            found.append(P.token_logprobs(one, prompts, 2, ids, mask)[0])
            drawn = P.sample(one, prompts, 2, max_new_tokens=6, greedy=True)
        with torch.no_grad():
            on = P.token_logprobs(one, prompts, 2, ids, mask)[0]
        assert (on - found[-1]).abs().max() > .01
        with torch.no_grad(), P.adapter_off(one):
            again = P.token_logprobs(one, prompts, 2, drawn.ids, drawn.mask)[0]
        torch.testing.assert_close(again, drawn.logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_only_what_is_wanted_is_scored(grouped):
    policy = load(grouped, 4)
    prompts = P.encode_prompts(policy, EVERYTHING)
    ids, mask = ragged(len(EVERYTHING), 8)
    wanted = mask * (torch.arange(8) >= 2)
    with torch.no_grad():
        whole, entropy = P.token_logprobs(policy, prompts, 1, ids, mask)
        part, part_entropy = P.token_logprobs(policy, prompts, 1, ids, mask, wanted=wanted)
    torch.testing.assert_close(part, whole * wanted)
    torch.testing.assert_close(part_entropy, entropy * wanted)


@pytest.mark.parametrize("is_fast", [True, False])
def test_rows_without_tokens_have_nothing(grouped, is_fast):
    policy = load(grouped, 4, fast=is_fast)
    prompts = P.encode_prompts(policy, EVERYTHING[:2])
    ids, mask = ragged(4, 6)
    alone, _ = P.token_logprobs(policy, prompts, 2, ids, mask)
    mask[1:3] = 0
    wide = torch.nn.functional.pad(ids, (0, 9))  # wider than any row
    some, _ = P.token_logprobs(policy, prompts, 2, wide, torch.nn.functional.pad(mask, (0, 9)))
    torch.testing.assert_close(some[:, :6], alone * mask, atol=1e-5, rtol=1e-5)
    assert some[:, 6:].abs().sum() == 0
    nothing, entropy = P.token_logprobs(policy, prompts, 2, ids, mask * 0)
    nothing.sum().backward()
    assert nothing.abs().sum() == 0 and entropy.abs().sum() == 0
    logp, counts = P.answer_logprobs(policy, prompts, [""] * 4, ["so"] * 4)
    assert (logp == -torch.inf).all() and not counts.any()


def test_what_is_added_to_scores_starts_where_a_gpu_reads_fast(grouped):
    """Rows that start at other than multiples of 8 are copied for each layer, all heads apart: .5 GB in the 7B."""
    policy = load(grouped, 0)
    ids, mask = ragged(2 * 2, 7)
    packed = Packed(P.encode_prompts(policy, EVERYTHING[:2]), 2, mask.bool())
    bias = packed._bias(torch.bfloat16, 3)
    assert bias.shape[2:] == (3 * packed.sees.shape[2], packed.sees.shape[3])
    assert all(stride % 8 == 0 for stride in bias.stride()[:-1]) and bias.stride(-1) == 1
    assert torch.equal(bias == 0, packed.sees.repeat(1, 1, 3, 1)) and torch.equal(bias == -torch.inf, bias != 0)


def test_a_gradient_is_the_same_bit_for_bit_on_several_threads(grouped):
    """A resumed run is the run that was not stopped. Kills sums that several threads add to in any order."""
    policy = load(grouped, 4)
    ids, mask = ragged(2 * 100, 4)  # 100 completions lean on the last token of each prompt
    torch.set_num_threads(2)
    try:
        gradients = [score(policy, [ITEMS["text"]] * 2, 100, ids, mask)[2] for _ in range(3)]
    finally:
        torch.set_num_threads(1)
    for name, gradient in gradients[0].items():
        assert all(torch.equal(gradient, other[name]) for other in gradients[1:]), name


class LogitsSeen(TorchDispatchMode):
    """The most tokens whose logits are in one tensor that is made inside: its last dimension is the vocabulary."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary = vocabulary
        self.tokens = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (self.vocabulary,):
                self.tokens = max(self.tokens, tensor.numel() // self.vocabulary)
        return out


@pytest.mark.parametrize("is_fast", [True, False])
def test_no_tensor_holds_all_logits(grouped, monkeypatch, is_fast):
    """Rows x tokens x vocabulary is 28 GB for the 7B. Chunks give the same, with gradient."""
    ids, mask = ragged(4, 300)
    mask[:] = 1
    items = [ITEMS["picture"]]
    policy = load(grouped, 4, fast=is_fast)
    whole = score(policy, items, 4, ids, mask)
    monkeypatch.setattr(P, "CHUNK", 0)  # the smallest chunk
    with LogitsSeen(len(policy.ban)) as seen:
        chunks = score(policy, items, 4, ids, mask)
    assert_same(chunks, whole)
    assert seen.tokens == 256 < mask.sum()


def test_places_by_hand(grouped):
    """Two prompts of 2 and 3 tokens, two completions each: where all stand, whom they see, who predicts them."""
    prompts = P.Prompts(torch.zeros(2, 3, 4), torch.arange(3).expand(3, 2, 3).clone(), torch.tensor([[0, 1, 1], [1, 1, 1]]),
                        torch.zeros(2, 3))
    prompts.position_ids[:, 0] = torch.tensor([0, 0, 1])
    packed = Packed(prompts, 2, torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool())
    assert packed.prompts.places.tolist() == [0, 1, 3, 4, 5]      # of [[0, 1, -], [2, 3, 4]]
    assert packed.completions.places.tolist() == [0, 1, 4, 6, 7]  # of [[5, 6], [-, -], [7, -], [8, 9]]
    assert packed.positions[0].tolist() == [0, 1, 0, 1, 2, 2, 3, 3, 3, 4]
    assert packed.predicting.tolist() == [[1, 5, 6], [1, 0, 0], [4, 7, 0], [4, 8, 9]]
    assert packed.sees[0, 0].int().tolist() == [[1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    assert packed.sees[3, 0].int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


# ---- 3. Sampling -------------------------------------------------------------------------------------------
class Tape(TorchDispatchMode):
    """A CUDA graph on a CPU: what was run once is run again on the same memory, with the same numbers of Python."""

    def __init__(self, read):
        super().__init__()
        self.calls = []
        with self:
            self.out = read()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, out))
        return out

    def replay(self):
        for function, args, kwargs, out in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again)):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self.out


@pytest.fixture
def graphs(monkeypatch):
    """As on a GPU: graphs, ends looked for every 16 tokens, all columns shown. -> the captured ones."""
    made = []

    def captured(read, device):
        for _ in range(2):  # a graph is warmed up
            read()
        made.append(Tape(read))
        return made[-1].replay

    monkeypatch.setattr(P, "has_graphs", lambda device: True)
    monkeypatch.setattr(P, "captured", captured)
    return made


@contextmanager
def eager_to_end(policy, by=4.):
    """The end token is likely: rows end at different times."""
    end = policy.tokenizer.eos_token_id
    policy.ban[end] = by
    try:
        yield
    finally:
        policy.ban[end] = 0


def assert_scorer_agrees(policy, prompts, group, rollouts, temperature=1.):
    with torch.no_grad():
        logprobs, _ = P.token_logprobs(policy, prompts, group, rollouts.ids, rollouts.mask, temperature)
    torch.testing.assert_close(rollouts.logprobs, logprobs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("way", ["columns", "graph", "plain"])
def test_the_sampler_agrees_with_the_scorer(grouped, request, lora_rank, way):
    """Rows that leave, prompts that leave with their last row, room that grows. Kills a stale graph (rows left, or a
    number of Python's was frozen), seats that are mixed up, a mask that is not moved on, a neighbour's tokens."""
    made = request.getfixturevalue("graphs") if way == "graph" else []
    policy = load(grouped, lora_rank, fast=way != "plain")
    prompts = P.encode_prompts(policy, EVERYTHING)
    with eager_to_end(policy, 2.5):
        rollouts = P.sample(policy, prompts, 4, .8, max_new_tokens=90, generator=seed(0))
        lengths = rollouts.mask.sum(1)
        assert lengths.min() < 8 and lengths.max() > 40 and len(lengths.unique()) > 10
        assert_scorer_agrees(policy, prompts, 4, rollouts, .8)
    assert (rollouts.ids[rollouts.mask == 0] == policy.tokenizer.pad_token_id).all()
    if way == "graph":
        assert len(made) > 4  # three batches of like length, and some were captured anew


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_greedy_is_the_same_by_every_way(grouped, request, lora_rank):
    policy, plain = both(grouped, lora_rank)
    prompts = P.encode_prompts(plain, EVERYTHING)
    expected = P.sample(plain, prompts, 2, max_new_tokens=40, greedy=True)
    columns = P.sample(policy, prompts, 2, max_new_tokens=40, greedy=True)
    made = request.getfixturevalue("graphs")
    graph = P.sample(policy, prompts, 2, max_new_tokens=40, greedy=True)
    assert made and torch.equal(columns.ids, expected.ids) and torch.equal(graph.ids, expected.ids)
    torch.testing.assert_close(columns.logprobs, expected.logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(graph.logprobs, expected.logprobs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", ["columns", "graph"])
def test_a_step_of_training_is_seen_by_the_sampler(grouped, request, way):
    """Kills a folded adapter, or a graph, of the weights before."""
    if way == "graph":
        request.getfixturevalue("graphs")
    policy = load(grouped, 4)
    prompts = P.encode_prompts(policy, EVERYTHING[:3])
    before = P.sample(policy, prompts, 2, max_new_tokens=8, greedy=True)
    with torch.no_grad():
        for p in P.trainable(policy).values():
            p.mul_(1.5)
    after = P.sample(policy, prompts, 2, max_new_tokens=8, greedy=True)
    assert not torch.equal(before.logprobs, after.logprobs)
    assert_scorer_agrees(policy, prompts, 2, after)


class FakeGPU:
    """What `captured` calls of torch.cuda. said: what the capture fails with, at its end, as a GPU's does."""

    def __init__(self, monkeypatch, said):
        self.said = said
        self.current = ["default"]
        self.captures = []
        monkeypatch.setattr(fast, "broken", [])
        for name in ("device", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
        fast.capture_stream.cache_clear()

    def wait_stream(self, other):
        pass

    @contextmanager
    def device(self, device):
        yield

    @contextmanager
    def stream(self, aside):
        self.current.append("aside")
        try:
            yield
        finally:
            self.current.pop()

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        self.captures.append(graph)
        yield
        raise self.said


def test_what_cannot_be_captured_is_read_all_the_same(monkeypatch, capsys):
    """A library that waits for the GPU inside a graph: one line, and sampling goes on without, on the old stream."""
    gpu = FakeGPU(monkeypatch, RuntimeError("operation not permitted when stream is capturing"))
    device = torch.device("cuda:0")
    counted = []
    read = fast.captured(lambda: counted.append(1) or torch.zeros(1), device)
    assert read() == 0 and len(counted) == 4 and gpu.current == ["default"]
    assert capsys.readouterr().err.count("no CUDA graph") == 1
    fast.captured(read, device)
    assert len(gpu.captures) == 1 and not capsys.readouterr().err  # PyTorch does not get over it: not tried again
    fast.capture_stream.cache_clear()


def test_a_full_gpu_is_not_taken_for_a_kernel_without_graph(monkeypatch):
    FakeGPU(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        fast.captured(lambda: torch.zeros(1), torch.device("cuda:0"))
    fast.capture_stream.cache_clear()


@pytest.mark.parametrize("way", ["columns", "graph", "plain"])
def test_logits_that_are_no_numbers_are_not_sampled_from(grouped, request, way):
    """A token of a broken model would look like any other."""
    if way == "graph":
        request.getfixturevalue("graphs")
    policy = load(grouped, 4, fast=way != "plain")
    prompts = P.encode_prompts(policy, EVERYTHING[:2])
    with torch.no_grad():
        policy.core.model.language_model.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        P.sample(policy, prompts, 2, max_new_tokens=4, generator=seed(0))
    assert not any(getattr(layer, "folded", None) is not None for layer in fast.adapted_layers(policy.model))


LONG = (None, "Think. " * 30)


@pytest.mark.parametrize("items, group, ends, settings", [
    (EVERYTHING, 3, 3, dict(max_new_tokens=1)),
    ([ITEMS["picture"]], 1, 0, dict(max_new_tokens=40)),                           # one row; its room grows
    ([ITEMS["picture"], ITEMS["clip"]], 2, 0, dict(max_new_tokens=70, top_p=.8)),  # 32 -> 64 -> 128 columns
    (EVERYTHING, 1, 3, dict(max_new_tokens=9, batch_size=2)),
    ([ITEMS["text"], LONG, ITEMS["picture"]], 2, 3, dict(max_new_tokens=9, temperature=1e-4)),
    ([ITEMS["text"], LONG, ITEMS["picture"]], 2, 3, dict(max_new_tokens=9, temperature=1e4)),
    (EVERYTHING[:2], 2, 50, dict(max_new_tokens=9))],
    ids=["one token", "one row", "top_p", "batches", "cold", "hot", "all end at once"])
def test_the_same_seed_draws_what_the_plain_way_draws(grouped, monkeypatch, items, group, ends, settings):
    """Rows leave at the same time in both. Kills a seat, a column or a position that is right only in large batches."""
    monkeypatch.setattr(P, "_batches_of_like_length", lambda lengths, size: [
        list(range(first, min(first + size, len(lengths)))) for first in range(0, len(lengths), size)])
    drawn = []
    for policy in both(grouped, 4):
        prompts = P.encode_prompts(policy, items)
        with eager_to_end(policy, ends):
            drawn.append(P.sample(policy, prompts, group, generator=seed(0), **settings))
    ours, plain = drawn
    assert torch.equal(ours.ids, plain.ids) and torch.equal(ours.mask, plain.mask)
    assert torch.equal(ours.finished, plain.finished)
    close = dict(atol=1e-5, rtol=1e-5) if settings.get("temperature") != 1e-4 else dict(atol=1e-1, rtol=0)
    torch.testing.assert_close(ours.logprobs, plain.logprobs, **close)


def test_drawn_tokens_have_their_probability():
    """20,000 draws against p; what has probability 0 is never drawn, not even at the end of the table."""
    logp = torch.tensor([.5, .3, .15, .05, 0., 0.]).log()
    drawn = P._draw(logp.repeat(20_000, 1), 1., seed(0))
    share = torch.bincount(drawn, minlength=6) / 20_000
    assert (share[:4] - logp.exp()[:4]).abs().max() < .012 and share[4:].sum() == 0
    last = torch.tensor([0., 0., 1.]).log().repeat(5, 1)
    assert (P._draw(last, 1., seed(1)) == 2).all()


# ---- 4. The adapter ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("lora_rank", [4, 64])
def test_one_matrix_is_pefts_forward(grouped, lora_rank):
    """Each adapted layer alone, value and gradients; with the adapter off it is the base, bit for bit."""
    policy, plain = both(grouped, lora_rank)
    pairs = list(zip(fast.adapted_layers(policy.model), fast.adapted_layers(plain.model)))
    assert len(pairs) == 4 * 7
    for one, other in pairs[:7]:
        x = torch.randn(5, one.base_layer.in_features)
        results = []
        for layer in (one, other):
            given = x.clone().requires_grad_()
            out = layer(given)
            out.square().sum().backward()
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            results.append((out.detach(), given.grad, a.grad, b.grad))
        for ours, theirs in zip(*results):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
        with P.adapter_off(policy):
            assert torch.equal(one(x), one.base_layer(x))


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft wonders about a bias where there was none
@pytest.mark.parametrize("kind", [dict(use_dora=True), dict(use_rslora=True), dict(lora_bias=True), dict(lora_dropout=.5)],
                         ids=lambda kind: next(iter(kind)))
def test_adapters_of_other_kinds_are_what_peft_makes_of_them(grouped, tmp_path, kind):
    """peft reads more from an adapter's folder than W x + s B A x. Dropout draws: there peft's own forward stays."""
    model = P.AutoModelForImageTextToText.from_pretrained(grouped, dtype=torch.float32)
    model = P.get_peft_model(model, P.LoraConfig(r=4, lora_alpha=12, target_modules=P.LORA_TARGETS, **kind))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=.1)
    model.save_pretrained(tmp_path)
    policy, plain = (P.load_policy(grouped, adapter=tmp_path, fast=is_fast) for is_fast in (True, False))
    ids, mask = ragged(2, 5)
    assert_same(score(policy, EVERYTHING[:2], 1, ids, mask), score(plain, EVERYTHING[:2], 1, ids, mask))
    drops = [hasattr(layer, "folded") for layer in fast.adapted_layers(policy.model)]
    assert all(drops) if "use_rslora" in kind else not any(drops)


def test_copies_have_an_adapter_of_their_own(grouped):
    """copy.deepcopy, as merge() uses it. Kills a forward that is still bound to the first model's layers."""
    policy = load(grouped, 4)
    other = replace(policy, model=copy.deepcopy(policy.model))
    ids, mask = ragged(2, 5)
    before = score(policy, EVERYTHING[:2], 1, ids, mask)
    with torch.no_grad():
        for p in P.trainable(other).values():
            p.mul_(1.5)
    assert (score(other, EVERYTHING[:2], 1, ids, mask)[0] - before[0]).abs().max() > .01
    assert_same(score(policy, EVERYTHING[:2], 1, ids, mask), before)
    policy.unwrapped.merge_adapter()  # peft's: from now on W has it
    with torch.no_grad():
        merged, _ = P.token_logprobs(policy, P.encode_prompts(policy, EVERYTHING[:2]), 1, ids, mask)
    torch.testing.assert_close(merged, before[0], atol=1e-4, rtol=1e-4)


def test_nothing_stays_folded_when_sampling_fails(grouped, monkeypatch):
    policy = load(grouped, 4, checkpointing=True)

    def stop(*_):
        assert all(layer.folded is not None for layer in fast.adapted_layers(policy.model))
        raise KeyboardInterrupt

    monkeypatch.setattr(P, "_draw", stop)
    with pytest.raises(KeyboardInterrupt):
        P.sample(policy, P.encode_prompts(policy, EVERYTHING[:1]), 2)
    assert all(layer.folded is None for layer in fast.adapted_layers(policy.model)) and policy.model.training


def test_scores_of_attention_are_float32_under_autocast():
    """Kills a sampler that rounds them to bfloat16, where the scorer does not."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 64).bfloat16(), torch.randn(2, 3, 64, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = fast.product(a, b)
    assert out.dtype == torch.float32 and torch.equal(out, a.float() @ b.float())


class Casts(TorchDispatchMode):
    """How many matrices are cast from float32 inside."""
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].dtype == torch.float32 and args[0].ndim == 2:
            self.count += 1
        return function(*args, **(kwargs or {}))


def test_the_adapter_is_cast_before_a_graph_is_captured(grouped, monkeypatch):
    """A copy that is made inside a graph would be made again at every token."""
    policy = load(grouped, 4, dtype="bfloat16")
    prompts = P.encode_prompts(policy, EVERYTHING[:1])
    counts = []
    reader = P._reader

    def counted(*args):
        read = reader(*args)

        def reading():
            with Casts() as casts:
                out = read()
            counts.append(casts.count)
            return out
        return reading

    monkeypatch.setattr(P, "_reader", counted)
    P.sample(policy, prompts, 2, max_new_tokens=3, generator=seed(0))
    assert counts == [0, 0]


def test_under_autocast_layers_are_computed_again_as_they_were(grouped):
    """Kills a checkpoint that forgets autocast. Bit for bit: nothing is rounded otherwise."""
    ids, mask = ragged(4, 6)
    kept, again = (load(grouped, 4, dtype="bfloat16", checkpointing=checkpointing) for checkpointing in (False, True))
    one, other = (score(policy, EVERYTHING[:2], 2, ids, mask) for policy in (kept, again))
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(gradient, other[2][name]) for name, gradient in one[2].items())


def test_a_fast_policy_is_saved_and_merged_like_any(grouped, tmp_path):
    """Kills a folder that only this project can load: its attention, or its layers' forward, in the files."""
    policy, plain = both(grouped, 4)
    P.save_policy(policy, tmp_path / "adapter")
    P.save_policy(policy, tmp_path / "merged", merged=True)
    assert "argos" not in (tmp_path / "merged/config.json").read_text()
    base_model = P.AutoModelForImageTextToText.from_pretrained(grouped, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base_model, tmp_path / "adapter")
    ids = torch.tensor([[70, 80, 90, 65]])
    with torch.no_grad():
        expected = plain.model(input_ids=ids).logits
        assert torch.equal(adapted(input_ids=ids).logits, expected)
        merged = P.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(policy.model(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_agrees_to_its_rounding(grouped):
    """Under autocast: the sampler with the scorer, the fast path with the plain one; gradients stay float32."""
    policy, plain = both(grouped, 4, dtype="bfloat16")
    ids, mask = ragged(2 * len(EVERYTHING), 8)
    logprobs, _, gradients = score(policy, EVERYTHING, 2, ids, mask)
    plain_logprobs, _, plain_gradients = score(plain, EVERYTHING, 2, ids, mask)
    assert (logprobs - plain_logprobs).abs().mean() < .05
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), plain_gradients[name].flatten(), 0)
        assert cosine > .97, name
    prompts = P.encode_prompts(policy, EVERYTHING)
    rollouts = P.sample(policy, prompts, 2, max_new_tokens=8, generator=seed(0))
    with torch.no_grad():
        scored, _ = P.token_logprobs(policy, prompts, 2, rollouts.ids, rollouts.mask)
    assert (scored - rollouts.logprobs).abs().mean() < .05
