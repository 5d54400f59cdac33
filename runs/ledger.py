"""The memory ledger: how much memory a run will take, part by part, before any weight is loaded.

Who needs it: train_sft.py and train_grpo.py, which refuse to start where the largest phase does not fit; a
reader with the 7B and one GPU. To see it, without a GPU and without a download:

    python train_grpo.py --preset 7b --dry_run --memory_gb 24

    GB                encode  prefill   decode   verify     loss backward
    weights             6.90     6.90     6.90     6.90     6.90     6.90
    ...
    cache               0.00     0.92     3.39     0.00     0.00     0.00
    ...
    sum                15.05    16.61    16.41    13.79    17.08    17.53

A column is a phase of a training step, a line is a part of the memory, and each number is a product of sizes
that stand in the model's config and in the script's flags. The sum of a column is what its phase needs; the
largest sum decides. By hand, decode's cache: 7 prompts of 2,304 tokens, each once for its group, and 56 rollouts
of 768 new tokens, times 57,344 bytes of keys and values per token (see cache_bytes), are 3.39 GB.

Weights, adapter, optimizer and cache are exact. Activations (what layers hand on, and what the backward pass
must remember) are counted tensor by tensor, by the method of Korthikanti et al., arXiv:2205.05198, for this
model with LoRA and the fast paths (runs/fast.py; --fast False takes more). tests/test_ledger.py holds each phase
to 10 % of real tensors on a CPU, and tests/benchmark_gpu.py beside a GPU's own measurement.

Before: policy.py and runs/fast.py (what the phases do), runs/settings.py (the flags). Next: train_grpo.py
"""
from functools import lru_cache

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

from runs.errors import BadInput
from runs.settings import LORA_TARGETS, QWEN_7B, vision_tokens

# ---- 1. Allowances and counts ------------------------------------------------------------------------------
TEXT_TOKENS = 256  # of a prompt beside its picture: template and question (our allowance)
CONTEXT_GB = 1.0   # the driver's context, workspaces, fragmentation (our allowance)

# GB of a teacher's weights and of one picture's activations (ours, rounded up from published sizes).
# GroundingDINO, in float32 on a CPU: weights .93, activations 1.0 at 800 x 800, so 1.7 at its largest, 800 x 1333.
TEACHER_GB = {"pixels": 0, "base": 0, "yolo-world": .3, "grounding-dino": 2.7, "mm-grounding-dino": 2.0,
              "owlv2": 1.0, "sam2": .5, "sam2-hf": .5, "molmo": 17., "qwen": 18.}

FLOAT = 4  # bytes of a float32 number
CHUNK, CHUNK_TOKENS = 1 << 22, 256  # the scorer makes so many logits at a time, but of so many tokens at least
LOGIT = 3 * FLOAT  # per logit of a chunk: log p, p and the terms of the entropy; in the backward pass as many
DRAWN = 6 * FLOAT  # per logit that is drawn from: log p, p, and in float64 p and its running sum

# What one layer keeps of one token for the backward pass: bytes, as (times the hidden size, times the MLP's
# width), by the bytes of a weight. Two inputs of norms, which cast them to float32; what q, k and v read, what o
# reads, and what gate and up read; rotated q, and what attention saw, both in rows. Of the MLP: gate, silu(gate),
# up, their product.
KEPT = {2: (2 * FLOAT + 5 * 2, 4 * 2),
        4: (7 * FLOAT, 4 * FLOAT)}
# What the backward pass adds while it is in the MLP of a layer, at worst: gradients.
MORE = {2: (2, 2 * 2), 4: (0, 2 * FLOAT)}


