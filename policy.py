"""The policy: a Qwen2.5-VL that reads pictures, writes rollouts, and says how likely any text is. Tiny or 7B.

A rollout is one sampled reply; a completion is the same thing as tokens: what follows a prompt. Everything in
this project that asks the model does so through these calls, in reading order:

    encode_prompts    pictures, clips and text -> embeddings with positions; the vision tower runs here
    sample            draw G rollouts per prompt, one token at a time
    token_logprobs    log p of given tokens, with gradient: what SFT and GRPO train on
    answer_logprobs   log p of an answer after a given reasoning: paper eq. 5
    choose            yes or no, as a probability: how a judge decides

What the paper does: it trains Qwen2.5-VL-7B with GRPO inside EasyR1, where one engine (vLLM) samples and the
trainer scores. What we do: one model does both, so a rollout is scored with the probabilities it was drawn
with, to rounding. After the vision tower the language model gets three things and nothing else: embeddings,
positions, a mask. (The library otherwise remembers positions between calls, in `model.rope_deltas`. A stale
value there changes the logits and raises no error; here nothing reads it.)

Sampling and scoring stand here in a plain way, which is to be understood first: LibraryRoom and _read_rows. The
way that runs by default, Room and _read_packed, is in runs/fast.py: the same numbers, on a CPU 1.4 to 4 times as
fast (runs/README.md).

What is simplified: only LoRA on the language layers is trained by default, the vision tower never; no paged
cache, no speculative decoding; rows that have ended just leave the batch.

See it:  python tests/benchmark_fast.py          # sampling and scoring, plain and fast, beside generate()
Before:  verifier/coordinates.py (Media: what the policy sees, and in which pixels)
Next:    train_sft.py, train_grpo.py (how it learns), runs/README.md (where its time goes)
"""
import copy
import ctypes
import hashlib
import math
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import torch
from peft import (LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict,
                  load_peft_weights, set_peft_model_state_dict)
from safetensors import SafetensorError
from torch.utils.checkpoint import checkpoint
from transformers import (AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig,
                          DynamicCache)
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from runs.checkpoints import (NO_CODE, add_older_names, budget_of, check_finite, check_fit, load_weights,
                              read_budget, save_budget)
from runs.errors import BadInput, first_line, out_of_memory
from runs.fast import Packed, Room, arithmetic, captured, folded_once, has_graphs, use_fast_paths
from runs.settings import LORA_TARGETS
from verifier.prompts import PROMPTS, prompt  # noqa: F401  (scripts and teachers say policy.prompt)
from verifier.texts import well_formed

logging.disable_progress_bar()  # a bar per loaded folder tells a reader nothing

# ---- 1. Loading --------------------------------------------------------------------------------------------
# LoRA trains two thin matrices A and B beside each big one, W + (alpha / rank) B A, and leaves W as it is:
# few weights to train, and with the adapter off the model is the base again. QLoRA also stores W in NF4: 4
# bits per weight, whose 16 values are the quantiles of a normal distribution (arXiv:2305.14314); each layer
# is unpacked to bfloat16 while it is used.
@dataclass
class Policy:
    """A model with its processor (tokenizer, chat template, and what cuts pictures into patches)."""
    model: torch.nn.Module  # call this one: it may be wrapped by LoRA and by DistributedDataParallel
    processor: object
    device: torch.device
    preset: str             # a key of PROMPTS; "tiny" also has its own rule in rope_positions
    path: str = ""          # where the base was loaded from
    budget: dict | None = None  # the pixels it was trained with, where that is known (runs/checkpoints.py)
    fast: bool = True       # sample and score by runs/fast.py, or plainly

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    @property
    def unwrapped(self):
        """The model without DistributedDataParallel: a PeftModel, or the plain one without an adapter."""
        return getattr(self.model, "module", self.model)

    @property
    def core(self):
        """The library's own model: vision tower, embedding table, config."""
        if isinstance(self.unwrapped, PeftModel):
            return self.unwrapped.get_base_model()
        return self.unwrapped

    @cached_property
    def ban(self):
        """(V,) added to all logits: -inf for every special token but the end, and for ids that spell nothing.

        Without it a hot policy samples image tokens, and the next forward pass looks for their pictures.
        """
        special = [i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special]
        ban = torch.zeros(self.core.config.text_config.vocab_size, device=self.device)
        ban[len(self.tokenizer):] = -torch.inf  # the table has more rows than the tokenizer has tokens
        ban[special] = -torch.inf
        ban[self.tokenizer.eos_token_id] = 0
        return ban


