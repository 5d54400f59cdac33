"""All that only a GPU can show, in one run of 8 minutes that nobody has to watch. A script, not a test.

No checkpoint, no network: random weights of Qwen2.5-VL-7B's shapes, drawn on the GPU (tests/benchmark_models.py). The
items stand in order of importance. Each runs in a process of its own and has a time box; when that is over it is
killed with all its children, and the next one starts. Whatever an item finds out is printed at once, so a run that is
cut short has told what it knew. Time that an item leaves goes to those after it; what no longer fits is named.

    versions    packages, driver, card, free memory
    trl         our step beside TRL's, 256 new tokens (benchmark_trl.py)
    sampler     ms a token beside the card's bandwidth limit, seconds of an update: fast and plain
    exact       float32: fast against plain, sampler against scorer
    four-bits   `--preset 7b` under a cap of 24 GB
    ledger      predicted beside measured memory, each phase of train_grpo.py and train_sft.py
    trl-long    our step beside TRL's, 768 new tokens
    tests       tests/test_gpu.py

Run:   python tests/benchmark_gpu.py --minutes 8 --out gpu.txt    # 14 for all of it (estimated)
       python tests/benchmark_gpu.py --only trl-long --minutes 4
       python tests/benchmark_gpu.py --tiny                       # tiny shapes, on a CPU: only to see that all runs
Before: tests/benchmark_models.py (the model and the data), runs/ledger.py (what is predicted)
"""
import argparse
import faulthandler
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from runs import ledger, processes  # noqa: E402
from runs.errors import first_line  # noqa: E402
from runs.settings import QWEN_7B, TOKEN, parse_config, preset_arguments  # noqa: E402
from verifier.coordinates import Media  # noqa: E402
import policy as P  # noqa: E402
import train_grpo  # noqa: E402
import train_sft  # noqa: E402
from benchmark_models import QUESTION, build, write_data, write_responses  # noqa: E402


# ---- 1. Time boxes -----------------------------------------------------------------------------------------
@dataclass
class Item:
    """Something to find out, by a process."""
    name: str
    seconds: float      # its time box in a run of 8 minutes
    least: float        # with less time than this it is not begun
    command: list       # of the process
    loud: bool = False  # what it writes to stderr is of interest, too: its progress, a graph that was refused


def run_all(items, minutes, say, keep):
    """Run each item in its time box. -> {name: how it went}

    say: prints a line; keep: takes a line that is of use only when something went wrong

    The boxes are shares of `minutes`, one after the other; an item that ends early leaves its time to the next.
    """
    share = minutes * 60 / sum(item.seconds for item in items)
    began = time.monotonic()
    planned = 0
    results = {}
    for item in items:
        planned += max(item.least, item.seconds * share)
        left = began + min(planned, minutes * 60) - time.monotonic()
        if left < item.least:
            results[item.name] = f"not run: {max(0, left):.0f} s are left, and it needs {item.least:.0f}"
        else:
            say(f"== {item.name}, at most {left:.0f} s")
            started = time.monotonic()
            outcome = run_one(item, left, say, keep)
            results[item.name] = f"{outcome}; {time.monotonic() - started:.0f} s"
        say(f"== {item.name}: {results[item.name]}")
    return results


def run_one(item, seconds, say, keep):
    """Run one item; its lines are said as they come. -> "done", "failed: ..." or "stopped ..." """
    env = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TIME_BOX": str(seconds)}
    process = subprocess.Popen(item.command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    last_errors = deque(maxlen=3)

    def complain(line):
        if "%|" in line:  # a progress bar, " 50%|###  | 1/2 [00:01<00:01]", and what stands behind it on its line
            line = line.rpartition("%|")[2].partition("]")[2]
        if line.strip():
            last_errors.append(line)
            keep(f"{item.name}! {line}")
            if item.loud:
                say(f"   {line}")

    listeners = [threading.Thread(target=pass_on, args=(process.stdout, lambda line: say(f"   {line}")), daemon=True),
                 threading.Thread(target=pass_on, args=(process.stderr, complain), daemon=True)]
    for listener in listeners:
        listener.start()
    try:
        process.wait(seconds)
        stopped = False
    except subprocess.TimeoutExpired:
        stopped = True
    finally:
        kill(process)
    for listener in listeners:
        listener.join(5)  # not for ever: a grandchild that got away may hold the pipe
    if stopped:
        return "stopped at the end of its time box"
    if process.returncode == 0:
        return "done"
    why = last_errors[-1][:200] if last_errors else f"exit code {process.returncode}"
    return f"failed: {why}"


def pass_on(stream, tell):
    for line in stream:
        if line.strip():
            tell(line.rstrip())


def kill(process):
    """End a process, its group, and where it still runs its descendants in other groups."""
    descendants = []
    if process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in descendants:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


# ---- 2. What several items need ----------------------------------------------------------------------------
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if ON_GPU else "cpu")  # P.default_device would take GPU memory already here


