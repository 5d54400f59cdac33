"""The cost model: the arithmetic and the memory traffic of a GRPO step, phase by phase, and the seconds they take.

Who needs it: nobody who trains; a reader who asks where the time goes (runs/README.md tells it by hand).

    python -m runs.costs --preset 7b-bf16 --max_new_tokens 256 --sample_batch 56             # on this machine
    python -m runs.costs --preset 7b-bf16 --tflops 989 --gb_per_second 4300                  # on another
    python -m runs.costs out/grpo-argos              # a run's settings and lengths, beside its measured seconds

Two numbers tell most of a phase: its multiplications and additions (FLOP), and the bytes that go between memory
and processor. Both happen at once, so the slower decides (the roofline model: Williams et al., 2009): seconds =
max(FLOP / peak, bytes / bandwidth). That is the least that a phase can take; but what fits into a processor's own
cache, as a tiny model does on a CPU, does not go to memory: there the arithmetic alone is the least. Not counted:
norms, activations, softmax, the optimizer, tokenizing, and starting a kernel, which decides for tiny models.

The plain path (policy.py) stands beside the fast one (runs/fast.py). tests/test_costs.py holds the FLOP of both to
PyTorch's own count of real calls.

Before: runs/ledger.py (memory), runs/fast.py. Next: runs/README.md
"""
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import torch

from runs.errors import BadInput, run_main
from runs.files import logged_settings, read_jsonl
from runs.ledger import cache_bytes, model_config
from runs.settings import Settings, flag, parse_config, preset_arguments, vision_tokens

TINY = Path(__file__).parent.parent / "tiny"
TEXT_TOKENS = 160  # of a prompt beside its picture: a mean for the 7B's prompts, where the ledger has a limit
ANSWER_TOKENS = 5  # of a rollout: what the judge scores
TIMED_AS = {"sample": ("encode", "prefill", "decode"), "verify": ("judge",), "update": ("loss", "backward")}


@dataclass
class Config(Settings):
    """The flags of train_grpo.py that a step's cost depends on, and what is known about its lengths."""
    policy: str = flag(str(TINY / "base"), "model folder, or the 7B's name, which needs no download")
    judge: str = flag(str(TINY / "teacher"), "model folder; base: the policy with its adapter off")
    reward: str = flag("argos", "argos, outcome, no-vg or no-rq; outcome and no-rq do without the judge's R_rq")
    prompts: int = flag(16, "prompts per step")
    group_size: int = flag(8, "rollouts per prompt")
    max_new_tokens: int = flag(112, "most tokens of a rollout")
    sample_batch: int = flag(1024, "rollouts sampled at once")
    micro_batch: int = flag(64, "rollouts per forward pass of the update")
    checkpointing: bool = flag(False, "the layers are computed again in the backward pass")
    lora_rank: int = flag(64, "rank of the adapter; 0: all weights are trained")
    beta: float = flag(0.0, "weight of the KL; above 0 the reference scores, too")
    # Of this script alone; a run's log has the first three.
    prompt_tokens: float = flag(0., f"of a mean prompt; 0: its vision tokens and {TEXT_TOKENS} more")
    new_tokens: float = flag(0., "of a mean rollout; 0: max_new_tokens")
    skipped: float = flag(0., "groups of a step that teach nothing: the update skips them")
    seen_tokens: float = flag(0., "vision tokens of a mean prompt; 0: the most that a picture has")
    tflops: float = flag(0., "10^12 FLOP a second; 0: what a matrix product reaches here")
    gb_per_second: float = flag(0., "10^9 bytes a second; 0: what a copy reaches here")


@dataclass
class Cost:
    flop: float = 0.
    bytes: float = 0.

    def __add__(self, other):
        return Cost(self.flop + other.flop, self.bytes + other.bytes)

    def __mul__(self, times):
        return Cost(self.flop * times, self.bytes * times)


