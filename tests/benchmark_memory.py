"""Memory and seconds of real training steps of the 7B architecture, predicted beside measured. A script, not a test; it needs a GPU.

Every setting runs in a process of its own: train_sft.py or train_grpo.py as they are, two steps, on random weights of Qwen2.5-VL-7B's
architecture that are drawn on the GPU (no checkpoint, no network), with a cap of the card it is meant for. Rollouts are sampled to
their full length, the worst case; since random weights write noise, the verifier gets written responses of that length in
their place, half of them right, so that every phase has all of its work. The teachers are the pixel rules (they cost no GPU memory);
judge, reference and policy are one model.

Run:   python tests/benchmark_memory.py                 # about 15 minutes on one large GPU; prints a Markdown table
       python tests/benchmark_memory.py --only "GRPO, 4 bits, pictures"
       python tests/benchmark_memory.py --tiny          # the same, tiny and on a CPU: nothing is measured, but all of it runs
       python tests/benchmark_memory.py --cpu           # one GRPO step of the 7B's architecture in bfloat16 on a CPU with 24 GB
"""
import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from accelerate import init_empty_weights
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from runs import ledger  # noqa: E402
from runs.files import read_jsonl  # noqa: E402
from runs.settings import QWEN_7B, parse_config, preset_arguments, vision_tokens  # noqa: E402
import policy as P  # noqa: E402
import train_grpo  # noqa: E402
import train_sft  # noqa: E402
from tiny import models  # noqa: E402

SETTINGS = {  # name: (GB of the card, script, pictures or clips, flags)
    "SFT, 4 bits, pictures": (24, train_sft, "image", "--preset 7b --micro_batch 1"),
    "GRPO, 4 bits, pictures": (24, train_grpo, "image", "--preset 7b --video_pixels 401408"),
    "GRPO, 4 bits, clips": (24, train_grpo, "video", "--preset 7b"),
    "GRPO, 4 bits, long": (40, train_grpo, "image", "--preset 7b --video_pixels 401408 --max_new_tokens 2048"),
    "SFT, bfloat16, clips": (40, train_sft, "video", "--preset 7b-bf16 --micro_batch 2"),
    "GRPO, bfloat16, clips": (40, train_grpo, "video", "--preset 7b-bf16"),
    "GRPO, bfloat16, whole groups": (80, train_grpo, "image", "--preset 7b-bf16 --video_pixels 401408 --micro_batch 8 --sample_batch 56"),
}
TINY = "--lora_rank 4 --prompts 1 --group_size 2 --sample_batch 2 --max_new_tokens 80 --image_pixels 12544 --video_pixels 56448"
COMMON = "--detector pixels --segmenter pixels --steps 2 --eval_every 0 --merge False --batch 4 --epochs 2"
PHASES = {"sample": ("encode", "prefill", "decode"), "verify": ("verify",), "update": ("encode", "loss", "backward")}  # measured: predicted


def random_model(config, dtype, device, four_bits):
    """The model with random weights, made on the device one at a time; under four_bits as bitsandbytes stores them."""
    with init_empty_weights():  # buffers (rotary frequencies) are real
        model = P.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    if four_bits:
        from bitsandbytes.nn import Params4bit
        from transformers.integrations import replace_with_bnb_linear
        model = replace_with_bnb_linear(model, modules_to_not_convert=["model.visual", "lm_head"], quantization_config=P.nf4_config())
        model.is_loaded_in_4bit = True
    for name, layer in model.named_modules():
        for key, p in list(layer._parameters.items()):
            if p is None:
                continue
            value = torch.empty(p.shape if "4bit" not in type(layer).__name__ or key != "weight" else (layer.out_features, layer.in_features),
                                dtype=dtype, device=device).normal_(std=.02)
            value = torch.ones_like(value) if "norm" in name and key == "weight" else value
            if four_bits and type(p).__name__ == "Params4bit":
                layer._parameters[key] = Params4bit(value.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True).to(device)
            else:
                layer._parameters[key] = torch.nn.Parameter(value)
    if config.tie_word_embeddings:
        model.tie_weights()
    return model.to(device)


def build(tiny):
    """Make P.load_policy build instead of read: everything after the weights is its own."""
    tokenizer = models.build_tokenizer([*P.PROMPTS["7b"].values(), "How many red squares are there? I see so"])
    config = models.build_model(tokenizer, "base").config if tiny else ledger.model_config(QWEN_7B)
    if not tiny:  # the 7B's shapes with the tiny tokenizer's special tokens
        ids = {n: tokenizer.convert_tokens_to_ids(f"<|{n}|>") for n in ("image_pad", "video_pad", "vision_start", "vision_end")}
        config.image_token_id, config.video_token_id = ids["image_pad"], ids["video_pad"]
        config.vision_start_token_id, config.vision_end_token_id = ids["vision_start"], ids["vision_end"]

    class Model(P.AutoModelForImageTextToText):
        @classmethod
        def from_pretrained(cls, path, dtype, quantization_config=None, device_map=None):
            device = "cuda" if torch.cuda.is_available() else "cpu"
            return random_model(config, dtype, torch.device(device), quantization_config is not None)

    class Processor:
        from_pretrained = staticmethod(lambda path: models.build_processor(tokenizer))
    P.AutoModelForImageTextToText, P.AutoProcessor = Model, Processor
    ledger.model_config = lambda path: config
    P.AutoConfig = type("AutoConfig", (), {"from_pretrained": staticmethod(lambda path: config)})
    return tokenizer


