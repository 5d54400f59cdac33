"""The fast paths: how a Qwen2.5-VL samples and scores in less time and memory, with the same numbers.

Who needs it: policy.py, which has the plain path beside each; a reader, once the plain paths are clear and the
question is where the time goes.

    plainly                                         here                                       where
    ----------------------------------------------  -----------------------------------------  ----------
    LoRA is W x + s B A x: three products a layer   float32: one product, with W + s B A       one_matrix
    and x cast to float32 for two of them           16 bits: A and B are cast, once            arithmetic
    each rollout caches its prompt's keys, and      one cache per group; a token is written    Room
    the cache copies itself at every token          in place
    the 7 heads that share keys get copies of them  they are 7 queries of one head             fold_heads
    each kernel is launched by itself               a CUDA graph launches those of a token     captured
    each completion reads its prompt, with padding  a group reads it once, nothing is padded   Packed

All of it is on, unless load_policy(fast=False) or --fast False says otherwise. tests/test_fast.py holds each path
to the plain one: log-probabilities to 1e-5 and gradients to 1e-5, in float32.

Before: policy.py. Next: runs/README.md (what each gives), runs/ledger.py (what it saves in memory)
"""
import functools
from contextlib import contextmanager, nullcontext
from types import MethodType

import torch
from peft.tuners.lora import LoraLayer
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from runs.errors import first_line, out_of_memory, warn


def use_fast_paths(model):
    """Put the fast paths into a Qwen2.5-VL, with or without an adapter, that was just loaded."""
    text = model.config.text_config
    text._attn_implementation = "argos"  # the name under which `attend` is registered below
    if torch.cuda.is_available():
        # cuDNN's attention makes a plan for each new length: 91 ms a sampled token instead of 46 (H200). And it
        # has been seen to give NaN gradients under a mask (PyTorch issue 196678).
        torch.backends.cuda.enable_cudnn_sdp(False)
    for layer in adapted_layers(model):
        if layer.base_layer.weight.dtype != torch.float32:
            layer.cast_input_dtype_enabled = False  # see `arithmetic`
        elif is_one_matrix(layer):
            layer.folded = None
            layer.forward = MethodType(one_matrix, layer)


# ---- 1. The adapter ----------------------------------------------------------------------------------------
def adapted_layers(model):
    """The layers that carry LoRA matrices."""
    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]


def is_one_matrix(layer):
    """Is it W x + s B A x and nothing more? peft also loads adapters with a bias, dropout, or of another kind."""
    has_dropout = any(type(dropout) is not torch.nn.Identity for dropout in layer.lora_dropout.values())
    return not (has_dropout or layer.lora_variant or any(layer.lora_bias.values()))


def one_matrix(layer, x):
    """The forward of an adapted float32 layer: (W + s B A) x, not W x + s B A x. x: (..., in) -> (..., out)

    Exact to rounding, gradients too. Where the rank is no small part of the width, as in the tiny models (64 of
    128), one product of W's size takes less time than it and two thin ones, forward and backward alike.
    """
    if layer.disable_adapters or layer.merged:
        return layer.base_layer(x)
    weight = layer.folded  # while sampling; else it is made here, and has a gradient
    if weight is None:
        weight = fold(layer)
    return torch.nn.functional.linear(x, weight, layer.base_layer.bias)


def fold(layer):
    """W + s B A of an adapted layer: (out, in)"""
    weight = layer.base_layer.weight
    for name in layer.active_adapters:
        a = layer.lora_A[name].weight  # (r, in)
        b = layer.lora_B[name].weight  # (out, r)
        weight = torch.addmm(weight, b, a, alpha=layer.scaling[name])
    return weight


@contextmanager
def folded_once(model):
    """Inside, every W + s B A is made once and kept, not at every token: for sampling, without gradient."""
    layers = []
    for layer in adapted_layers(model):
        if hasattr(layer, "folded") and not layer.disable_adapters:
            layers.append(layer)
    try:
        for layer in layers:
            layer.folded = fold(layer)
        yield
    finally:
        for layer in layers:
            layer.folded = None