# ---- 2. The model ------------------------------------------------------------------------------------------
def model_config(path):
    """The config of a model. Raises BadInput.

    That of QWEN_7B is written out here, as published with the checkpoint: a ledger needs no download.
    """
    if str(path) == QWEN_7B:
        text = dict(
            vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=128000, rms_norm_eps=1e-6,
            tie_word_embeddings=False, eos_token_id=151645, pad_token_id=151643, bos_token_id=151643,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]))
        vision = dict(
            depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584,
            patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=112,
            fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2)
        return AutoConfig.for_model(
            "qwen2_5_vl", image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
            vision_end_token_id=151653, tie_word_embeddings=False, text_config=text, vision_config=vision)
    try:
        return AutoConfig.from_pretrained(path)
    except Exception as error:
        raise BadInput(f"{path}: no config can be read here ({type(error).__name__}); "
                       "give a model folder or a Hugging Face name") from None


@lru_cache
def weight_bytes(path, dtype, lora_rank):
    """Bytes of the base's weights, and bytes of the weights that are trained. -> two integers.

    The model itself is built and counted, on the "meta" device: shapes without storage.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(model_config(path))
    if hasattr(model.model, "visual"):  # another family is only ever a judge, and frozen
        model.model.visual.requires_grad_(False)
    width = _width(dtype)
    total = sum(p.numel() for p in model.parameters()) * width
    if dtype == "nf4":
        for name, layer in model.named_modules():
            skipped = name.startswith("model.visual") or name == "lm_head"  # as policy.nf4_config says
            if isinstance(layer, torch.nn.Linear) and not skipped:
                total += nf4_bytes(layer.weight.numel()) - layer.weight.numel() * width
    if lora_rank:
        model = get_peft_model(model, LoraConfig(r=lora_rank, target_modules=LORA_TARGETS))
        width = FLOAT  # peft keeps the adapter in float32
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) * width
    return total, trained


def adapted_weights(text):
    """How many weights the matrices have that LoRA adapts (LORA_TARGETS): q, k, v, o, gate, up and down."""
    narrow = text.hidden_size // text.num_attention_heads * text.num_key_value_heads  # of keys, and of values
    attention = 2 * text.hidden_size * (text.hidden_size + narrow)
    return text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)


def nf4_bytes(n):
    """Bytes of n weights in NF4 (QLoRA, arXiv:2305.14314, section 3): about .52 per weight."""
    halves = _ceil(n, 2)                   # bytes, of two weights each
    scales = _ceil(n, 64)                  # bytes: a scale for each block of 64 weights
    scales_of_scales = _ceil(n, 64 * 256)  # float32: one for each 256 scales
    tables = 16 + 256 + 1                  # float32: the values of a weight, those of a scale, an offset
    return halves + scales + FLOAT * (scales_of_scales + tables)


def cache_bytes(text, tokens, width):
    """Keys and values of so many tokens in all layers: 2 x layers x key-value heads x head size x bytes.

    Example: the 7B in bfloat16, one token: 2 * 28 * 4 * 128 * 2 = 57,344 bytes.
    """
    head_size = text.hidden_size // text.num_attention_heads
    return tokens * 2 * text.num_hidden_layers * text.num_key_value_heads * head_size * width


def _width(dtype):
    """Bytes of a weight in use, and of an activation: NF4 is unpacked to bfloat16."""
    return 4 if dtype == "float32" else 2


def _ceil(n, size):
    return -(-n // size)


# ---- 3. The phases of a step -------------------------------------------------------------------------------
class Sizes:
    """What the phases are products of. cfg: the settings of train_sft.py or train_grpo.py."""

    def __init__(self, cfg, processes):
        config = model_config(cfg.policy)
        text = config.text_config
        self.text = text
        self.vision = config.vision_config
        self.hidden = text.hidden_size
        self.mlp = text.intermediate_size
        self.layers = text.num_hidden_layers
        self.heads = text.num_attention_heads
        self.narrow = self.hidden // self.heads * text.num_key_value_heads  # width of keys, and of values
        self.vocab = text.vocab_size
        self.width = _width(cfg.dtype)
        self.lora_rank = cfg.lora_rank

        self.seen = max(vision_tokens(cfg))     # vision tokens of the largest picture or clip
        self.prompt = self.seen + TEXT_TOKENS   # tokens of the longest prompt
        self.new = cfg.max_new_tokens           # tokens of the longest completion
        if is_grpo(cfg):
            self.prompts = _ceil(cfg.prompts, processes)  # of this process, in one step
            self.group = cfg.group_size
        else:
            self.prompts = cfg.micro_batch
            self.group = 1

        # NF4: the matrix in use is unpacked to bfloat16; the largest are those of the MLP.
        self.unpacked = self.hidden * self.mlp * 2 if cfg.dtype == "nf4" else 0

    def cache(self, tokens):
        return cache_bytes(self.text, tokens, self.width)

    def embeds(self, prompts):
        """Embeddings of so many prompts. All of a step wait on the GPU; a phase copies those that it reads."""
        return prompts * self.prompt * self.hidden * self.width

    def packed(self, prompts, rows):
        """Tokens that the scorer reads: each prompt once; a completion's last predicts nothing and is left out."""
        return prompts * self.prompt + rows * (self.new - 1)

    def passing(self, tokens, adapted):
        """What is alive in an MLP without gradient, at worst. In 16 bits the adapter's part is one tensor more."""
        wide = 4 if adapted and self.width == 2 else 3  # silu(gate), up, their product
        return tokens * self.width * (4 * self.hidden + wide * self.mlp) + self.unpacked

    def folded(self, trained):
        """The fast paths' copy: in float32 of the adapted matrices with the adapter; in 16 bits of the adapter."""
        if not self.lora_rank:
            return 0
        return trained // 2 if self.width == 2 else adapted_weights(self.text) * FLOAT

    def logits(self, tokens):
        """Of the scorer's largest chunk."""
        return min(tokens, max(CHUNK_TOKENS, CHUNK // self.vocab)) * self.vocab * LOGIT

    def per_layer(self, table):
        """Bytes of one token in one layer. table: KEPT or MORE."""
        times_hidden, times_mlp = table[self.width]
        return times_hidden * self.hidden + times_mlp * self.mlp


def is_grpo(cfg):
    return hasattr(cfg, "group_size")


def phases(cfg, processes=1):
    """{phase: {part: bytes}} of one process. cfg: the settings of train_sft.py or train_grpo.py."""
    sizes = Sizes(cfg, processes)
    weights, trained = weight_bytes(str(cfg.policy), cfg.dtype, cfg.lora_rank)

    # In all phases: what is loaded once and stays.
    resting = {
        "weights": weights,
        "adapter": trained if cfg.lora_rank else 0,  # without one, what is trained is among the weights
        "optimizer": 2 * trained,  # AdamW keeps two moments per weight
        "prompts": sizes.embeds(sizes.prompts),
    }
    columns = {"encode": encode(sizes)}
    if is_grpo(cfg):
        resting["teachers"] = teachers(cfg)
        columns["prefill"], columns["decode"] = sampling(cfg, sizes, trained)
        columns["verify"] = verify(sizes)
    columns["loss"], columns["backward"] = update(cfg, sizes, trained)
    return {name: resting | parts for name, parts in columns.items()}


def teachers(cfg):
    """Bytes of the models that judge, detect, segment and point. The policy itself in such a role is free."""
    judges = 0
    for judge in (cfg.judge, cfg.eval_judge):
        if judge not in ("", "base"):
            ours = model_config(judge).model_type == "qwen2_5_vl"
            dtype = cfg.dtype if ours else "bfloat16"  # other families are loaded as published, in 16 bits
            judges += weight_bytes(str(judge), dtype, 0)[0]
    names = {name.partition(":")[0] for name in (cfg.detector, cfg.segmenter, cfg.pointer)}  # less ":FOLDER"
    return judges + int(1e9 * sum(TEACHER_GB.get(name, 0) for name in names))


def encode(sizes):
    """All pictures of the batch go through the vision tower together. Its worst: it rotates q and k, or an MLP."""
    patches = 4 * sizes.seen * sizes.prompts  # of 14 x 14 pixels; 2 x 2 become one token
    pixels = 3 * 2 * 14 ** 2  # numbers of a patch: three colors, two frames
    hidden, mlp, width = sizes.vision.hidden_size, sizes.vision.intermediate_size, sizes.width
    rotating = (5 * width + 4 * FLOAT) * hidden  # q, k, v, two streams; and four tensors of rotation
    thinking = 3 * width * (hidden + mlp)
    given = pixels * FLOAT
    if width == 2:  # cast copies of q and k, to float32, and of the pixels
        rotating += 2 * FLOAT * hidden
        given += pixels * width
    return {"activations": patches * (given + max(rotating, thinking))}


def sampling(cfg, sizes, trained):
    """Prefill reads each prompt once; decode continues all rollouts of a batch, token by token."""
    prompts = max(1, min(sizes.prompts, cfg.sample_batch // sizes.group))  # in one batch
    rollouts = prompts * sizes.group
    given = prompts * sizes.prompt  # tokens; a group shares those of its prompt
    padding = prompts * sizes.prompt ** 2  # the mask: a byte for each two tokens
    prefill = {
        "cache": sizes.cache(given),
        "folded": sizes.folded(trained),
        "activations": sizes.embeds(prompts) + sizes.passing(given, adapted=True) + padding,
        "logits": prompts * sizes.vocab * LOGIT,  # only the last token's
    }
    # Attention: how well each key fits, three times in float32, and once as weights.
    fits = rollouts * sizes.heads * (sizes.prompt + sizes.new) * (3 * FLOAT + sizes.width)
    decode = {
        "cache": sizes.cache(given + rollouts * sizes.new),  # with room for all tokens to come
        "folded": sizes.folded(trained),
        "activations": sizes.embeds(prompts) + fits + sizes.unpacked,
        "logits": rollouts * sizes.vocab * (DRAWN + sizes.width),
    }
    return prefill, decode


def verify(sizes):
    """The judge reads a group at a time, then is asked for the tokens of its answers: whichever takes more."""
    tokens = sizes.packed(1, sizes.group)
    prompt = sizes.embeds(1)
    reading = {"activations": prompt + mask_bytes(sizes, sizes.group) + sizes.passing(tokens, adapted=False)}
    asking = {"activations": prompt + tokens * sizes.hidden * sizes.width,
              "logits": sizes.logits(sizes.group * sizes.new)}
    return max(reading, asking, key=lambda parts: sum(parts.values()))


def mask_bytes(sizes, rows):
    """Whom each token of so many completions sees, once for all layers.

    A byte each, and the number that attention adds to its scores; heads that share keys are further queries.
    """
    sharing = sizes.hidden // sizes.narrow
    return rows * (sizes.new - 1) * (sizes.prompt + sizes.new - 1) * (1 + sharing * sizes.width)


def update(cfg, sizes, trained):
    """Loss and backward pass of one micro-batch: a part of one group, or whole groups."""
    if cfg.micro_batch < sizes.group:
        prompts = 1
        rows = cfg.micro_batch
    else:
        prompts = min(sizes.prompts, cfg.micro_batch // sizes.group)
        rows = prompts * sizes.group
    tokens = sizes.packed(prompts, rows)
    streams = tokens * sizes.hidden * sizes.width  # what one layer hands to the next
    mask = mask_bytes(sizes, rows)
    folded = sizes.folded(trained)

    # What a layer keeps. Attention lays keys and values out in rows: prompts, and completions with their prompts.
    in_rows = prompts * sizes.prompt + rows * (sizes.prompt + sizes.new - 1)
    layer = tokens * sizes.per_layer(KEPT) + in_rows * 2 * sizes.narrow * sizes.width
    if sizes.width == 2:
        layer += tokens * 7 * cfg.lora_rank * sizes.width  # the narrow outputs of seven A matrices
    layer += folded // sizes.layers

    if cfg.checkpointing:  # kept is the stream between layers; the backward pass computes one layer again
        kept = sizes.layers * streams
        again = layer
    else:
        kept = sizes.layers * layer
        again = 0
    kept += sizes.embeds(prompts) + mask
    scored = rows * sizes.new
    ends = scored * sizes.hidden * sizes.width + tokens * sizes.hidden * FLOAT  # around the last norm
    loss = {
        "gradients": trained,
        "folded": folded if sizes.width == 2 and cfg.checkpointing else 0,  # else it is among what is kept
        "activations": kept + ends,
        "logits": sizes.logits(scored),
    }
    if is_grpo(cfg) and cfg.beta:  # the reference is scored while the policy's graph waits
        loss["activations"] += sizes.passing(tokens, adapted=False)
    backward = {
        "gradients": trained,
        "activations": kept + again + tokens * sizes.per_layer(MORE) + sizes.unpacked,
    }
    return loss, backward


def peak_gb(cfg, processes=1):
    """What the largest phase needs, the driver's allowance included: GB (10^9 bytes)."""
    return max(sum(parts.values()) for parts in phases(cfg, processes).values()) / 1e9 + CONTEXT_GB


# ---- 4. Before a run ---------------------------------------------------------------------------------------
def check_memory(cfg, accelerator):
    """Refuse, before anything is loaded, what cannot fit; --dry_run prints the ledger.

    The limit is --memory_gb, else what the GPU has free. Raises BadInput that names what to lower.
    """
    limit = cfg.memory_gb
    if not limit and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        limit = free / 1e9
    if not (cfg.dry_run or limit):
        return
    columns = phases(cfg, accelerator.num_processes)
    peak = peak_gb(cfg, accelerator.num_processes)
    if cfg.dry_run and accelerator.is_main_process:
        print_ledger(columns)
        there = f"; there are {limit:.1f} GB" if limit else ""
        print(f"peak {peak:.1f} GB, with {CONTEXT_GB:.0f} GB for the driver{there}")
    if limit and peak > limit:
        largest = max(columns, key=lambda name: sum(columns[name].values()))
        raise BadInput(f"this needs {peak:.1f} GB and there are {limit:.1f}: {cure(cfg, largest)}")


def print_ledger(columns):
    """The table above: a column per phase, a line per part, in GB."""
    parts = []
    for column in columns.values():
        parts += [part for part in column if part not in parts]
    print(f"{'GB':15}" + "".join(f"{name:>9}" for name in columns))
    for part in parts:
        print(f"{part:15}" + "".join(f"{column.get(part, 0) / 1e9:9.2f}" for column in columns.values()))
    print(f"{'sum':15}" + "".join(f"{sum(column.values()) / 1e9:9.2f}" for column in columns.values()))


def cure(cfg, phase):
    """What makes the largest phase smaller, in one line. The table says how much is to be gained."""
    flags = [f"--{name} (now {getattr(cfg, name)})" for name in flags_that_lower(cfg, phase)]
    switches = []
    if cfg.dtype != "nf4" and cfg.lora_rank:
        switches.append("--dtype nf4")
    if phase in ("loss", "backward") and not cfg.checkpointing:
        switches.append("--checkpointing True")
    if switches:
        return f"{phase} is the largest phase; add {' '.join(switches)}, or lower {', '.join(flags)}"
    return f"{phase} is the largest phase; lower {', '.join(flags)}, or take a larger card"


def flags_that_lower(cfg, phase):
    """Names of the flags that a phase grows with, the harmless first: batches cost time, not results."""
    picture, clip = vision_tokens(cfg)
    if picture >= clip or cfg.max_frames * cfg.image_pixels <= cfg.video_pixels:
        pixels = "image_pixels"
    else:
        pixels = "video_pixels"
    if phase == "encode":
        names = ["prompts" if is_grpo(cfg) else "micro_batch", pixels]
    elif phase == "prefill":
        names = ["sample_batch", pixels]
    elif phase == "decode":
        names = ["sample_batch", "max_new_tokens", pixels]
    elif phase == "verify":
        names = ["max_new_tokens", pixels]
    else:
        names = ["micro_batch", "max_new_tokens", pixels]
    at_their_least = {"micro_batch": 1, "sample_batch": getattr(cfg, "group_size", 1), "prompts": 1}
    return [name for name in names if getattr(cfg, name) > at_their_least.get(name, 0)]