def load_policy(path, lora_rank=0, lora_alpha=None, adapter=None, dtype="float32", device=None, preset=None,
                checkpointing=False, fast=True):
    """Load a Qwen2.5-VL with a fresh LoRA adapter, a saved one, or none. -> Policy.

    path: a model folder or a Hugging Face name
    lora_rank: size of a fresh adapter; 0: none
    lora_alpha: its strength, 2 * rank unless given (our choice)
    adapter: a folder written by save_policy, instead of a fresh adapter; it stays trainable
    dtype: "float32", "bfloat16", or "nf4" (QLoRA, needs bitsandbytes); the adapter is float32 in all three
    device: the GPU if there is one, unless given
    preset: "tiny" or "7b"; by the model's width unless given
    checkpointing: recompute the layers in the backward pass instead of keeping their activations
    fast: False samples and scores the plain way, without runs/fast.py: slower, the same numbers

    Raises BadInput for whatever cannot be loaded.
    """
    if dtype not in ("float32", "bfloat16", "nf4"):
        raise BadInput(f"dtype {dtype!r}: give float32, bfloat16 or nf4")
    # A mistyped folder must not become a slow question to the hub: where its parent exists, it is local.
    looks_local = Path(path).exists() or Path(path).parent.is_dir()
    if looks_local and not Path(path, "config.json").is_file():
        raise BadInput(f"{path}: no model here (config.json is missing); "
                       "give a model folder or a Hugging Face name")
    if adapter and not Path(adapter, "adapter_config.json").is_file():
        raise BadInput(f"{adapter}: no adapter here (adapter_config.json is missing); "
                       "give a folder written by save_policy")
    device = torch.device(device or default_device())
    if device.type == "cpu":
        keep_big_buffers()

    try:
        kind = AutoConfig.from_pretrained(path, **NO_CODE).model_type
        if kind != "qwen2_5_vl":
            raise ValueError(f"the model type is {kind}, and only qwen2_5_vl is read here")
        processor = AutoProcessor.from_pretrained(path, **NO_CODE)
        processor.apply_chat_template([{"role": "user", "content": []}])  # tried here: not all folders have one
        if dtype == "nf4":
            model = load_weights(AutoModelForImageTextToText, path, dtype=torch.bfloat16, **NO_CODE,
                                 device_map={"": device}, quantization_config=nf4_config())
        else:
            model = load_weights(AutoModelForImageTextToText, path, dtype=getattr(torch, dtype), **NO_CODE)
        model = model.to(device)
        model.model.visual.patch_embed.proj.__class__ = PatchesAsRows  # same weight, same name
        model.model.visual.requires_grad_(False)
        for layer in model.modules():
            # NF4 on a CPU: bitsandbytes would repack the weights at the first sampled token, for good, and
            # the next backward pass would fail.
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        if adapter:
            model = _with_adapter(model, adapter)
        elif lora_rank:
            model = get_peft_model(model, LoraConfig(r=lora_rank, lora_alpha=lora_alpha or 2 * lora_rank,
                                                     target_modules=LORA_TARGETS))
    except BadInput:
        raise
    except Exception as error:  # many kinds, from a truncated file to an adapter for no layer of this model
        if out_of_memory(error):
            raise
        raise BadInput(f"{adapter or path}: cannot be loaded: {first_line(error)}") from error

    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    # The library checkpoints in train() only; as there is no dropout, nothing else differs in that mode.
    model.train(checkpointing)
    # Left padding: short prompts get their empty columns in front, so that every prompt ends in the last
    # column, where its first token is sampled.
    processor.tokenizer.padding_side = "left"
    processor.video_processor.cap_pixels_per_frame = False  # frames come in their final size, see load_media
    if not preset:
        preset = "tiny" if model.config.text_config.hidden_size < 512 else "7b"
    budget = read_budget(path)
    if adapter:
        budget = read_budget(adapter) or budget
    policy = Policy(model, processor, device, preset, str(path), budget, fast)
    if fast:
        use_fast_paths(model)
    return policy


class PatchesAsRows(torch.nn.Conv3d):
    """The vision tower's first layer as what it is: one matrix product, since no two patches overlap.

    torch's general 3-D convolution takes 3 to 4 times as long for it (one CPU core, 4,096 patches to 256 numbers:
    127 ms, here 27). The library has the same as from_pretrained(..., fusion_config={"patch_embeddings": True}),
    which does not do here (5.17): it changes the class for the whole process, so that a second load raises
    ValueError; the folder's weight is reported as unexpected and random numbers take its place; and
    save_pretrained writes a name that no other program reads.
    """

    def forward(self, patches):
        """patches: (N, 3, 2, 14, 14) colors, frames, rows, columns. -> (N, D)"""
        rows = patches.flatten(1)  # (N, 1176)
        return torch.nn.functional.linear(rows, self.weight.flatten(1), self.bias)


def _with_adapter(model, folder):
    """The model with a saved adapter, trainable. Raises BadInput where their weights do not fit each other."""
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = False
    model = PeftModel(model, config)
    saved = load_peft_weights(folder, device="cpu")
    own = get_peft_model_state_dict(model, save_embedding_layers=False)  # as names in a file
    shapes = {}
    for name in own.keys() & saved.keys():
        if own[name].shape != saved[name].shape:
            shapes[name] = saved[name].shape, own[name].shape
    check_fit(folder, own.keys() - saved.keys(), saved.keys() - own.keys(), shapes)
    check_finite(folder, saved)
    set_peft_model_state_dict(model, saved)
    return model


def default_device():
    """This process's GPU, or the CPU."""
    if torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "cpu"


def keep_big_buffers():
    """Let glibc keep the memory of large tensors. Linux only.

    By default it gives each one back to the kernel and asks for it again, zeroed, at the next token: a third of
    the time of sampling while the cache was copied at every token, little since (runs/README.md).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-3, 1 << 30)        # M_MMAP_THRESHOLD
            libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def nf4_config():
    """How QLoRA stores the base. The vision tower and the output layer stay in bfloat16.

    We do without peft's prepare_model_for_kbit_training: it makes float32 of all that is not 4-bit (3.5 GB
    more for the 7B) and moves the base's logits by .004; the rest of what it does, freezing and
    checkpointing, load_policy does.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,  # the scales of the blocks are quantized in turn
        llm_int8_skip_modules=["model.visual", "lm_head"])  # "visual" alone does not skip the tower


@contextmanager
def adapter_off(policy):
    """Inside, the policy is its frozen base, bit for bit; without an adapter nothing changes.

    This is how one model is the policy, the reference of the KL and the judge. Never carry a cache in or out.
    """
    if isinstance(policy.unwrapped, PeftModel):
        with policy.unwrapped.disable_adapter():
            yield policy
    else:
        yield policy