def arithmetic(policy):
    """The context in which a fast policy computes.

    For 16-bit weights: autocast. The adapter is float32, and without autocast peft casts the input of each of
    its matrices to float32, and the product back, for every token. With it A and B are cast, once: on an H200 a
    sampled token took 12.5 ms instead of 15.5, an update .32 s instead of .49. Gradients of A and B stay float32.
    """
    if policy.fast and policy.core.dtype != torch.float32:
        return torch.autocast(policy.device.type, torch.bfloat16)
    return nullcontext()


# ---- 2. Attention ------------------------------------------------------------------------------------------
def attend(module, query, key, value, mask, **settings):
    """The language model's attention, called by the library. -> (n, q, heads, d), None

    query: (n, heads, q, d); key, value: (n, kv_heads, k, d)
    mask: a Room or Packed, which then attends itself; or the library's own: (n, 1, q, k) or None
    """
    if isinstance(mask, (Room, Packed)):
        return mask.attend(module, query, key, value, **settings), None
    return sdpa_attention_forward(module, query, key, value, mask, **settings)


AttentionInterface.register("argos", attend)
AttentionMaskInterface.register("argos", sdpa_mask)  # who makes the library's own masks


def fold_heads(query, key, value, bias, scaling):
    """Attention in which heads that share their keys are further queries of one head. -> (n, q, heads, d)

    In the 7B, 7 query heads share each of the 4 key heads. Under a mask the library copies keys and values for
    all 28 of them. Shapes as in `attend`; bias: (n, 1, h * q, k), added to the scores, for h heads that share.
    """
    n, heads, length, size = query.shape
    folded = query.reshape(n, key.shape[1], -1, size)  # (n, kv_heads, h * q, d)
    seen = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=bias, scale=scaling)
    return seen.reshape(n, heads, length, size).transpose(1, 2)


def _places(lengths, first):
    """Rows of these lengths, (R,), stand one after the other, from place `first` on.

    -> their places, (R, L), padded on the right with 0; and (R, L) True where there is no padding.
    Example: lengths 2, 3, first 10 -> [[10, 11, 0], [12, 13, 14]], [[True, True, False], [True, True, True]]
    """
    starts = lengths.cumsum(0) - lengths + first  # (R,)
    steps = torch.arange(int(lengths.max()), device=lengths.device)  # (L,)
    real = steps < lengths[:, None]  # (R, L)
    places = (starts[:, None] + steps).where(real, 0)
    return places, real


