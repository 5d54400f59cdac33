"""The memory ledger: how much memory a run will take, part by part, before any weight is loaded."""
from dataclasses import replace
from functools import lru_cache

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

from runs.errors import BadInput
from runs.settings import LORA_TARGETS, QWEN_7B, vision_tokens


# ---- 3. The memory ledger ----------------------------------------------------------------------------------
# Predicted bytes of every part of every phase of a run, from the model's config and the script's flags: nothing is loaded. The sum
# of a column is what the phase needs, the largest sum decides. Weights, adapter, optimizer and cache are exact; activations are
# counted tensor by tensor (the method of Korthikanti et al., arXiv:2205.05198, for this model with LoRA and this scorer). Both are
# held against the real tensors on a CPU by tests/test_ledger.py; a GPU's own measurement: tests/benchmark_memory.py.
TEXT_TOKENS = 256  # of a prompt beside its picture: template and question (our allowance)
CONTEXT_GB = 1.0   # the driver's context, workspaces, fragmentation (our allowance)
TEACHER_GB = {"pixels": 0, "base": 0, "yolo-world": .3, "grounding-dino": 1.0, "mm-grounding-dino": 1.0, "owlv2": 1.0, "sam2": .5,
              "sam2-hf": .5, "molmo": 17., "qwen": 18.}  # parameters and a picture's activations (ours, rounded up from published sizes)
# Bytes a token and layer, in multiples of (hidden, MLP width), by the bytes of a weight. KEPT until the backward pass; MORE at worst.
# 2: the norms and LoRA work in float32, so 8 copies of the stream (2 norms, inputs of q k v o gate up: 32) beside q, attention and
#    residuals (8); gate, silu(gate) and up in bfloat16 (6), the input of down in float32 (4); at worst LoRA's output twice in float32.
# 4: nothing is cast: norms' outputs, q, attention, rotated parts and residuals (32); gate, silu(gate), up and their product (16).
KEPT, MORE = {2: (40, 10), 4: (32, 16)}, {2: (8, 4), 4: (0, 8)}
LOGIT_COPIES = 12  # bytes a token and vocabulary entry: three float32 copies (log-probabilities, and two more in entropy or backward)


def model_config(path):
    """The config of a model. QWEN_7B's is written out here, as published with the checkpoint, so that a ledger needs no download."""
    if str(path) == QWEN_7B:
        return AutoConfig.for_model(
            "qwen2_5_vl", image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
            tie_word_embeddings=False,
            text_config=dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                             num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=128000, rms_norm_eps=1e-6,
                             tie_word_embeddings=False, eos_token_id=151645, pad_token_id=151643, bos_token_id=151643,
                             rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24])),
            vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, patch_size=14,
                               spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[7, 15, 23, 31],
                               tokens_per_second=2))
    try:
        return AutoConfig.from_pretrained(path)
    except Exception as error:
        raise BadInput(f"{path}: no config can be read here ({type(error).__name__}); give a model folder or a Hugging Face name") from None