@contextmanager
def evaluating(policy):
    """eval() inside, then the old mode: in train() with checkpointing the library quietly drops the cache."""
    training = policy.model.training
    policy.model.eval()
    try:
        yield policy
    finally:
        policy.model.train(training)


def trainable(policy):
    """{name: parameter} of what training changes: the adapter, or without one all but the vision tower."""
    return {name: p for name, p in policy.unwrapped.named_parameters() if p.requires_grad}


# ---- 2. Encoding: pictures, clips and text become embeddings with positions --------------------------------
@dataclass
class Prompts:
    """B encoded prompts of at most P tokens, padded on the left. The vision tower has already run."""
    embeds: torch.Tensor        # (B, P, D) text and vision embeddings, constants
    position_ids: torch.Tensor  # (3, B, P) time, height, width
    mask: torch.Tensor          # (B, P) 1 where there is a token, 0 at padding
    input_ids: torch.Tensor     # (B, P)

    def __len__(self):
        return len(self.mask)

    def lengths(self):
        """Tokens of every prompt: (B,)."""
        return self.mask.sum(1)

    def select(self, rows):
        """These rows (a list or LongTensor; repeats allowed), without padding that none of them needs."""
        rows = torch.as_tensor(rows, device=self.mask.device)
        first_token = self.mask[rows].argmax(1)  # (rows,) the column where each prompt starts
        used = slice(int(first_token.min()), None)
        return Prompts(self.embeds[rows, used], self.position_ids[:, rows, used],
                       self.mask[rows, used], self.input_ids[rows, used])


MAX_PROMPT = 200_000  # characters: some 50,000 tokens, more than the 32,768 that Qwen2.5-VL was trained with


@torch.no_grad()
def encode_prompts(policy, items):
    """Encode a batch of questions about pictures and clips, mixed freely. -> Prompts.

    items: [(media, text), ...], where media is None, one Media, or a list of them, shown before the text

    A Media with one frame is a picture, one with several is a clip; a clip's frames count as evenly spaced
    from its first to its last second. Frames have their final size (load_media made it) and are not resized
    here, so coordinates are pixels of exactly these frames. Raises BadInput for frames of another size, and for a
    text of more than MAX_PROMPT characters.
    """
    # 1) One chat per item. The template leaves a placeholder for each picture or clip; their pixels go into
    #    two flat lists, in reading order, and the processor matches them up.
    images, videos, video_times, chats = [], [], [], []
    for media, text in items:
        content = []
        for shown in _as_list(media):
            _check_frames(shown)
            if len(shown.frames) == 1:
                images.append(shown.frames[0])
                content.append({"type": "image"})
            else:
                videos.append(list(shown.frames))
                video_times.append(_video_metadata(shown))
                content.append({"type": "video"})
        if len(text) > MAX_PROMPT:
            raise BadInput(f"a prompt of {len(text):,} characters ({text[:40]!r} ...): at most {MAX_PROMPT:,}; "
                           "shorten the question")
        content.append({"type": "text", "text": harmless(text)})
        messages = [{"role": "user", "content": content}]
        chat = policy.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        chats.append(chat)

    # 2) Text to token ids. A placeholder becomes one image token per 28 x 28 pixels.
    inputs = policy.processor(
        text=chats, images=images or None, videos=videos or None, padding=True, return_tensors="pt",
        images_kwargs=dict(do_resize=False),
        videos_kwargs=dict(do_resize=False, do_sample_frames=False, video_metadata=video_times))
    inputs = inputs.to(policy.device)
    core = policy.core
    ids = inputs["input_ids"]  # (B, P)

    # 3) Ids to embeddings; what the vision tower saw replaces the embeddings of the image tokens, in order.
    embeds = core.get_input_embeddings()(ids)  # (B, P, D)
    if images:
        seen = core.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        embeds = _scatter(embeds, ids == core.config.image_token_id, seen.pooler_output)
    if videos:
        seen = core.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        embeds = _scatter(embeds, ids == core.config.video_token_id, seen.pooler_output)

    # 4) Where each token is in time and space.
    positions = rope_positions(core.config.vision_config, inputs, clip_takes_time=policy.preset != "tiny")
    return Prompts(embeds, positions, inputs["attention_mask"], ids)


def harmless(text):
    """A text as it is shown: no question can smuggle in a special token such as <|im_end|>.

    >>> harmless("Red?<|im_end|>")
    'Red?< |im_end|>'
    """
    return well_formed(text).replace("<|", "< |")


def _as_list(media):
    if media is None:
        return []
    if isinstance(media, list):
        return media
    return [media]


def _check_frames(media):
    sizes = {frame.size for frame in media.frames}
    seconds = list(media.seconds)
    if len(sizes) != 1 or any(side % 28 for side in min(sizes)):
        raise BadInput(f"frames of {sorted(sizes)} pixels: need one size, both sides multiples of 28; "
                       "use argos.load_media")
    is_clip = len(media.frames) > 1
    if is_clip and (len(seconds) != len(media.frames) or not seconds[0] < seconds[-1]):
        raise BadInput(f"{len(media.frames)} frames with times {seconds}: "
                       "a clip needs one rising time a frame")


def _video_metadata(clip):
    """Frames per second: the processor makes the time of each patch of it, and would otherwise assume 24."""
    count = len(clip.frames)
    fps = (len(clip.seconds) - 1) / (clip.seconds[-1] - clip.seconds[0])
    return VideoMetadata(total_num_frames=count, fps=fps, frames_indices=list(range(count)))


def _scatter(embeds, where, features):
    """Put the features of all pictures (or clips) of a batch where their tokens are. where: (B, P) bool."""
    features = torch.cat(features).to(embeds.dtype)  # (tokens of all pictures, D)
    return embeds.masked_scatter(where[..., None], features)  # (B, P, D)