# ---- 1. The language model in numbers ----------------------------------------------------------------------
class Model:
    """What one pass costs. (tokens, in) times (in, out) is 2 x tokens x in x out FLOP."""

    def __init__(self, path, dtype, lora_rank, fast):
        config = model_config(path)
        text = self.text = config.text_config
        self.vision = config.vision_config
        self.hidden = text.hidden_size
        self.layers = text.num_hidden_layers
        self.sharing = text.num_attention_heads // text.num_key_value_heads  # heads that share their keys
        self.width = 4 if dtype == "float32" else 2  # bytes of a number; NF4 is unpacked to 2
        keys, mlp = self.hidden // self.sharing, text.intermediate_size
        sides = [(self.hidden, self.hidden), (self.hidden, keys), (self.hidden, keys), (self.hidden, self.hidden),
                 (self.hidden, mlp), (self.hidden, mlp), (mlp, self.hidden)]  # q, k, v, o, gate, up, down
        self.matrices = self.layers * sum(a * b for a, b in sides)  # weights
        ends = self.layers * sum(a + b for a, b in sides)  # numbers that a token takes into and out of all layers
        self.head = self.hidden * text.vocab_size
        self.qkv = self.hidden * (self.hidden + 2 * keys)  # of one layer
        self.down = self.layers * self.hidden * mlp        # of all

        # LoRA in float32, fast: W + s B A is made once, 2 x rank FLOP an entry. Else A and B, `thin`, are products
        # of their own; and plainly, beside 16-bit weights, float32 ones: what goes in and out is cast.
        self.one_matrix = fast and dtype == "float32" and lora_rank > 0
        self.thin = 0 if self.one_matrix else lora_rank * ends
        self.fold = Cost(2 * lora_rank * self.matrices, 2 * 4 * self.matrices) if self.one_matrix else Cost()
        casts = self.thin > 0 and self.width == 2 and not fast
        self.in_and_out = ends * (self.width + (4 + 4 if casts else 0))  # bytes of a token: written and read
        a_weight = .52 + 2 + 2 if dtype == "nf4" else self.width  # NF4: read, unpacked into memory, read again
        self.weights = self.matrices * a_weight + self.thin * (4 if casts else self.width)

    def read(self, tokens, pairs, passes):
        """Read so many tokens in so many passes. pairs: of a token and one it attends to, masked ones included"""
        flop = 2 * (self.matrices + self.thin) * tokens + self.attention(pairs)
        return Cost(flop, passes * self.weights + tokens * self.in_and_out)

    def attention(self, pairs):
        """FLOP: a query times a key, a weight times a value, in all heads together as wide as the layer."""
        return 4 * self.layers * self.hidden * pairs

    def score(self, tokens, passes):
        """The head: logits over the vocabulary."""
        return Cost(2 * self.head * tokens, passes * self.head * self.width)


# ---- 2. The phases of a step -------------------------------------------------------------------------------
def phases(cfg, fast):
    """{phase: Cost} of one step of train_grpo.py."""
    seen = cfg.seen_tokens or vision_tokens(cfg)[0]
    cfg = replace(cfg, seen_tokens=seen, prompt_tokens=cfg.prompt_tokens or seen + TEXT_TOKENS,
                  new_tokens=cfg.new_tokens or cfg.max_new_tokens)
    model = Model(cfg.policy, cfg.dtype, cfg.lora_rank, fast)
    frozen = Model(cfg.policy, cfg.dtype, 0, fast)
    judge = frozen if cfg.judge == "base" else Model(cfg.judge, cfg.dtype, 0, fast)
    prefill, decode = sampling(cfg, model, fast)
    loss, backward = update(cfg, model, frozen, fast)
    return {"encode": encode(cfg, model), "prefill": prefill, "decode": decode,
            "judge": asking(cfg, judge, fast), "loss": loss, "backward": backward}