# ---- 3. Sampling -------------------------------------------------------------------------------------------
class Room:
    """Keys and values of n growing rollouts: those of their prompts once, and a column for each token to come.

    The library's cache holds the prompt once per rollout, and copies itself whenever a token is added. Here a
    group shares its prompt: with 8 rollouts an eighth of the memory, and of what each token has to read. New
    tokens are written in place, because a CUDA graph repeats its kernels at fixed addresses: all that changes
    from token to token is in the tensors of this object, and changes in place.

    cache: of the B prompts, of P columns. prompt_of: (n,) which prompt each rollout follows, rising
    more: how many tokens may come
    fixed: make all columns now and show them all, the empty ones masked, as a graph needs it; else only those in
        use are shown, which is less to read, and they are doubled whenever they are used up
    """

    def __init__(self, cache, prompts, prompt_of, more, fixed):
        device = prompt_of.device
        self.fixed = fixed
        columns = more if fixed else min(more, 32)
        self.prompts = []  # keys and values of each layer: two (B, kv_heads, P, d), the cache's own
        self.own = []      # (2, n, kv_heads, columns, d)
        for layer in cache.layers:
            _, heads, _, size = layer.keys.shape
            self.prompts.append((layer.keys, layer.values))
            self.own.append(layer.keys.new_zeros(2, len(prompt_of), heads, columns, size))
        self.used = 0  # own columns
        self.column = torch.tensor([-1], device=device)  # (1,) the last of them
        # Added to the scores of attention: -inf where nobody may look, at padding and at empty columns.
        self.prompt_bias = torch.zeros(prompts.mask.shape, device=device)  # (B, P)
        self.prompt_bias.masked_fill_(prompts.mask == 0, -torch.inf)
        self.own_bias = torch.full((columns,), -torch.inf, device=device)
        self.position = prompts.position_ids[:, prompt_of, -1:]  # (3, n, 1) of the last token that was added
        self.token = torch.zeros_like(self.position[0])          # (n, 1) that token
        self.prompt_of = prompt_of
        self._seat()

    def _seat(self):
        """Give every rollout a seat beside its prompt. G: rollouts of the prompt that has most of them."""
        self.rows, taken = _places(self.prompt_of.bincount(), first=0)  # (B, G) which rollout sits there
        self.seat = taken.flatten().nonzero()[:, 0]  # (n,) where each sits among the B * G

    def keep(self, rows):
        """Only these rollouts, (m,), grow on. Prompts that nobody follows any more go, too."""
        for i, own in enumerate(self.own):  # one by one: the old and the new of all layers may not fit together
            self.own[i] = own[:, rows]
        self.position = self.position[:, rows]
        self.token = self.token[rows]
        left, self.prompt_of = self.prompt_of[rows].unique(return_inverse=True)
        if len(left) < len(self.prompt_bias):
            self.prompts = [(keys[left], values[left]) for keys, values in self.prompts]
            self.prompt_bias = self.prompt_bias[left]
        self._seat()

    def add(self, token):
        """One more token of every rollout, (n,): written down here; the model is yet to read it."""
        if self.used == len(self.own_bias):
            pad = torch.nn.functional.pad
            self.own = [pad(layer, (0, 0, 0, self.used)) for layer in self.own]
            self.own_bias = pad(self.own_bias, (0, self.used), value=-torch.inf)
        self.token[:, 0] = token
        self.position += 1
        self.column += 1
        self.own_bias.index_fill_(0, self.column, 0)
        self.used += 1

    def inputs(self):
        """What the language model is given: it calls `update` as that of its cache, and `attend` by ours."""
        return dict(past_key_values=self, attention_mask={"full_attention": self})

    def update(self, keys, values, layer, *_):
        """Write the new token's keys and values, (n, kv_heads, 1, d). -> those of all own tokens"""
        own_keys, own_values = self.own[layer]
        own_keys.index_copy_(2, self.column, keys)
        own_values.index_copy_(2, self.column, values)
        shown = own_keys.shape[2] if self.fixed else self.used
        return own_keys[:, :, :shown], own_values[:, :, :shown]

    def attend(self, module, query, key, value, scaling, **_):
        """query: (n, heads, 1, d); key, value: (n, kv_heads, T, d) of own tokens -> (n, 1, heads, d)"""
        n, heads, _, size = query.shape
        keys, values = self.prompts[module.layer_idx]  # (B, kv_heads, P, d) each
        query = query.reshape(n, key.shape[1], -1, size)  # (n, kv_heads, h, d): h heads share their keys

        # 1) How well each key fits: the prompt's keys, asked by all of its rollouts at once; then the own ones.
        fit = product(self._seated(query), keys.mT) + self.prompt_bias[:, None, None]  # (B, kv_heads, G * h, P)
        prompt_scores = self._unseated(fit)
        own_scores = product(query, key.mT) + self.own_bias[:key.shape[2]]
        scores = torch.cat([prompt_scores, own_scores], -1)  # (n, kv_heads, h, P + T)

        # 2) The values, weighted by it.
        weights = (scores * scaling).softmax(-1).to(query.dtype)
        prompt_weights, own_weights = weights.split([keys.shape[2], key.shape[2]], -1)
        of_prompts = product(self._seated(prompt_weights), values)  # (B, kv_heads, G * h, d)
        seen = self._unseated(of_prompts) + product(own_weights, value)
        return seen.to(query.dtype).reshape(n, 1, heads, size)  # from (n, kv_heads, h, d)

    def _seated(self, x):
        """(n, kv_heads, h, e) of rollouts -> (B, kv_heads, G * h, e) of prompts"""
        return x[self.rows].transpose(1, 2).flatten(2, 3)

    def _unseated(self, x):
        """(B, kv_heads, G * h, e) of prompts -> (n, kv_heads, h, e) of rollouts"""
        seats = x.unflatten(2, (self.rows.shape[1], -1)).transpose(1, 2)  # (B, G, kv_heads, h, e)
        return seats.flatten(0, 1)[self.seat]