TEXT, PICTURE, CLIP = 0, 1, 2  # the processor's kinds of token (mm_token_type_ids)


def rope_positions(vision, inputs, clip_takes_time):
    """Time, height and width of every token, which attention turns into rotations (M-RoPE). -> (3, B, P).

    vision: the model's vision config; inputs: what the processor returned

    Text counts 1, 2, 3 on all three axes. A picture or clip spreads over time, height and width from where
    the text stopped, and time runs at tokens_per_second (Qwen2.5-VL report, arXiv:2502.13923, section 2.1).
    For example "see" <2 x 2 patches> "how": times 0, 1 1 1 1, 3; heights 0, 1 1 2 2, 3; widths 0, 1 2 1 2, 3.

    clip_takes_time: where the text after a clip goes on (after a picture the two are the same)
      True: after the largest position so far; Qwen2.5-VL was trained so (its own code; transformers <= 5.2)
      False: after the larger side of the frame, however long the clip; transformers 5.3 and later do so (5.17
      was checked), and the shipped tiny models were trained so

    Written out here because the library's rule moved, and because 5.17 truncates a clip's seconds per patch
    to an integer: above 2 frames a second all patches share one time (fixed upstream in PR 48669).
    """
    mask = inputs["attention_mask"].bool().cpu()  # (B, P)
    kinds = inputs["mm_token_type_ids"].cpu()     # (B, P)
    # Sizes of all pictures and clips of the batch, in reading order: (t, h, w) in patches of 14 x 14 pixels.
    grids = {PICTURE: _rows(inputs, "image_grid_thw"), CLIP: _rows(inputs, "video_grid_thw")}
    seconds_per_patch = _rows(inputs, "second_per_grid_ts")

    positions = torch.zeros(3, *mask.shape, dtype=torch.long)  # padding keeps 0; the mask hides it
    for row in range(len(mask)):
        start = 0  # the next free position
        spans = []
        for kind, run in groupby(kinds[row][mask[row]].tolist()):
            if kind == TEXT:
                length = len(list(run))
                spans.append(torch.arange(start, start + length).expand(3, -1))  # (3, length)
                start += length
                continue
            t, h, w = next(grids[kind])
            h //= vision.spatial_merge_size  # the tower merges 2 x 2 patches into one token
            w //= vision.spatial_merge_size
            step = 0
            if kind == CLIP:
                step = float(next(seconds_per_patch)) * vision.tokens_per_second
            time = (torch.arange(t) * step + 1e-4).long()  # 1e-4: 5 * 0.2 must not become 0
            grid = torch.meshgrid(time, torch.arange(h), torch.arange(w), indexing="ij")
            span = torch.stack(grid).flatten(1) + start  # (3, t * h * w)
            spans.append(span)
            if clip_takes_time:
                start = int(span.max()) + 1
            else:
                start += max(h, w)
        positions[:, row, mask[row]] = torch.cat(spans, 1)
    return positions.to(inputs["input_ids"].device)


def _rows(inputs, name):
    """An iterator over a tensor or list of the processor's; empty where no item has such media."""
    values = inputs.get(name, [])
    if isinstance(values, torch.Tensor):
        values = values.tolist()
    return iter(values)


# ---- 3. Sampling -------------------------------------------------------------------------------------------
@dataclass
class Rollouts:
    """G rollouts for each of B prompts: row b * G + g is rollout g of prompt b. Padded on the right to T."""
    ids: torch.Tensor       # (B*G, T)
    mask: torch.Tensor      # (B*G, T) 1 for sampled tokens, the end token included
    logprobs: torch.Tensor  # (B*G, T) log p of each token when it was drawn; 0 at padding
    texts: list             # B*G strings without special tokens
    finished: torch.Tensor  # (B*G,) bool: ended by itself, not cut at max_new_tokens