def write_data(folder, cfg, tokenizer, kind):
    """One picture or clip that fills the pixel budget, as a row for RL and as a chat for SFT; and the responses."""
    frames = 1 if kind == "image" else min(cfg.max_frames, 32)
    tokens = (cfg.image_pixels if frames == 1 else min(cfg.image_pixels, cfg.video_pixels // frames)) // 784
    high = max(h for h in range(1, int(tokens ** .5) + 1) if tokens % h == 0)
    image = Image.new("RGB", (tokens // high * 28, high * 28), (215, 215, 210))
    image.paste((225, 30, 30), (20, 20, 60, 60))
    if frames == 1:
        image.save(folder / "it.png")
    else:
        others = [image.copy() for _ in range(frames - 1)]
        for i, other in enumerate(others):
            other.putpixel((0, 0), (i, 0, 0))  # the writer drops repeated frames
        image.save(folder / "it.png", save_all=True, append_images=others, duration=500)
    point = '<point x1="40" y1="40" alt="red square">red square</point>' if frames == 1 else "the red square is at (40, 40) in frame 0 (0.0 seconds)"
    response = f"<think>I see {point}.{{}}</think><answer>1</answer>"
    room = cfg.max_new_tokens - len(tokenizer(response)["input_ids"]) - 8
    response = response.format(" so" * max(0, room // len(tokenizer(" so")["input_ids"])))
    row = {"id": "it", "question": "How many red squares are there?", "answer": "1", "kind": "count", kind: "it.png"}
    chat = {"messages": [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": row["question"]}]},
                         {"role": "assistant", "content": [{"type": "text", "text": response}]}], f"{kind}s": ["it.png"]}
    (folder / "rl.jsonl").write_text("\n".join(json.dumps(row | {"id": f"it {i}"}) for i in range(8)))
    (folder / "sft.jsonl").write_text("\n".join([json.dumps(chat)] * 4))
    return response


def one(name, tiny, few):
    """Run one setting here; its last line of output is a JSON object. few: the 7B's architecture, but few tokens and rollouts."""
    card, script, kind, flags = SETTINGS[name]
    tokenizer = build(tiny)
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1., card * 1e9 / torch.cuda.get_device_properties(0).total_memory))
    with tempfile.TemporaryDirectory() as folder:
        without = "--dtype float32 " if tiny and importlib.util.find_spec("bitsandbytes") is None else ""
        words = (flags + " " + (TINY if tiny or few else "") + " " + without + COMMON.replace("--steps 2", f"--steps {2 - few}")).split()
        grpo, fields = script is train_grpo, script.Config.__dataclass_fields__
        words = [w for k, v in zip(words[::2], words[1::2]) if k[2:] in fields for w in (k, v)]
        words += ["--out", f"{folder}/out", "--data", f"{folder}/{'rl' if grpo else 'sft'}.jsonl"] + (["--val", f"{folder}/rl.jsonl"] if grpo else [])
        cfg = parse_config(script.Config, "", preset_arguments(script.__name__, script.Config, words))
        response, sample = write_data(Path(folder), cfg, tokenizer, kind), P.sample

        def written(*args, **kwargs):
            rollouts = sample(*args, **kwargs)
            rollouts.texts = [response if i % 2 else response.replace("<answer>1", "<answer>2") for i in range(len(rollouts.texts))]
            return rollouts
        P.sample = written
        sys.argv = [script.__name__, *words]
        script.main()
        rows = [row for _, row in read_jsonl(f"{folder}/out/metrics.jsonl") if row["kind"] == "train"]
    predicted = {k: sum(v.values()) / 1e9 for k, v in ledger.ledger(cfg).items()}
    measured = {k: max(row["memory_gb"][k] for row in rows) for k in rows[0]["seconds"]} if rows[0]["memory_gb"] else {}
    if few:  # a CPU knows the peak of the whole process alone
        measured = dict.fromkeys(rows[0]["seconds"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
    print(json.dumps(dict(name=name, card=card, tokens=max(vision_tokens(cfg)) if kind == "video" else vision_tokens(cfg)[0], seconds=rows[-1]["seconds"],
                          measured=measured, updated=rows[-1]["grad_norm"],
                          predicted={k: max(predicted[p] for p in PHASES[k] if p in predicted) for k in rows[0]["seconds"]})))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETTINGS, help="one setting instead of all")
    parser.add_argument("--tiny", action="store_true", help="a tiny model; a CPU will do")
    parser.add_argument("--cpu", action="store_true", help="the 7B's architecture on a CPU, one small step (measured: the process' peak)")
    parser.add_argument("--here", action="store_true", help="run --only in this process (the script calls itself so)")
    args = parser.parse_args()
    if not (args.tiny or args.cpu or torch.cuda.is_available()):
        sys.exit("This measures a GPU and there is none. To see it run on a CPU: python tests/benchmark_memory.py --tiny, or --cpu")
    args.only = args.only or ("GRPO, bfloat16, whole groups" if args.cpu else None)
    if args.here:
        return one(args.only, args.tiny, args.cpu)
    print(f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU' + ', tiny model: nothing is measured' * args.tiny}, torch {torch.__version__}\n")
    print("| setting | card, GB | phase | predicted, GB | measured, GB | seconds |\n|---|---|---|---|---|---|", flush=True)
    for name in [args.only] if args.only else SETTINGS:
        command = [sys.executable, __file__, "--here", "--only", name] + ["--tiny"] * args.tiny + ["--cpu"] * args.cpu
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            print(f"| {name} | {SETTINGS[name][0]} | failed: {done.stderr.strip().splitlines()[-1][:120]} | | | |", flush=True)
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        for phase, seconds in row["seconds"].items():
            measured = f"{row['measured'][phase]:.1f}" if row["measured"] else "-"
            print(f"| {name}, {row['tokens']} vision tokens | {row['card']} | {phase} | {row['predicted'][phase]:.1f} | {measured} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