@lru_cache
def weight_bytes(path, dtype, lora_rank):
    """(bytes of the base's weights, bytes of what is trained), from the model itself, built without storage.

    nf4 (QLoRA, arXiv:2305.14314, section 3): half a byte a weight, a byte of scale for every 64, 4 bytes for every 256 scales.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(model_config(path))
    if hasattr(model.model, "visual"):  # another family is only ever a judge, and frozen
        model.model.visual.requires_grad_(False)
    width, four_bits = 4 if dtype == "float32" else 2, 0
    total = sum(p.numel() for p in model.parameters()) * width
    for name, layer in model.named_modules():
        if dtype == "nf4" and isinstance(layer, torch.nn.Linear) and not name.startswith("model.visual") and name != "lm_head":
            n = layer.weight.numel()
            total -= n * width
            four_bits += -(-n // 2) + -(-n // 64) + 4 * -(-n // (64 * 256)) + 4 * (16 + 256 + 1)  # and two code tables, an offset
    if lora_rank:
        model = get_peft_model(model, LoraConfig(r=lora_rank, target_modules=LORA_TARGETS))
        width = 4  # peft keeps the adapter in float32
    return total + four_bits, width * sum(p.numel() for p in model.parameters() if p.requires_grad)


def cache_bytes(text, tokens, width):
    """Keys and values of so many tokens in all layers: 2 x layers x key-value heads x head size."""
    return tokens * 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads) * width


def ledger(cfg, processes=1):
    """{phase: {part: bytes}} of one process. cfg: the settings of train_sft.py or train_grpo.py."""
    config = model_config(cfg.policy)
    text, vision, width = config.text_config, config.vision_config, 4 if cfg.dtype == "float32" else 2
    hidden, mlp, layers, vocab = text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size
    weights, trained = weight_bytes(str(cfg.policy), cfg.dtype, cfg.lora_rank)
    grpo, new, prompt = hasattr(cfg, "group_size"), cfg.max_new_tokens, max(vision_tokens(cfg)) + TEXT_TOKENS
    group, prompts = (cfg.group_size, -(-cfg.prompts // processes)) if grpo else (1, cfg.micro_batch)
    per_layer = lambda table: table[width][0] * hidden + table[width][1] * mlp
    lora = 4 * 7 * cfg.lora_rank  # the narrow outputs of seven A matrices
    passing = (4 * width + 8) * hidden + (2 * width + 8) * mlp  # one layer without gradient, a token
    unpacked = hidden * mlp * 2 * (cfg.dtype == "nf4")  # the largest matrix, while it is in use

    resting = {"weights": weights, "adapter": trained * bool(cfg.lora_rank), "optimizer": 2 * trained}  # AdamW: two moments a weight
    if grpo:
        own = cfg.judge == "base" or model_config(cfg.judge).model_type == "qwen2_5_vl"  # others are loaded as published, in 16 bits
        judge = 0 if cfg.judge == "base" else weight_bytes(str(cfg.judge), cfg.dtype if own else "bfloat16", 0)[0]
        asked = {name.partition(":")[0] for name in (cfg.detector, cfg.segmenter, cfg.pointer)}
        resting["teachers"] = judge + int(1e9 * sum(TEACHER_GB.get(name, 0) for name in asked))
    patches = 4 * (prompt - TEXT_TOKENS) * prompts  # 14 x 14 pixels; pixels in float32, then a layer of the tower
    tower = 4 * 3 * 2 * 14 ** 2 + width * (8 * vision.hidden_size + 3 * vision.intermediate_size)
    phases = {"encode": {"activations": patches * tower}}
    if grpo:
        at_once = group * max(1, min(prompts, cfg.sample_batch // group))
        phases["prefill"] = {"cache": cache_bytes(text, at_once // group * prompt, width),
                             "activations": at_once // group * prompt * passing + unpacked,
                             "logits": at_once // group * vocab * LOGIT_COPIES}
        phases["decode"] = {"cache": cache_bytes(text, at_once * (prompt + new + 32), width),  # 32: RoomyLayer's room
                            "activations": at_once * (prompt + new) * 2 * hidden * width,  # one layer's keys and values, for every head
                            "logits": at_once * vocab * LOGIT_COPIES}
        phases["verify"] = {"cache": cache_bytes(text, prompt + new, width), "activations": (prompt + new) * passing + unpacked,
                            "logits": new * vocab * LOGIT_COPIES}  # the judge reads one rollout at a time
    rows = cfg.micro_batch if cfg.micro_batch < group else min(prompts, cfg.micro_batch // group) * group
    if cfg.checkpointing:  # every row reads its own prompt; kept is the stream between layers; the backward pass redoes one layer
        tokens = rows * (prompt + new)
        kept, again = tokens * layers * hidden * width, tokens * (per_layer(KEPT) + lora)
    else:  # the prompt is read once a group, and its cache is copied
        tokens = max(1, rows // group) * prompt + rows * new
        kept, again = tokens * layers * (per_layer(KEPT) + lora) + cache_bytes(text, rows * (prompt + new), width), 0
    if rows > 1 or not cfg.checkpointing:  # under a mask attention repeats keys and values for every head
        repeated = 2 * hidden * width * rows * (prompt + new)
        kept, again = (kept, again + repeated) if cfg.checkpointing else (kept + layers * repeated, again)
    reference = 4 * bool(grpo and cfg.beta)  # the reference is scored while the policy's log-probabilities wait
    phases["loss"] = {"gradients": trained, "activations": kept, "logits": rows * new * vocab * (LOGIT_COPIES + reference)}
    phases["backward"] = {"gradients": trained, "activations": kept + again + tokens * per_layer(MORE) + unpacked}
    return {name: resting | parts for name, parts in phases.items()}


def peak_gb(cfg, processes=1):
    """What the largest phase needs, the driver's allowance included: GB (10^9 bytes)."""
    return max(sum(parts.values()) for parts in ledger(cfg, processes).values()) / 1e9 + CONTEXT_GB