def encode(cfg, model):
    """The vision tower reads each picture once: 4 patches of 14 x 14 pixels become a token."""
    vision = model.vision
    hidden = vision.hidden_size
    patches = 4 * cfg.seen_tokens  # of a picture
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size ** 2
    layer = 4 * hidden ** 2 + 3 * hidden * vision.intermediate_size
    weights = vision.depth * layer + pixels * hidden
    merger = (4 * hidden) ** 2 + 4 * hidden * vision.out_hidden_size
    whole = len(vision.fullatt_block_indexes)  # layers that see the whole picture; the others see a window
    window = min(patches, (vision.window_size // vision.patch_size) ** 2)
    keys = whole * patches + (vision.depth - whole) * window
    flop = patches * (2 * weights + 4 * hidden * keys) + cfg.seen_tokens * 2 * merger
    in_and_out = patches * vision.depth * (8 * hidden + 4 * vision.intermediate_size)
    return Cost(flop * cfg.prompts, (weights + merger + in_and_out * cfg.prompts) * model.width)


def decode_passes(cfg):
    """-> batches of a step, and how often each reads the model after its prefill, which gives the first token"""
    prompts_at_once = max(1, min(cfg.prompts, cfg.sample_batch // cfg.group_size))
    return -(-cfg.prompts // prompts_at_once), cfg.max_new_tokens - 1


def sampling(cfg, model, fast):
    """Prefill reads each prompt once; decoding reads a token of all rollouts at a time. -> two Costs"""
    batches, steps = decode_passes(cfg)
    prompt_tokens = cfg.prompts * cfg.prompt_tokens
    prefill = model.read(prompt_tokens, prompt_tokens * cfg.prompt_tokens, batches)
    prefill += model.fold * batches + model.score(cfg.prompts, batches)

    later = cfg.new_tokens - 1
    tokens = cfg.prompts * cfg.group_size * later  # rows that ended have left
    own = tokens * cfg.new_tokens / 2  # pairs of a token and one before it in its rollout
    of_prompt = tokens * cfg.prompt_tokens
    decode = model.read(tokens, of_prompt + own, batches * steps) + model.score(tokens, batches * steps)
    if fast:  # a prompt's keys and values are read once for its group
        cached = of_prompt / cfg.group_size + own
    else:     # at every token read, copied, and read again; where heads share keys, copied and read for each
        times = 3 if model.sharing == 1 else 3 + 2 * model.sharing
        cached = (of_prompt + own) * times
    return prefill, decode + Cost(0, cache_bytes(model.text, cached, model.width))


def rows(cfg, fast, groups):
    """Prompts and finished completions of so many groups -> tokens, pairs and passes, as Model.read takes them"""
    rollouts = groups * cfg.group_size
    passes = rollouts / min(cfg.micro_batch, cfg.prompts * cfg.group_size)
    if not fast:  # each completion reads its own prompt, and is padded, at worst to the most tokens
        row = cfg.prompt_tokens + cfg.max_new_tokens - 1  # a last token predicts nothing
        return rollouts * row, rollouts * row ** 2, passes
    prompt_tokens = cfg.prompt_tokens * groups * max(1, cfg.group_size / cfg.micro_batch)
    own_tokens = rollouts * (cfg.new_tokens - 1)
    pairs = prompt_tokens * cfg.prompt_tokens + own_tokens * (cfg.prompt_tokens + cfg.new_tokens - 1)
    return prompt_tokens + own_tokens, pairs, passes


def asking(cfg, judge, fast):
    """R_rq: the judge reads the picture, the question and each reasoning, and scores the answer (paper eq. 5)."""
    if cfg.reward in ("outcome", "no-rq"):
        return Cost()
    scored = judge.score(cfg.prompts * cfg.group_size * ANSWER_TOKENS, 1)
    return encode(cfg, judge) + judge.read(*rows(cfg, fast, cfg.prompts)) + scored


def update(cfg, model, frozen, fast):
    """Loss and gradients of the groups that teach. -> two Costs"""
    groups = cfg.prompts - cfg.skipped
    tokens, pairs, passes = rows(cfg, fast, groups)
    head = model.score(groups * cfg.group_size * cfg.new_tokens, passes)
    layers = model.read(tokens, pairs, passes) + model.fold * passes
    loss = layers + head
    if cfg.beta:
        loss += frozen.read(tokens, pairs, passes) + head

    # A matrix has two gradients, each as large as its forward pass: of what it read, and of its weights where
    # they are trained. LoRA plainly: the second for A and B alone. As one matrix: for W + s B A, and from it for B
    # and A. The head's logits are made again.
    flop = 2 * (model.matrices + 2 * model.thin) * tokens + 2 * model.attention(pairs) + 2 * head.flop
    if model.one_matrix or not cfg.lora_rank:
        flop += 2 * model.matrices * tokens + 2 * passes * model.fold.flop
    if cfg.lora_rank:
        flop -= 2 * model.qkv * tokens  # the first layer's read constants
    else:
        flop += head.flop
    if cfg.checkpointing:  # and so are the layers, but a last product whose result nobody asks for
        flop += layers.flop - (0 if model.thin else 2 * model.down * tokens)
    times = 3 if cfg.checkpointing else 2
    return loss, Cost(flop, times * layers.bytes + 2 * head.bytes)


# ---- 3. The machine ----------------------------------------------------------------------------------------
@dataclass
class Machine:
    flop: float   # a second
    bytes: float  # a second, read or written

    def seconds(self, cost):
        return max(cost.flop / self.flop, cost.bytes / self.bytes)


def this_machine(dtype):
    """What a large matrix product and a copy reach here; on a GPU in bfloat16, unless weights are float32."""
    device, side, size, kind = "cpu", 512, 200_000_000, torch.float32
    if torch.cuda.is_available():
        device, side, size = "cuda", 8192, 2_000_000_000
        if dtype != "float32":
            kind = torch.bfloat16
    a = torch.randn(side, side, device=device, dtype=kind)
    product = torch.empty_like(a)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    multiplied = fastest(torch.matmul, a, a, out=product)
    copied = fastest(target.copy_, source)
    return Machine(2 * side ** 3 / multiplied, 2 * size / copied)


def fastest(act, *args, **options):
    """Seconds of the fastest call in half a second; the first does not count."""
    seconds = []
    end = time.perf_counter() + .5
    while len(seconds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        act(*args, **options)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


# ---- 4. Tables ---------------------------------------------------------------------------------------------
def read_run(folder, typed):
    """A run's settings and lengths -> Config; whether it was fast; the rows of its steps. Raises BadInput.

    typed: flags, which win
    """
    log = Path(folder, "metrics.jsonl")
    if not log.exists():
        raise BadInput(f"{log}: is not there; name the --out of a run of train_grpo.py")
    settings = logged_settings(log) or {}
    steps = [row for _, row in read_jsonl(log, torn=True) if row.get("kind") == "train" and "skipped" in row]
    if not (settings and steps):
        raise BadInput(f"{log}: holds no settings, or no step of train_grpo.py yet")
    processes = settings.get("num_processes", 1)
    found = {name: settings[name] for name in Config.__dataclass_fields__ if name in settings}
    found["prompts"] = max(1, settings["prompts"] // processes)
    found["new_tokens"] = mean(row["length"] for row in steps)
    found["skipped"] = mean(row["skipped"] for row in steps) / processes
    found["prompt_tokens"] = mean(row.get("prompt_length", 0) for row in steps)
    words = []
    for name, value in found.items():
        words += [f"--{name}", str(value)]
    return parse_config(Config, __doc__, words + typed), settings.get("fast", False), steps


def show(cfg, plain, fast, machine):
    print(f"{machine.flop / 1e12:.3g} TFLOP/s, {machine.bytes / 1e9:,.0f} GB/s; {cfg.dtype}; "
          f"{cfg.prompts} prompts x {cfg.group_size} rollouts\n")
    print("| phase | plain: GFLOP | GB | seconds | bound by | fast: GFLOP | GB | seconds | bound by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in plain:
        cells = []
        for cost in (plain[name], fast[name]):
            bound = "arithmetic" if cost.flop / machine.flop > cost.bytes / machine.bytes else "memory"
            cells += [f"{cost.flop / 1e9:,.1f}", f"{cost.bytes / 1e9:,.2f}", f"{machine.seconds(cost):.3f}", bound]
        print(f"| {name} | {' | '.join(cells)} |")
    batches, steps = decode_passes(cfg)
    print(f"\nDecoding reads the model {batches} x {steps} times. Each time, at least:")
    for path, costs in (("plain", plain), ("fast", fast)):
        cost = costs["decode"] * (1 / max(1, batches * steps))
        print(f"  {path:5}  {cost.bytes / 1e9:8.3f} GB, {machine.seconds(cost) * 1e3:7.2f} ms")
    print(f"Step, at least: plain {sum(map(machine.seconds, plain.values())):.2f} s, "
          f"fast {sum(map(machine.seconds, fast.values())):.2f} s")


def show_run(costs, steps, machine):
    """Predicted beside measured seconds; the share of the machine's arithmetic that was used."""
    print("| phase | predicted, s | measured, s | share of peak |\n|---|---|---|---|")
    for name, parts in TIMED_AS.items():
        predicted = sum(machine.seconds(costs[part]) for part in parts)
        measured = max(1e-3, median(row["seconds"][name] for row in steps))
        share = sum(costs[part].flop for part in parts) / machine.flop / measured
        print(f"| {name} | {predicted:.3f} | {measured:.3f} | {share:.0%} |")


def main():
    words = sys.argv[1:]
    folder = words.pop(0) if words and not words[0].startswith("-") else None
    if folder:
        cfg, is_fast, steps = read_run(folder, words)
    else:
        cfg = parse_config(Config, __doc__, preset_arguments("train_grpo", Config, words))
    machine = Machine(cfg.tflops * 1e12, cfg.gb_per_second * 1e9)
    if not (machine.flop and machine.bytes):
        machine = this_machine(cfg.dtype)
    plain, fast = phases(cfg, fast=False), phases(cfg, fast=True)
    show(cfg, plain, fast, machine)
    if folder:
        path = "fast" if is_fast else "plain"
        print(f"\n{folder}: {len(steps)} steps by the {path} path; measured: their median\n")
        show_run(fast if is_fast else plain, steps, machine)


if __name__ == "__main__":
    run_main(main)