def load(fast, dtype="bfloat16", lora_rank=64):
    """The policy that benchmark_models.build stands ready to draw: the same weights each time, all of it busy."""
    torch.backends.cuda.enable_cudnn_sdp(True)  # as a fresh process has it; the fast paths turn it off
    torch.manual_seed(0)
    policy = P.load_policy(QWEN_7B, lora_rank=lora_rank, dtype=dtype, checkpointing=True, preset="7b", fast=fast)
    with torch.no_grad():
        for name, weight in P.trainable(policy).items():
            if "lora_B" in name:  # LoRA starts at B = 0, which would hide every mistake
                weight.normal_(std=.02)
    return policy


PROBLEMS = []  # parts of this process's item that failed


@contextmanager
def attempt(part):
    """What fails inside costs one line; what comes after it is tried all the same."""
    try:
        yield
    except Exception as error:
        print(f"{part} FAILED: {type(error).__name__}: {first_line(error)[:150]}")
        traceback.print_exc()
        PROBLEMS.append(part)


def free():
    """Give back what nothing refers to any more."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def seconds_of(act):
    """Wall time of one call, until the GPU is done."""
    if ON_GPU:
        torch.cuda.synchronize()
    started = time.perf_counter()
    act()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def forget_peak():
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()


def peak():
    """The most memory that was allocated since then, weights included: a text, since a CPU does not know."""
    return f"peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if ON_GPU else "peak -"


def picture(tokens, shade=215):
    """A picture of so many vision tokens, about square, as load_media would give it."""
    high = max(h for h in range(1, int(tokens ** .5) + 1) if tokens % h == 0)
    size = (tokens // high * 28, high * 28)
    image = Image.new("RGB", size, (shade, shade, 210))
    image.paste((225, 30, 30), (4, 4, 24, 24))
    return Media([image], [0.], size)


def judged(value, most):
    """"1.2e-06, good: at most 1e-05", or "bad"."""
    word = "good" if value <= most else "BAD"  # a NaN is bad
    return f"{value:.1e}, {word}: at most {most:.0e}"


# ---- 3. Versions -------------------------------------------------------------------------------------------
PACKAGES = ("torch", "triton", "transformers", "peft", "accelerate", "trl", "datasets", "bitsandbytes", "numpy")


def versions(tiny):
    for name in PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}", end="; ")
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed", end="; ")
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPU cores")
    if not ON_GPU:
        print("no GPU here: nothing below measures one")
        return
    free_bytes, total = torch.cuda.mem_get_info()
    print(f"{torch.cuda.get_device_name()}, compute capability {torch.cuda.get_device_capability()}, CUDA "
          f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}; {free_bytes / 1e9:.1f} of "
          f"{total / 1e9:.1f} GB are free")
    asked = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm,clocks.max.memory", "--format=csv"]
    with suppress(OSError, subprocess.TimeoutExpired):  # not on every machine
        print(subprocess.run(asked, text=True, capture_output=True, timeout=10).stdout.strip())


# ---- 4. Sampling and update --------------------------------------------------------------------------------
def sampler(tiny):
    """7 prompts x 8 rollouts, as the paper's batches of 56. fast and plain draw the same random weights."""
    build("tiny" if tiny else "7b")
    tokens, new, prompts, rank = 512, 256, 7, 64
    if tiny:
        tokens, new, prompts, rank = 4, 12, 1, 4
    copied = bandwidth(tiny)
    print(f"a copy of a large tensor: {copied / 1e12:.2f} TB/s")
    for fast in (True, False):
        name = "fast" if fast else "plain"
        policy = load(fast, lora_rank=rank)
        end = policy.tokenizer.eos_token_id
        policy.ban[end] = -torch.inf  # rollouts of full length
        question = P.prompt("7b", "reason", question=QUESTION)
        items = [(picture(tokens, shade=100 + k), question) for k in range(prompts)]
        encoded = P.encode_prompts(policy, items)
        columns = encoded.mask.shape[1]
        cached = prompts * columns + prompts * 8 * new // 2  # a group could share its prompt's; on average half is new
        limit = token_bytes(policy, cached) / copied
        print(f"{name}: {prompts * 8} rows, prompts of {columns} tokens; limit {limit * 1e3:.2f} ms a token")
        with attempt(f"{name}, sampling"):
            measure_sampling(policy, encoded, new if fast else new // 4, limit, name)
        if fast:
            with attempt("fast, adapter off"), P.adapter_off(policy):
                measure_sampling(policy, encoded, new // 4, limit, "fast, adapter off")
            with attempt("sampler beside trainer"):
                measure_gap(policy, encoded)
        for length in (new, 3 * new):
            with attempt(f"{name}, update, {length} tokens"):
                measure_update(policy, encoded.select([0]), length, name)
        if not fast:
            with attempt("encoding"):
                measure_encoding(policy, items)
        del policy, encoded
        free()


def bandwidth(tiny):
    """Bytes a second of a copy: each is read and written."""
    size = 1 << 26 if tiny else 1 << 32
    source = torch.zeros(size, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    seconds = min(seconds_of(lambda: target.copy_(source)) for _ in range(5))
    return 2 * size / seconds


def token_bytes(policy, cached):
    """What one more token of all rows must read at least: language layers, adapter and head once, and the cache."""
    core = policy.core
    read = [*core.model.language_model.layers.parameters(), *core.lm_head.parameters()]
    width = core.lm_head.weight.element_size()
    return sum(p.numel() for p in read) * width + ledger.cache_bytes(core.config.text_config, cached, width)


def measure_encoding(policy, items):
    """The vision tower with its first layer as a matrix product (policy.PatchesAsRows), and as a convolution."""
    first_layer = policy.core.model.visual.patch_embed.proj
    for kind in (torch.nn.Conv3d, P.PatchesAsRows):
        first_layer.__class__ = kind
        first, *more = [seconds_of(lambda: P.encode_prompts(policy, items)) for _ in range(3)]
        print(f"encoding {len(items)} pictures, {kind.__name__}: {min(more):.3f} s (the first call: {first:.2f} s)")


def measure_sampling(policy, prompts, new, limit, name):
    """From two lengths: what both have (prefill, the capture of a graph) drops out."""
    short = max(2, new // 8)

    def draw(count):
        P.sample(policy, prompts, 8, max_new_tokens=count)

    first = seconds_of(lambda: draw(short))
    print(f"{name}: the first call, {short} tokens: {first:.2f} s")
    forget_peak()
    for again in range(2):
        one = seconds_of(lambda: draw(short))
        other = seconds_of(lambda: draw(new))
        each = (other - one) / (new - short)
        print(f"{name}: {each * 1e3:.1f} ms a token, {each / limit:.1f} times the limit; "
              f"{new} tokens in {other:.2f} s, {peak()}")


def measure_gap(policy, prompts):
    """Sampler beside trainer, in the number format of training."""
    rollouts = P.sample(policy, prompts, 8, max_new_tokens=16)
    with torch.no_grad():
        logprobs, _ = P.token_logprobs(policy, prompts.select([0]), 8, rollouts.ids[:8], rollouts.mask[:8])
    gap = (logprobs - rollouts.logprobs[:8]).abs()
    print(f"sampler beside trainer, {policy.core.dtype}: |log p - log p| is {gap.mean():.3f} on average, "
          f"{gap.max():.3f} at most")


def measure_update(policy, prompt, new, name):
    """Forward and backward pass of one group of 8."""
    ids = torch.randint(300, 400, (8, new), device=DEVICE)  # words
    mask = torch.ones_like(ids)

    def update():
        logprobs, _ = P.token_logprobs(policy, prompt, 8, ids, mask)
        logprobs.mean().backward()
        policy.model.zero_grad(set_to_none=True)

    first = seconds_of(update)
    forget_peak()
    seconds = min(seconds_of(update) for _ in range(2))
    print(f"{name}: update of a group of 8, {new} tokens: {seconds:.3f} s, {peak()} (the first call: {first:.2f} s)")


# ---- 5. Exactness ------------------------------------------------------------------------------------------
def exact(tiny):
    """float32 without TF32, a small model with the 7B's proportions; pictures, a clip, text; rollouts that end."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    build("tiny" if tiny else "10m")
    fast = load(True, dtype="float32", lora_rank=8)
    plain = load(False, dtype="float32", lora_rank=8)
    for one, other in zip(fast.model.parameters(), plain.model.parameters()):
        assert torch.equal(one, other)  # else all that follows compares two models
    frames = [picture(9, shade=shade).frames[0] for shade in (90, 120, 150, 180)]
    items = [(picture(16), QUESTION), (None, "Is it so? I see a red square."),
             (Media(frames, [0., .5, 1., 1.5], frames[0].size), QUESTION), ([picture(4), picture(9)], QUESTION)]
    with attempt("log p and gradients"):
        compare(fast, plain, items, "")
    with attempt("adapter off"), P.adapter_off(fast), P.adapter_off(plain):
        compare(fast, plain, items, "adapter off: ", learns=False)

    for again in ("", "adapter changed: "):  # a graph or a folded weight that is left from before would show
        with attempt(f"{again}sampling"):
            gap, ended, same = sampler_gap(fast, plain, items, new=32 if tiny else 96)
            print(f"{again}sampler beside scorer: {judged(gap, 1e-4)}; {ended:.0%} of the rollouts ended")
            print(f"{again}greedy tokens, fast beside plain: {same:.1%} are the same")
        with torch.no_grad():
            for one, other in zip(P.trainable(fast).values(), P.trainable(plain).values()):
                one.add_(.02)
                other.add_(.02)


def compare(fast, plain, items, name, learns=True):
    """Log-probabilities and gradients, groups of 4: ragged completions, the first of them of one token."""
    lengths = [1, 7, 40, 23] * len(items)
    ids = torch.randint(300, 400, (len(lengths), max(lengths)), device=DEVICE)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(DEVICE)
    weight = torch.randn(ids.shape, device=DEVICE)
    found = []
    for policy in (fast, plain):
        prompts = P.encode_prompts(policy, items)
        with torch.set_grad_enabled(learns):
            logprobs, entropy = P.token_logprobs(policy, prompts, 4, ids, mask)
        gradients = {}
        if learns:
            (logprobs * weight).sum().backward()
            gradients = {key: p.grad for key, p in P.trainable(policy).items()}
            policy.model.zero_grad(set_to_none=True)
        found.append((logprobs.detach(), entropy.detach(), gradients))
    (logprobs, entropy, gradients), (plain_logprobs, plain_entropy, plain_gradients) = found
    print(f"{name}log p, fast beside plain: {judged((logprobs - plain_logprobs).abs().max().item(), 1e-4)}")
    print(f"{name}entropy, fast beside plain: {judged((entropy - plain_entropy).abs().max().item(), 1e-3)}")
    if learns:
        worst = max(float((gradients[key] - plain).norm() / plain.norm()) for key, plain in plain_gradients.items())
        print(f"{name}gradient, fast beside plain, the worst matrix: {judged(worst, 1e-4)}")


def sampler_gap(fast, plain, items, new):
    """-> largest |log p of the fast sampler - log p of the plain scorer|, share of rollouts that ended, share of
    greedy tokens that are the same."""
    prompts = P.encode_prompts(fast, items)
    end = fast.tokenizer.eos_token_id
    for policy in (fast, plain):
        policy.ban[end] = 3.  # about one token in thirty: rollouts of many lengths, rows that leave
    rollouts = P.sample(fast, prompts, 8, max_new_tokens=new)
    with torch.no_grad():
        logprobs, _ = P.token_logprobs(plain, P.encode_prompts(plain, items), 8, rollouts.ids, rollouts.mask)
    gap = ((logprobs - rollouts.logprobs) * rollouts.mask).abs().max().item()
    greedy = []
    for policy in (fast, plain):
        policy.ban[end] = -torch.inf  # else most are the end
        greedy.append(P.sample(policy, P.encode_prompts(policy, items), 1, max_new_tokens=new // 3, greedy=True).ids)
    same = (greedy[0] == greedy[1]).float().mean().item()
    return gap, rollouts.finished.float().mean().item(), same


# ---- 6. Whole training runs beside the ledger --------------------------------------------------------------
PICTURES = f"--video_pixels {512 * TOKEN}"  # a clip gets no more tokens than a picture
SETTINGS = {  # name: (GB of the card, script, pictures or clips, flags)
    "GRPO, bfloat16, pictures": (80, train_grpo, "image", f"--preset 7b-bf16 {PICTURES} --max_new_tokens 256"),
    "GRPO, bfloat16, clips": (80, train_grpo, "video", "--preset 7b-bf16 --max_new_tokens 256"),
    "SFT, bfloat16, clips": (40, train_sft, "video", "--preset 7b-bf16"),
}
FOUR_BITS = (24, train_grpo, "image", f"--preset 7b {PICTURES}")
COMMON = "--detector pixels --segmenter pixels --eval_every 0 --merge False --batch 4 --epochs 2 --steps 2"
FEW = ("--lora_rank 4 --prompts 1 --group_size 2 --sample_batch 2 --max_new_tokens 80 --image_pixels 12544 "
       "--video_pixels 56448")
# A measured phase, and the predicted ones that it holds.
PHASES = {"sample": ("encode", "prefill", "decode"), "verify": ("verify",), "update": ("encode", "loss", "backward")}


def four_bits(tiny):
    """The preset for a card of 24 GB, whole: 768 new tokens, the judge's work, two steps."""
    if importlib.util.find_spec("bitsandbytes") is None:
        print("skipped: bitsandbytes is not installed")
        return
    beside_the_ledger("GRPO, 4 bits, pictures", FOUR_BITS, tiny)


def all_settings(tiny):
    for name, setting in SETTINGS.items():
        with attempt(name):
            beside_the_ledger(name, setting, tiny)
        free()


def beside_the_ledger(name, setting, tiny):
    """Two steps of a training script as it is; each tells its memory when it is done. Teachers are the pixel rules.

    Random weights write noise, so the verifier gets written responses of full length, half of them right.
    """
    card, script, kind, flags = setting
    tokenizer = build("tiny" if tiny else "7b")
    if ON_GPU:
        there = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1., card * 1e9 / there))
        print(f"{torch.cuda.memory_allocated() / 1e9:.2f} GB are allocated before anything is loaded")
    with tempfile.TemporaryDirectory() as folder:
        words, cfg = command_line(script, flags, tiny, folder)
        predicted = {phase: sum(parts.values()) / 1e9 for phase, parts in ledger.phases(cfg).items()}
        print(f"{name}, under {card} GB: the ledger's peak is {ledger.peak_gb(cfg):.1f} GB with "
              f"{ledger.CONTEXT_GB:.0f} for the driver")
        before = processes.log, P.sample, sys.argv
        processes.log = partial(tell_step, predicted)
        write_responses(write_data(Path(folder), cfg, tokenizer, kind))
        sys.argv = [script.__name__, *words]
        try:
            script.main()
        except Enough:
            pass
        finally:
            processes.log, P.sample, sys.argv = before


def command_line(script, flags, tiny, folder):
    """The flags of a setting, only those that its script has. -> words, cfg"""
    words = f"{flags} {COMMON} {FEW if tiny else ''}".split()
    known = ["--out", f"{folder}/out", "--data", f"{folder}/{'rl' if script is train_grpo else 'sft'}.jsonl"]
    if script is train_grpo:
        known += ["--val", f"{folder}/rl.jsonl"]
    for flag, value in zip(words[::2], words[1::2]):
        if flag.removeprefix("--") in script.Config.__dataclass_fields__:
            known += [flag, value]
    return known, parse_config(script.Config, "", preset_arguments(script.__name__, script.Config, known))


class Enough(Exception):
    """Both steps are done. What follows in the script writes two gigabytes, and tells nothing more."""


def tell_step(predicted, accelerator, out, row):
    """In the place of processes.log: a line for each phase of a step, measured beside predicted memory.

    AdamW's moments, which the ledger counts, are there from the second step on.
    """
    if row["kind"] != "train":
        return
    for phase, seconds in row["seconds"].items():
        most = max(predicted[part] for part in PHASES[phase] if part in predicted)
        line = f"step {row['step']}, {phase}: {seconds:.1f} s; {most:.2f} GB predicted"
        if row["memory_gb"]:
            measured = row["memory_gb"][phase]
            ratio = measured / most
            word = "within 10 %" if .9 <= ratio <= 1.1 else "NOT within 10 %"
            line += f", {measured:.2f} measured, ratio {ratio:.2f}, {word}"
        print(line)
    print(f"step {row['step']}: gradient of length {row['grad_norm']:.3f}; sampler_gap {row.get('sampler_gap')}; "
          f"failures {row.get('failures') or 'none'}")
    if row["step"] == 1:
        raise Enough


# ---- 7. The command ----------------------------------------------------------------------------------------
HERE = {"versions": versions, "sampler": sampler, "exact": exact, "four-bits": four_bits, "ledger": all_settings}


def items(tiny):
    """All items, in order of importance. Seconds: of 480, as estimated for an H200."""
    tiny_flag = ["--tiny"] if tiny else []

    def here(name):
        return [sys.executable, __file__, "--here", name, *tiny_flag]

    def beside_trl(setting):  # a warm-up, then one step of each: a GPU that nobody else uses varies little
        return [sys.executable, "tests/benchmark_trl.py", "--settings", setting, "--steps", "1", "--half_steps", "0",
                *tiny_flag]

    gpu_tests = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-o", "addopts=", "-v", "-rs"]
    return [
        Item("versions", 15, 5, here("versions")),
        Item("trl", 145, 60, beside_trl("7b"), loud=True),
        Item("sampler", 75, 40, here("sampler"), loud=True),
        Item("exact", 40, 20, here("exact"), loud=True),
        Item("four-bits", 85, 50, here("four-bits")),
        Item("ledger", 45, 25, here("ledger")),
        Item("trl-long", 45, 70, beside_trl("7b-long"), loud=True),
        Item("tests", 30, 45, gpu_tests),
    ]


def main():
    names = [item.name for item in items(False)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8., help="for all of it")
    parser.add_argument("--only", choices=names, help="one item, with all the minutes")
    parser.add_argument("--list", action="store_true", help="name the items and their seconds")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes; a CPU will do")
    parser.add_argument("--out", help="also write every line to this file, and the errors of items that fail")
    parser.add_argument("--here", choices=HERE, help="run an item in this process (the script calls itself so)")
    args = parser.parse_args()
    if args.here:
        # What it is doing shortly before its time box ends goes to stderr, and from there into --out.
        faulthandler.dump_traceback_later(max(1, float(os.environ.get("TIME_BOX", 1e6)) - 2))
        HERE[args.here](args.tiny)
        if PROBLEMS:
            sys.exit(f"{len(PROBLEMS)} parts failed: {', '.join(PROBLEMS)}")
        return
    chosen = [item for item in items(args.tiny) if args.only in (None, item.name)]
    if args.list:
        for item in chosen:
            command = " ".join(item.command[1:])
            print(f"{item.name:10} {item.seconds:4.0f} s of 480, at least {item.least:.0f}: {command}")
        return
    if not (args.tiny or ON_GPU):
        sys.exit("This measures a GPU and there is none. To see it run on a CPU: python tests/benchmark_gpu.py --tiny")

    began = time.monotonic()
    out = open(args.out, "w") if args.out else None

    def keep(line):
        if out:
            print(f"{line}\n", end="", file=out, flush=True)

    def say(line):
        line = f"{time.monotonic() - began:4.0f} s  {line}"
        print(f"{line}\n", end="", flush=True)  # in one piece: two threads say something
        keep(line)

    results = run_all(chosen, args.minutes, say, keep)
    say("")
    for name, result in results.items():
        say(f"{name:10} {result}")
    if not all(result.startswith("done") for result in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