def product(a, b):
    """(B, H, q, d) times (B, H, d, k) -> (B, H, q, k), in float32: in bfloat16 a score of 100 is off by .25."""
    if a.dtype == torch.float32:
        return a @ b
    if a.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):  # it would cast them back
            return a.float() @ b.float()
    out = torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out_dtype=torch.float32)
    return out.unflatten(0, a.shape[:2])


def has_graphs(device):
    return device.type == "cuda"


broken = []  # the graph whose capture failed: no other is tried, and PyTorch's allocator may ask this one still


@functools.cache
def capture_stream(device):
    """One queue of kernels for all captures on a GPU: cuBLAS keeps up to 32 MB for each that it has seen."""
    return torch.cuda.Stream(device)


def captured(read, device):
    """A CUDA graph of `read`, a function without arguments that returns one tensor. -> a function that replays it

    Sampling a token of the 7B launches 2,000 small kernels, and launching them takes longer than running them:
    44 ms, and 15 as a graph (H200, 56 rollouts). A replay runs the same kernels at the same addresses: what
    Python decided, such as how many rows there are, is decided for good.

    The tensor is the same one every time: use it before the next replay.
    """
    if broken:
        return read
    aside = capture_stream(device)
    graph = torch.cuda.CUDAGraph()
    try:
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), torch.cuda.stream(aside):  # back to the stream before, whatever happens
            for _ in range(2):  # libraries set themselves up in their first calls: not to be captured
                read()
            # Other threads, such as NCCL's, may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                out = read()
    except RuntimeError as error:  # a kernel that cannot be captured: slower, but right
        if out_of_memory(error):
            raise
        broken.append(graph)
        warn(f"no CUDA graph ({first_line(error)}): sampling launches its kernels one by one")
        return read

    def replay():
        graph.replay()
        return out

    return replay