def sample(policy, prompts, group_size, temperature=1.0, top_p=1.0, max_new_tokens=128, generator=None,
           greedy=False, batch_size=1 << 30):
    """Draw `group_size` rollouts of every prompt. -> Rollouts with T <= max_new_tokens.

    temperature: > 0; logits are divided by it
    top_p: draw only from the likeliest tokens that together hold this much probability; 1 for training
    generator: a torch.Generator on the policy's device; the same seed gives the same rollouts
    greedy: take the likeliest token instead of drawing
    batch_size: rollouts drawn at once (at least one group): their KV cache must fit into memory

    logprobs are those of token_logprobs: temperature and ban applied; top_p only narrows what is drawn.
    Raises BadInput for a temperature that is no number above 0, ValueError where the model gives no numbers.
    """
    if not (greedy or 0 < temperature < math.inf):
        raise BadInput(f"--temperature {temperature}: must be a number above 0")
    pad = policy.tokenizer.pad_token_id
    end = policy.tokenizer.eos_token_id
    ids = torch.full((len(prompts) * group_size, max_new_tokens), pad, device=policy.device)  # (B*G, T)
    mask = torch.zeros_like(ids)
    logprobs = torch.zeros(ids.shape, device=policy.device)
    for batch in _batches_of_like_length(prompts.lengths().tolist(), max(1, batch_size // group_size)):
        first_row = torch.tensor(batch)[:, None] * group_size  # (b, 1)
        rows = (first_row + torch.arange(group_size)).flatten().to(policy.device)  # (b*G,)
        ids[rows], mask[rows], logprobs[rows] = _sample(
            policy, prompts.select(batch), group_size, temperature, top_p, max_new_tokens, generator, greedy)

    if not logprobs.isfinite().all():  # weights that are not finite, or an overflow
        raise ValueError("the model's logits are not finite")
    longest = int(mask.sum(1).max())
    ids = ids[:, :longest]
    texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return Rollouts(ids, mask[:, :longest], logprobs[:, :longest], texts, finished=(ids == end).any(1))


def _batches_of_like_length(lengths, size):
    """Split prompts into batches of at most `size`, shortest first: no picture pays for a clip's padding.

    In a batch the longest prompt has at most 1.5 times the tokens of the shortest (our choice).
    Example: _batches_of_like_length([100, 10, 12, 11], size=2) == [[1, 3], [2], [0]]
    """
    batches = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and len(batches[-1]) < size and lengths[i] <= 1.5 * lengths[batches[-1][0]]:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


# By graph or none: ends are looked for every so many tokens; rows leave when at most this share of them stays.
WHEN_TO_LEAVE = {True: (16, .5), False: (1, .8)}


@torch.no_grad()
def _sample(policy, prompts, group_size, temperature, top_p, max_new_tokens, generator, greedy):
    """One batch of `sample`. -> ids, mask, logprobs: each (N, T), N = B * G rollouts, T = max_new_tokens."""
    end = policy.tokenizer.eos_token_id
    pad = policy.tokenizer.pad_token_id
    prompt_of = torch.arange(len(prompts), device=policy.device).repeat_interleave(group_size)  # (N,)
    ids = torch.full((len(prompt_of), max_new_tokens), pad, device=policy.device)
    logprobs = torch.zeros(ids.shape, device=policy.device)
    graph = policy.fast and has_graphs(policy.device)
    look_every, stay = WHEN_TO_LEAVE[graph]  # see 4)

    with evaluating(policy), arithmetic(policy), folded_once(policy.model):
        # 1) Prefill: read the prompts once. We get the logits (scores before softmax) of the first new token,
        #    and the KV cache: the keys and values of the prompt's tokens, which all later tokens attend to.
        first_logits, cache = _prefill(policy, prompts)  # (B, V)

        # 2) One row per rollout, with room for the tokens to come.
        if policy.fast:
            room = Room(cache, prompts, prompt_of, max_new_tokens, fixed=graph)
        else:
            room = LibraryRoom(cache, prompts, prompt_of)
        logits = first_logits[prompt_of]  # (N, V)
        active = torch.arange(len(prompt_of), device=policy.device)  # (n,) rollouts that still grow
        ended = torch.zeros(len(active), dtype=torch.bool, device=policy.device)  # (n,)
        read = None

        for t in range(max_new_tokens):
            # 3) Draw one token for each, and note how likely it was.
            logp = _log_softmax(policy, logits, temperature)  # (n, V)
            token = logp.argmax(-1) if greedy else _draw(logp, top_p, generator)  # (n,)
            ids[active, t] = token
            logprobs[active, t] = logp.gather(1, token[:, None])[:, 0]
            ended |= token == end

            # 4) Rows that drew the end token leave, so late steps are cheap. But leaving copies the others: a
            #    fifth goes at a time; on a GPU half, as the graph has to be captured anew (our choice). And to
            #    look for ends is to wait for the GPU: there it is done every 16 tokens.
            if t == max_new_tokens - 1:
                break
            if t % look_every == 0:
                going = (~ended).nonzero()[:, 0]
                if len(going) == 0:
                    break
                if len(going) <= stay * len(active):
                    active = active[going]
                    ended = ended[going]
                    token = token[going]
                    room.keep(going)
                    read = None  # it was made for the rows before

            # 5) Read the new tokens.
            room.add(token)
            if read is None:
                read = _reader(policy, room, graph)
            logits = read()  # (n, V)

    is_end = (ids == end).long()  # (N, T)
    ends_before = is_end.cumsum(1) - is_end  # how many end tokens stand to the left of each column
    used = (ends_before == 0).long()  # 1 up to the first end token, which counts as sampled
    return ids.masked_fill(used == 0, pad), used, logprobs.masked_fill(used == 0, 0)


def _prefill(policy, prompts):
    """Read the prompts. -> logits of the token that follows each, (B, V), and the KV cache."""
    cache = DynamicCache(config=policy.core.config.text_config)
    out = policy.core.model.language_model(inputs_embeds=prompts.embeds, position_ids=prompts.position_ids,
                                           attention_mask=prompts.mask, past_key_values=cache, use_cache=True)
    return policy.core.lm_head(out.last_hidden_state[:, -1]), cache


class LibraryRoom:
    """The plain way to do what Room does: the library's cache, a copy of the prompt in every row.

    cache: keys and values of the B prompts, each read once. prompt_of: (n,) which prompt each rollout follows

    What the model is given with the next token of each rollout, and where it stands:
    self.cache      row i holds the keys and values of rollout i's prompt, then of its tokens
    self.mask       (n, P + tokens) 1 where there is a token, 0 at the padding on the left of a prompt
    self.position   (3, n, 1) of the last token; a prompt's are prompts.position_ids, (3, B, P)
    self.token      (n, 1) that token; None before the first
    """

    def __init__(self, cache, prompts, prompt_of):
        # BEGIN SOLUTION ex9
        cache.batch_select_indices(prompt_of)
        self.cache = cache
        self.mask = prompts.mask[prompt_of]  # (n, P)
        self.position = prompts.position_ids[:, prompt_of, -1:]  # (3, n, 1)
        self.token = None
        # END SOLUTION

    def add(self, token):
        """One more token of every rollout, (n,): written down here; the model is yet to read it."""
        # BEGIN SOLUTION ex9
        self.token = token[:, None]  # (n, 1)
        self.position = self.position + 1
        self.mask = torch.cat([self.mask, torch.ones_like(self.token)], 1)
        # END SOLUTION

    def keep(self, rows):
        """Only these rollouts, (m,), grow on."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]
        self.position = self.position[:, rows]

    def inputs(self):
        return dict(past_key_values=self.cache, attention_mask=self.mask)


def _reader(policy, room, graph):
    """-> a function that has the model read the token that was just added to each row: logits (n, V).

    Good for these rows only: after room.keep, make another. graph: as a CUDA graph
    """
    def read():
        embeds = policy.core.get_input_embeddings()(room.token)  # (n, 1, D)
        out = policy.core.model.language_model(inputs_embeds=embeds, position_ids=room.position,
                                               use_cache=True, **room.inputs())
        return policy.core.lm_head(out.last_hidden_state[:, -1])

    return captured(read, policy.device) if graph else read


def _log_softmax(policy, logits, temperature):
    """The one distribution of this project: ban, then temperature, in float32. logits: (..., V)."""
    return torch.log_softmax((logits.float() + policy.ban) / temperature, -1)


def _draw(logp, top_p, generator):
    """One token per row of logp (n, V), from the smallest set of likely tokens that holds top_p. -> (n,)."""
    p = logp.exp()
    if top_p < 1:
        sorted_p, order = p.sort(descending=True)
        likelier = sorted_p.cumsum(-1) - sorted_p  # (n, V) the mass of everything likelier than this token
        kept = sorted_p.masked_fill(likelier >= top_p, 0)
        p = torch.zeros_like(p).scatter(1, order, kept)
    # A dart at a line on which each token has length p. The same as torch.multinomial, which takes longer, and
    # would have a GPU wait while it checks that these are probabilities. In float64: none lands beyond the end.
    ends = p.double().cumsum(-1)  # (n, V)
    dart = torch.rand(len(p), 1, dtype=torch.double, device=p.device, generator=generator) * ends[:, -1:]
    return torch.searchsorted(ends, dart, right=True)[:, 0].clamp(max=p.shape[1] - 1)  # (n,)


# ---- 4. Scoring --------------------------------------------------------------------------------------------
# Teacher forcing: the model reads a finished completion all at once, and each position predicts the token
# that follows. That gives the log-probability of every token in one forward pass, where sampling takes one
# pass per token.
def token_logprobs(policy, prompts, group_size, ids, mask, temperature=1.0, wanted=None):
    """Log p of every given token, and the entropy of its distribution. -> two (B*G, T), 0 at padding.

    ids, mask: (B*G, T), padded on the right; row b * G + g follows prompt b
    wanted: (B*G, T) 1 for the tokens that are asked for; the others are read, and get 0. All, unless given

    A banned token has -inf. The first result has a gradient, to the adapter; the second is a diagnostic
    without one. Without an adapter the prompt's embeddings are constants.
    """
    mask = mask.bool()
    scored = mask if wanted is None else wanted.bool()  # (N, T)
    with arithmetic(policy):
        hidden = _read(policy, prompts, group_size, ids, mask, scored)  # (M, D), M: how many are scored
        taken, entropy = _token_scores(policy, hidden, ids[scored], temperature)  # (M,) each
    zeros = torch.zeros(ids.shape, device=ids.device)
    return zeros.masked_scatter(scored, taken), zeros.masked_scatter(scored, entropy)


def _read(policy, prompts, group_size, ids, mask, scored):
    """What predicts each scored token, in the order of the rows: the last layer's output. -> (M, D)"""
    read = _read_packed if policy.fast else _read_rows
    return read(policy, prompts, group_size, ids, mask, scored)


def _read_rows(policy, prompts, group_size, ids, mask, scored):
    """The plain way: every row reads its own copy of the prompt, with padding."""
    prompt_of = torch.arange(len(prompts), device=ids.device).repeat_interleave(group_size)  # (N,)
    given = ids[:, :-1]  # (N, T-1): the last token predicts nothing that we ask for, so it is not read
    steps = torch.arange(1, ids.shape[1], device=ids.device)
    positions = prompts.position_ids[:, prompt_of, -1:] + steps  # (3, N, T-1)
    given_embeds = policy.core.get_input_embeddings()(given)  # (N, T-1, D)
    embeds = torch.cat([prompts.embeds[prompt_of], given_embeds], 1)  # (N, P+T-1, D)
    positions = torch.cat([prompts.position_ids[:, prompt_of], positions], 2)  # (3, N, P+T-1)
    mask = torch.cat([prompts.mask[prompt_of], mask[:, 1:].long()], 1)  # (N, P+T-1)
    out = policy.core.model.language_model(inputs_embeds=embeds, position_ids=positions, attention_mask=mask,
                                           use_cache=False)
    predicting = out.last_hidden_state[:, -ids.shape[1]:]  # (N, T, D)
    return predicting[scored]


def _read_packed(policy, prompts, group_size, ids, mask, scored):
    """The fast way: all tokens in one row, each prompt once, no padding (runs/fast.py)."""
    packed = Packed(prompts, group_size, mask)
    given = ids[:, :-1][packed.given]  # (C,) the completions' tokens, one after the other
    given_embeds = policy.core.get_input_embeddings()(given)  # (C, D)
    embeds = torch.cat([prompts.embeds[packed.in_prompt], given_embeds])  # (S, D)
    out = policy.core.model.language_model(inputs_embeds=embeds[None], position_ids=packed.positions[:, None],
                                           attention_mask={"full_attention": packed}, use_cache=False)
    # A prompt's last token predicts the first of all its completions. index_select, as its gradient adds up in
    # one order; that of [...] does not on several threads, and a resumed run would not be bit-equal.
    return out.last_hidden_state[0].index_select(0, packed.predicting[scored])


CHUNK = 1 << 22  # logits at a time, but at least 256 tokens' (our choice)


def _token_scores(policy, hidden, tokens, temperature):
    """log p and entropy of tokens (M,), each predicted by a row of hidden (M, D). -> two (M,)

    The logits of all, (M, V), would be the largest tensor of a step: 26 GB for 56 rollouts of 768 tokens of the
    7B. So they are made in chunks, and for the gradient made again in the backward pass instead of kept.
    """
    def score(hidden, tokens):
        logp = _log_softmax(policy, policy.core.lm_head(hidden), temperature)  # (m, V)
        taken = logp.gather(1, tokens[:, None])[:, 0]  # (m,)
        with torch.no_grad():
            entropy = torch.special.entr(logp.exp()).sum(-1)  # (m,)
        return taken, entropy

    size = max(256, CHUNK // len(policy.ban))
    parts = []
    for some, some_tokens in zip(hidden.split(size), tokens.split(size)):
        if torch.is_grad_enabled():
            parts.append(checkpoint(score, some, some_tokens, use_reentrant=False))
        else:
            parts.append(score(some, some_tokens))
    taken, entropy = zip(*parts)
    return torch.cat(taken), torch.cat(entropy)


def encode_completions(policy, texts, end=True):
    """Texts -> ids, mask: (N, T), padded on the right. No text can spell a special token.

    end: put the end token after each text
    """
    rows = token_lists(policy, texts)
    if end:
        rows = [row + [policy.tokenizer.eos_token_id] for row in rows]
    ids = _pad_right(policy, rows, policy.tokenizer.pad_token_id)
    mask = _pad_right(policy, [[1] * len(row) for row in rows])
    return ids, mask


def token_lists(policy, texts):
    """Texts, whatever they hold -> lists of token ids, without an end. No text can spell a special token."""
    texts = [well_formed(text) for text in texts]
    return policy.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _pad_right(policy, rows, value=0):
    """Lists of integers of several lengths -> one (N, T)."""
    rows = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
    return padded.to(policy.device)


# ---- 5. What judges ask ------------------------------------------------------------------------------------
@torch.no_grad()
def answer_logprobs(policy, prompts, answers, prefixes=None):
    """Log p(answer | prompt, prefix), and over how many tokens it was summed. -> (N,), (N,). Paper eq. 5.

    answers, prefixes: N = B * G strings, G for each prompt; a prefix (the reasoning) is given, not scored

    An answer without tokens gets -inf: nothing said is not something likely.
    """
    if not prefixes:
        prefixes = [""] * len(answers)
    prefix_rows = token_lists(policy, prefixes)
    answer_rows = token_lists(policy, answers)
    rows, marks = [], []  # the tokens of each row, and 1 where they belong to the answer
    for prefix, answer in zip(prefix_rows, answer_rows):
        rows.append(prefix + answer)
        marks.append([0] * len(prefix) + [1] * len(answer))
    is_answer = _pad_right(policy, marks)  # (N, T)
    counts = is_answer.sum(1)  # (N,)
    if not counts.any():
        return torch.full((len(answers),), -torch.inf, device=policy.device), counts

    ids = _pad_right(policy, rows, policy.tokenizer.pad_token_id)  # (N, T)
    mask = _pad_right(policy, [[1] * len(row) for row in rows])    # (N, T)
    group_size = len(answers) // len(prompts)
    logp, _ = token_logprobs(policy, prompts, group_size, ids, mask, wanted=is_answer)  # (N, T)
    sums = logp.sum(1)  # (N,)
    return sums.masked_fill(counts == 0, -torch.inf), counts


@torch.no_grad()
def choose(policy, prompts, options=("yes", "no")):
    """How likely each option is as the first token of the reply. -> (B, len(options)), rows sum to 1.

    An option counts in lower case and capitalised: p(yes) = p("yes") + p("Yes").
    Raises ValueError for options whose first tokens coincide, and where the model gives no numbers.
    """
    starts = []  # the first tokens of each option
    for option in options:
        forms = (option, option.capitalize())
        starts.append({policy.tokenizer.encode(form, add_special_tokens=False)[0] for form in forms})
    if sum(len(start) for start in starts) != len(set().union(*starts)):
        raise ValueError(f"options {options} share a first token")
    logp = _log_softmax(policy, _reply_logits(policy, prompts), 1.0)  # (B, V)
    per_option = [logp[:, list(start)].logsumexp(1) for start in starts]
    p = torch.stack(per_option, 1).softmax(1)  # (B, options)
    if not p.isfinite().all():  # weights that are not finite, or an overflow: that is no "no"
        raise ValueError("the model's logits are not finite")
    return p


def _reply_logits(policy, prompts):
    """Logits of the token that follows each prompt: (B, V)"""
    reply = torch.zeros(len(prompts), 1, dtype=torch.long, device=policy.device)  # (B, 1): whatever it may be
    there = torch.ones_like(reply).bool()
    with arithmetic(policy):
        hidden = _read(policy, prompts, 1, reply, there, there)  # (B, D)
        return policy.core.lm_head(hidden)


# ---- 6. Saving and resuming --------------------------------------------------------------------------------
# All is written beside its final name, then moved there: a kill leaves the old files or the new ones.
def merge(policy):
    """A plain copy of the policy whose weights contain the adapter; the original is untouched.

    Two cases read the base again, into the CPU's memory (17 GB for the 7B): 4-bit weights, which would round
    the adapter away (the base is read in bfloat16), and a GPU, which may not hold two copies.
    """
    model = policy.unwrapped
    if not isinstance(model, PeftModel):
        return replace(policy, model=copy.deepcopy(model))
    four_bits = getattr(policy.core, "is_loaded_in_4bit", False)
    if not four_bits and policy.device.type == "cpu":
        return replace(policy, model=copy.deepcopy(model).merge_and_unload())
    dtype = "bfloat16" if four_bits else str(policy.core.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        again = load_policy(policy.path, adapter=folder, dtype=dtype, device="cpu", preset=policy.preset)
    return replace(again, model=again.model.merge_and_unload())


def save_policy(policy, folder, merged=False):
    """Write the adapter, or (merged) the whole model with the adapter in it: complete or not at all.

    The processor goes with both, in the sizes of policy.budget: without them a point has no meaning.
    """
    model = merge(policy).model if merged else policy.unwrapped
    folder = Path(folder)
    aside = folder.with_name(folder.name + ".writing")  # a sibling, also for "out/adapter/"
    shutil.rmtree(aside, ignore_errors=True)
    with _writing(folder, aside):
        if isinstance(model, PeftModel):
            model.save_pretrained(aside, save_embedding_layers=False)  # "auto" would ask the hub
        else:
            model.save_pretrained(aside)
        save_budget(policy.processor, aside, policy.budget)
        add_older_names(aside)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)


@contextmanager
def _writing(path, aside):
    """On a full disk each library raises something else; from here it is BadInput.

    aside: where it is written first; what was written there goes, whatever the reason.
    """
    try:
        yield
    except BaseException as error:  # Ctrl-C, too
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):  # not a folder, or not even there
            os.unlink(aside)
        if not isinstance(error, (OSError, RuntimeError, SafetensorError)):
            raise
        raise BadInput(f"{path}: cannot be written ({first_line(error)}); make room or clear the way, then "
                       "continue with --resume") from error


def finish(accelerator, cfg, policy, trained):
    """Write adapter/ and merged/ at the end of a run.

    trained: False where a finished run was resumed and nothing happened: its files stay, and their dates.
    """
    out = Path(cfg.out)
    policy.budget = budget_of(cfg)
    merged = cfg.merge or not cfg.lora_rank
    last = "merged" if merged else "adapter"
    if accelerator.is_main_process and (trained or not (out / last).exists()):
        if cfg.lora_rank:
            save_policy(policy, out / "adapter")
        if merged:
            save_policy(policy, out / "merged", merged=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    accelerator.print(f"wrote {out}/{last}; metrics in {out}/metrics.jsonl")


def save_state(path, policy, optimizer, step):
    """Write all that a resumed run needs into one file: trained weights, optimizer, random numbers, step.

    Learning rate and place in the data are functions of the step, and both training scripts seed what they
    draw by it. A digest of all this stands beside it in the file: one rename, so that a kill cannot part them.
    Raises BadInput for weights that are not finite: the last good state stays.
    """
    weights = {name: p.detach() for name, p in trainable(policy).items()}
    check_finite(path, weights)
    rng = [torch.get_rng_state()]
    if policy.device.type == "cuda":
        rng.append(torch.cuda.get_rng_state(policy.device))
    state = {"weights": weights, "optimizer": optimizer.state_dict(), "step": step, "rng": rng}
    state["digest"] = _digest(state)
    aside = f"{path}.writing"
    with _writing(path, aside):
        torch.save(state, aside)
        os.replace(aside, path)


@torch.no_grad()
def load_state(path, policy, optimizer, steps):
    """Put a saved state back. -> its step, or 0 when nothing was saved yet. steps: how many the run has.

    Raises BadInput for a damaged state, or one of other settings; then nothing of it was put anywhere.
    """
    if not Path(path).exists():
        return 0
    try:
        # To the CPU: load_state_dict moves the moments to their weights but leaves AdamW's `step` where it is, and
        # on a GPU every update would wait for it, once per parameter.
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_state(state, trainable(policy), steps)
        check_finite(path, state["weights"])
        optimizer.load_state_dict(state["optimizer"])  # looks at all of it before it changes anything
    except BadInput:
        raise
    except Exception as error:  # a damaged file, or one of other settings: the library raises many kinds
        if out_of_memory(error):
            raise
        raise BadInput(f"{path}: cannot be resumed ({first_line(error)}); use the settings it was saved with, "
                       "or another --out") from error
    for name, p in trainable(policy).items():
        p.copy_(state["weights"][name])
    rng = state["rng"]  # the CPU's, and the GPU's if there was one
    torch.set_rng_state(rng[0].cpu())
    if len(rng) > 1 and policy.device.type == "cuda":
        torch.cuda.set_rng_state(rng[1].cpu(), policy.device)
    return state["step"]


def _check_state(state, weights, steps):
    """Is this what save_state wrote in this run? ValueError: no. weights: those that this run trains."""
    if not isinstance(state, dict) or state.pop("digest", None) != _digest(state):
        raise ValueError("its digest does not fit: it was damaged, or another version wrote it")
    if state["step"] > steps:
        raise ValueError(f"it is of step {state['step']}, and this run has {steps}")
    saved = state["weights"]
    if saved.keys() != weights.keys():
        raise ValueError("it holds other weights than this run trains")
    for name, p in weights.items():
        if saved[name].shape != p.shape:
            raise ValueError(f"{name} has the shape {tuple(saved[name].shape)}, and here {tuple(p.shape)}")


def _digest(thing):
    """A digest of tensors, numbers and texts, in dictionaries and lists of any depth."""
    total = hashlib.blake2b(digest_size=16)

    def add(part):
        if isinstance(part, torch.Tensor):
            total.update(f"{part.dtype} {tuple(part.shape)}".encode())
            flat = part.detach().cpu().contiguous().flatten()
            total.update(flat.view(torch.uint8).numpy())  # as bytes: numpy has no bfloat16
        elif isinstance(part, dict):
            add(list(part.items()))
        elif isinstance(part, (list, tuple)):
            total.update(f"{len(part)} parts".encode())
            for each in part:
                add(each)
        else:
            total.update(repr(part).encode())

    add(thing)
    return total.hexdigest()