# What can be lowered, the harmless first: the first two cost time, not results. Each is halved down to its floor.
FLOORS = dict(sample_batch=1, micro_batch=1, prompts=1, max_new_tokens=64, video_pixels=32 * 3136, image_pixels=3136, lora_rank=8)


def what_to_lower(cfg, fits):
    """The flags that make it fit, as one sentence: each one that is enough alone, else all that are needed together."""
    def lowered(cfg, name):
        value = getattr(cfg, name)
        while value // 2 >= FLOORS[name] and not fits(replace(cfg, **{name: value})):
            value //= 2
        return replace(cfg, **{name: value})

    switches = [{"checkpointing": True}] + [{"dtype": "nf4"}] * (cfg.lora_rank > 0)
    names = [name for name in FLOORS if hasattr(cfg, name) and getattr(cfg, name) > FLOORS[name]]
    tries = [replace(cfg, **s) for s in switches] + [lowered(cfg, name) for name in names]
    alone = [c for c in tries if fits(c)]
    said = lambda c: " ".join(f"--{k} {v}" for k, v in vars(c).items() if v != getattr(cfg, k))
    if alone:
        return "change " + ", or ".join(said(c) for c in alone)
    all_of_it = cfg
    for change in [lambda c, s=s: replace(c, **s) for s in switches] + [lambda c, name=name: lowered(c, name) for name in names]:
        all_of_it = change(all_of_it)
        if fits(all_of_it):
            return f"it takes all of {said(all_of_it)}"
    return "no setting is small enough; take a larger card"


def check_memory(cfg, accelerator):
    """Refuse, before anything is loaded, what cannot fit into --memory_gb or the GPU; --dry_run prints the ledger. Raises argos.BadInput."""
    limit = cfg.memory_gb or (torch.cuda.mem_get_info()[0] / 1e9 if torch.cuda.is_available() else None)
    if not (cfg.dry_run or limit):
        return
    processes = accelerator.num_processes
    phases = ledger(cfg, processes)
    if cfg.dry_run and accelerator.is_main_process:
        parts = list(dict.fromkeys(part for phase in phases.values() for part in phase))
        print(f"GB{'':13}" + "".join(f"{name:>9}" for name in phases))
        for part in parts:
            print(f"{part:15}" + "".join(f"{phases[name].get(part, 0) / 1e9:9.2f}" for name in phases))
        print(f"{'sum':15}" + "".join(f"{sum(parts.values()) / 1e9:9.2f}" for parts in phases.values()))
        there = f"; there are {limit:.1f} GB" if limit else ""
        print(f"peak {peak_gb(cfg, processes):.1f} GB, with {CONTEXT_GB:.0f} GB for the driver{there}")
    if limit and peak_gb(cfg, processes) > limit:
        cure = what_to_lower(cfg, lambda c: peak_gb(c, processes) <= limit)
        raise BadInput(f"this needs {peak_gb(cfg, processes):.1f} GB and there are {limit:.1f}: {cure}")