# ---- 4. Scoring --------------------------------------------------------------------------------------------
class Packed:
    """Prompts and completions as one row of S tokens: where each token stands, and whom it sees.

        prompt 0, prompt 1, ... | completion 0 of prompt 0, completion 1 of prompt 0, ... of prompt 1, ...

    A token of a completion sees its prompt and what comes before it in its completion, nothing else. The matrix
    products of all layers run over these S tokens: no prompt is there twice, and no place is padding. Only
    attention needs rows: for it queries, keys and values are laid out as (rows, tokens), and the results put back.

    Why not one S x S attention under a mask: of 8 completions of 256 tokens it computes 6 times what is needed.
    (FlexAttention skips that, too, but has to be compiled, and has no gradient on a CPU.)

    prompts: a policy.Prompts of B; mask: (N, T) True where completions have tokens, N = B * group_size
    """

    def __init__(self, prompts, group_size, mask):
        device = mask.device
        self.group_size = group_size
        prompt_of = torch.arange(len(prompts), device=device).repeat_interleave(group_size)  # (N,)
        self.in_prompt = prompts.mask.bool()  # (B, P)
        self.given = mask[:, 1:]  # (N, T-1): a row's last token predicts nothing, so it is not read

        # The place of each token in the packed row, as rows that are padded on the right; Q: the longest.
        lengths = prompts.lengths()  # (B,)
        tokens = self.given.sum(1)   # (N,)
        prompt_places, prompt_there = _places(lengths, first=0)  # (B, P) each
        given_places, given_there = _places(tokens, first=int(lengths.sum()))  # (N, Q) each
        self.prompts = Rows(prompt_there)
        self.completions = Rows(given_there)

        # Whom a completion's token sees: (N, 1, Q, P + Q).
        longest = given_places.shape[1]
        earlier = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        earlier = earlier.expand(len(mask), 1, -1, -1)
        prompt = prompt_there[prompt_of, None, None].expand(-1, -1, longest, -1)
        self.sees = torch.cat([prompt, earlier], 3)
        self.bias = None  # the same for attention, in all layers; the first makes it

        # The positions of a completion go on where its prompt ends.
        steps = torch.arange(1, mask.shape[1], device=device)
        positions = prompts.position_ids[:, prompt_of, -1:] + steps  # (3, N, T-1)
        self.positions = torch.cat([prompts.position_ids[:, self.in_prompt],
                                    positions[:, self.given]], 1)  # (3, S)

        # Which place predicts each token: for a completion's first its prompt's last, else the one before it.
        self.predicting = torch.zeros(mask.shape, dtype=torch.long, device=device)  # (N, T)
        self.predicting[:, 0] = prompt_places[prompt_of, lengths[prompt_of] - 1]
        self.predicting[:, 1:1 + longest] = given_places

    def attend(self, module, query, key, value, scaling, **settings):
        """query: (1, heads, S, d); key, value: (1, kv_heads, S, d) -> (1, S, heads, d)"""
        sizes = [self.prompts.tokens, self.completions.tokens]
        parts = [x[0].split(sizes, 1) for x in (query, key, value)]
        of_prompts, of_completions = zip(*parts)  # (heads or kv_heads, tokens, d), three each

        # 1) Prompts see themselves. They are padded on the right, where none of their tokens looks: no mask.
        own = [self.prompts.unpack(x) for x in of_prompts]  # (B, heads or kv_heads, P, d)
        seen, _ = sdpa_attention_forward(module, *own, None, scaling=scaling, **settings)  # (B, P, heads, d)
        packed = self.prompts.pack(seen)  # (tokens of prompts, heads, d)
        if not self.completions.tokens:
            return packed[None]

        # 2) Completions see their prompt and themselves.
        queries, keys, values = [self.completions.unpack(x) for x in of_completions]  # (N, heads or ..., Q, d)
        prompt_keys, prompt_values = [x.repeat_interleave(self.group_size, 0) for x in own[1:]]
        keys = torch.cat([prompt_keys, keys], 2)  # (N, kv_heads, P + Q, d)
        values = torch.cat([prompt_values, values], 2)
        if self.bias is None:
            self.bias = self._bias(query.dtype, query.shape[1] // key.shape[1])
        seen = fold_heads(queries, keys, values, self.bias, scaling)  # (N, Q, heads, d)
        return torch.cat([packed, self.completions.pack(seen)])[None]

    def _bias(self, dtype, heads):
        """`sees` as attention takes it, for h heads that share their keys: (N, 1, h * Q, P + Q), 0 or -inf."""
        columns = self.sees.shape[3]
        aligned = -(-columns // 8) * 8  # a GPU's kernel wants rows that start at multiples of 8, or copies them
        bias = torch.zeros(*self.sees.shape[:3], aligned, dtype=dtype, device=self.sees.device)
        bias[..., :columns].masked_fill_(~self.sees, -torch.inf)
        return bias.repeat(1, 1, heads, 1)[..., :columns]


class Rows:
    """Tokens that stand one after the other, laid out as rows that are padded on the right with zeros, and back.

    Written by index_copy and read by index_select: their gradients put each number in one place. Those of [...]
    add them up, in any order on several threads, and slowly where many places are padding.

    there: (R, L) True where a row has a token
    """

    def __init__(self, there):
        self.shape = there.shape
        self.places = there.flatten().nonzero()[:, 0]  # (tokens,) where each stands among the R * L
        self.tokens = len(self.places)

    def unpack(self, packed):
        """(heads, tokens, d) -> (R, heads, L, d)"""
        heads, _, size = packed.shape
        rows = packed.new_zeros(heads, self.shape.numel(), size)
        rows.index_copy_(1, self.places, packed)
        return rows.unflatten(1, self.shape).transpose(0, 1)

    def pack(self, rows):
        """(R, L, heads, d) -> (tokens, heads, d)"""
        return rows.flatten(0, 1).index_select(0, self.places)
