"""Models, data and responses for the benchmarks of training: no checkpoint, no network, any size.

What the benchmarks share that measure a step (benchmark_gpu.py, benchmark_trl.py). Speed and memory depend on
shapes alone, so the weights are random; all that is done with them is the product's own code. In reading order:

    configuration     the shapes of a model: "tiny", "10m" or "7b"
    random_model      a model of these shapes, drawn where it will run
    build             let policy.load_policy make such a model where it would read a folder
    write_data        a picture or clip that fills the pixel budget, as rows for both training scripts
    write_responses   random weights write noise; the verifier gets written responses of full length instead

    >>> tokenizer = word_tokenizer()
    >>> model = random_model(configuration("10m", tokenizer))
    >>> f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"
    '9.5 M parameters'

Before: policy.py, tiny/models.py
"""
import json
import sys
from pathlib import Path

import torch
from accelerate import init_empty_weights
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runs import ledger  # noqa: E402
from runs.settings import QWEN_7B, TOKEN  # noqa: E402
import policy as P  # noqa: E402
from tiny import models  # noqa: E402

QUESTION = "How many red squares are there?"


# ---- 1. Shapes ---------------------------------------------------------------------------------------------
def word_tokenizer():
    """The tiny models' kind of tokenizer, with the words of the prompts and of the written responses."""
    return models.build_tokenizer([*P.PROMPTS["7b"].values(), *P.PROMPTS["tiny"].values(), QUESTION, "I see so"])


def configuration(size, tokenizer):
    """The shapes of a Qwen2.5-VL whose special tokens are the tokenizer's. -> the library's config

    size  "tiny": the tiny policy, 1.5 M parameters
          "10m": 10 M in the 7B's proportions: fewer key heads than heads, a vocabulary that takes time, and a
          vision tower that costs a third of what the language model costs on a picture's tokens
          "7b": Qwen2.5-VL-7B's own
    """
    tiny = models.build_model(tokenizer, "base").config
    if size == "tiny":
        return tiny
    if size == "10m":
        text = dict(vocab_size=4096, hidden_size=256, intermediate_size=1024, num_hidden_layers=8,
                    num_attention_heads=8, num_key_value_heads=2, layer_types=["full_attention"] * 8)
        vision = dict(depth=4, out_hidden_size=256, fullatt_block_indexes=[3])
        parts = tiny.to_dict()
        parts["text_config"].update(text)
        parts["vision_config"].update(vision)
        return type(tiny).from_dict(parts)
    config = ledger.model_config(QWEN_7B)
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config, name, getattr(tiny, name))
    return config


# ---- 2. A model without a download -------------------------------------------------------------------------
def random_model(config, dtype=torch.float32, device="cpu", four_bits=False):
    """The model with random weights, drawn on the device one by one: the whole is never on the CPU.

    four_bits: store them as bitsandbytes does (QLoRA); needs that package
    """
    with init_empty_weights():  # buffers (rotary frequencies) are real
        model = P.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    if four_bits:
        from bitsandbytes.nn import Params4bit  # optional, and needed for 4 bits alone
        from transformers.integrations import replace_with_bnb_linear
        model = replace_with_bnb_linear(model, modules_to_not_convert=["model.visual", "lm_head"],
                                        quantization_config=P.nf4_config())
        model.is_loaded_in_4bit = True
    for name, layer in model.named_modules():
        for key, p in list(layer._parameters.items()):
            if p is None:
                continue
            shape = p.shape
            if "4bit" in type(layer).__name__ and key == "weight":
                shape = (layer.out_features, layer.in_features)
            value = torch.empty(shape, dtype=dtype, device=device).normal_(std=.02)
            if "norm" in name and key == "weight":
                value = torch.ones_like(value)
            if four_bits and type(p).__name__ == "Params4bit":
                packed = Params4bit(value.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True)
                layer._parameters[key] = packed.to(device)
            else:
                layer._parameters[key] = torch.nn.Parameter(value)
    if config.tie_word_embeddings:
        model.tie_weights()
    return model.to(device)


def build(size):
    """Make P.load_policy build a model instead of reading one; all that follows is its own. -> the tokenizer.

    size: of `configuration`. It holds for this process, for every model that is loaded (judge "base" loads none).
    """
    tokenizer = word_tokenizer()
    config = configuration(size, tokenizer)

    def model(kind, folder, dtype, quantization_config=None, **options):
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return random_model(config, dtype, device, four_bits=quantization_config is not None)

    class Processor:
        @staticmethod
        def from_pretrained(folder, **options):
            return models.build_processor(tokenizer)

    class Config:
        @staticmethod
        def from_pretrained(folder, **options):
            return config

    P.load_weights = model
    P.AutoProcessor = Processor
    P.AutoConfig = Config
    ledger.model_config = Config.from_pretrained
    return tokenizer


# ---- 3. Data that fills the budget, and responses ----------------------------------------------------------
def write_data(folder, cfg, tokenizer, kind):
    """One picture or clip that fills the pixel budget: rl.jsonl, sft.jsonl. -> a right response of full length.

    cfg: of either script; kind: "image" or "video". The row is repeated: eight prompts, four chats.
    """
    if kind == "image":
        frames = 1
        tokens = cfg.image_pixels // TOKEN
    else:
        frames = min(cfg.max_frames, 32)
        tokens = min(cfg.image_pixels, cfg.video_pixels // frames) // TOKEN
    high = max(h for h in range(1, int(tokens ** .5) + 1) if tokens % h == 0)
    image = Image.new("RGB", (tokens // high * 28, high * 28), (215, 215, 210))
    image.paste((225, 30, 30), (20, 20, 60, 60))
    if frames == 1:
        image.save(folder / "it.png")
        point = '<point x1="40" y1="40" alt="red square">red square</point>'
    else:
        others = [image.copy() for _ in range(frames - 1)]
        for i, other in enumerate(others):
            other.putpixel((0, 0), (i, 0, 0))  # the writer drops repeated frames
        image.save(folder / "it.png", save_all=True, append_images=others, duration=500)
        point = "the red square is at (40, 40) in frame 0 (0.0 seconds)"

    template = f"<think>I see {point}.{{}}</think><answer>1</answer>"
    room = cfg.max_new_tokens - len(tokenizer(template)["input_ids"]) - 8
    response = template.format(" so" * max(0, room // len(tokenizer(" so")["input_ids"])))

    row = {"id": "it", "question": QUESTION, "answer": "1", "kind": "count", kind: "it.png"}
    asked = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": row["question"]}]}
    said = {"role": "assistant", "content": [{"type": "text", "text": response}]}
    chat = {"messages": [asked, said], f"{kind}s": ["it.png"]}
    (folder / "rl.jsonl").write_text("\n".join(json.dumps(row | {"id": f"it {i}"}) for i in range(8)))
    (folder / "sft.jsonl").write_text("\n".join([json.dumps(chat)] * 4))
    return response


def write_responses(right):
    """From now on P.sample draws as before, and then every second rollout's text is `right`, the others' wrong.

    So no group is skipped, and the verifier has the work of full responses.
    """
    sample = P.sample
    wrong = right.replace("<answer>1", "<answer>2")

    def written(*args, **kwargs):
        rollouts = sample(*args, **kwargs)
        rollouts.texts = [right if i % 2 else wrong for i in range(len(rollouts.texts))]
        return rollouts

    P.sample = written
