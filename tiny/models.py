"""The two small models of the real class: Qwen2_5_VLForConditionalGeneration with a real Qwen2_5_VLProcessor.

Nothing here is a stand-in: `AutoProcessor` and `AutoModelForImageTextToText` load the folders written below
exactly as they load Qwen2.5-VL-7B, so that the tiny and the 7B preset differ in configuration, never in code.
Small are only the numbers: two or three vision layers, four or eight language layers, and a vocabulary of the
world's words. The paper uses Qwen2.5-VL-7B as the policy and GLM-4.1V-9B as the teacher (section 4).

The tokenizer is byte-level BPE (byte pair encoding: text is cut into known pieces, in the worst case into
single bytes) with `ignore_merges`, as Llama 3 ships it: a word of the world is one token, a number is one
token, the markup of a point is three tokens, and any other string in any script falls back to bytes and
survives a round trip.

Run:     python -m tiny.train base        # builds and trains; this file alone only builds
Before:  tiny/world.py (what they are to see)
Next:    tiny/train.py (the recipe)
"""
import os
import re
from pathlib import Path

import regex
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration,
                          Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor)

# ---- 1. Tokenizer ------------------------------------------------------------------------------------------
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
MARKUP = ["<think>", "</think>", "<answer>", "</answer>", '<point x1="', '" y1="', '" alt="', '">', "</point>",
          '{"objects": ["', '", "', '"], "actions": ["', '"], "events": ["', '"]}',
          '"], "actions": [], "events": []}']
# " 28" is a space and a number, so that 28 is one token everywhere.
PIECES = r" ?\p{L}+|\d+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"

# Qwen's own template without its system message: a tiny context is precious, and Video-R1's RL prompts have none
# either.
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def build_tokenizer(texts):
    """A tokenizer whose words are the words of `texts` and the numbers 0 to 168, with all 256 bytes below them."""
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def spell(piece):
        """How byte-level BPE writes a piece: " red" -> "Ġred"."""
        return as_bytes.pre_tokenize_str(piece)[0][0]

    fixed = regex.compile("|".join(regex.escape(token) for token in SPECIAL + MARKUP))
    words = {str(n) for n in range(169)}
    for text in texts:
        for part in fixed.split(text):
            words.update(regex.findall(PIECES, part))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # one character for each byte
    spelled = sorted({spell(word) for word in words} - set(alphabet))
    vocab = {piece: i for i, piece in enumerate(alphabet + spelled)}

    core = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), as_bytes])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   padding_side="left", clean_up_tokenization_spaces=False, chat_template=CHAT)


# ---- 2. Processor and model --------------------------------------------------------------------------------
# An 84 x 84 picture stays as it is; anything else lands between 84^2 and 168^2 pixels (9 to 36 vision tokens).
PIXELS = {"shortest_edge": 84 * 84, "longest_edge": 168 * 168}
LAYERS = {"base": dict(language=4, vision=2), "teacher": dict(language=8, vision=3)}
HIDDEN, VISION_HIDDEN = 128, 96  # width of the language layers, of the vision layers
MROPE = [4, 6, 6]  # of a head's 16 rotary frequencies: how many turn with time, row and column


def build_processor(tokenizer):
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(PIXELS)), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=dict(PIXELS), do_sample_frames=False), chat_template=CHAT)


def build_model(tokenizer, size):
    """size: "base" (1.5 M parameters) or "teacher" (2.4 M). Weights are random; tiny/train.py trains them."""
    layers = LAYERS[size]
    token = tokenizer.convert_tokens_to_ids
    end, pad = token("<|im_end|>"), token("<|endoftext|>")
    text = dict(
        vocab_size=(len(tokenizer) + 7) // 8 * 8,  # a multiple of 8, as matrix products like it
        hidden_size=HIDDEN, intermediate_size=384, num_hidden_layers=layers["language"],
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, initializer_range=.04,
        bos_token_id=None, eos_token_id=end, pad_token_id=pad, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=1000., mrope_section=MROPE))
    vision = dict(
        depth=layers["vision"], hidden_size=VISION_HIDDEN, intermediate_size=256, num_heads=4,
        out_hidden_size=HIDDEN, patch_size=14, spatial_merge_size=2, temporal_patch_size=2, tokens_per_second=2,
        fullatt_block_indexes=list(range(layers["vision"])), initializer_range=.04)
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"))
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = pad
    return model


def grow(base, tokenizer):
    """A teacher that computes exactly what `base` does, with room to learn more: block expansion (LLaMA Pro,
    arXiv:2401.02415).

    Every language layer is followed by a copy of itself whose output projections are zero, so that it adds
    nothing yet; the vision tower gets one such layer at its end.
    """
    teacher = build_model(tokenizer, "teacher")
    state = base.state_dict()
    grown = {}
    for name in teacher.state_dict():
        source, silent = _source(name)
        grown[name] = torch.zeros_like(state[source]) if silent else state[source].clone()
    teacher.load_state_dict(grown)
    return teacher


def _source(name):
    """A weight of the teacher -> (the base's weight that it starts from, whether it starts at zero instead)."""
    if match := re.search(r"language_model\.layers\.(\d+)\.(.*)", name):
        k, rest = int(match[1]), match[2]
        is_copy = k % 2 == 1  # layers 0, 1 come from the base's 0; layers 2, 3 from its 1; ...
        silent = is_copy and rest in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
        return name.replace(f"layers.{k}.", f"layers.{k // 2}."), silent
    if match := re.search(r"visual\.blocks\.(\d+)\.(.*)", name):
        k, rest = int(match[1]), match[2]
        last = LAYERS["base"]["vision"] - 1
        silent = k > last and rest.startswith(("attn.proj.", "mlp.down_proj."))
        return name.replace(f"blocks.{k}.", f"blocks.{min(k, last)}."), silent
    return name, False


def save(model, processor, folder):
    """Write a folder that the Auto classes load.

    Weights go to disk in float16 (half the download), and load as float32.
    """
    folder = Path(folder)
    aside = folder / ".writing"
    aside.mkdir(parents=True, exist_ok=True)
    half = model.__class__(model.config).half()
    state = {}
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":  # it is the embedding, tied
            state[name] = weight.detach().half().contiguous()
    half.load_state_dict(state, strict=False)
    half.generation_config = model.generation_config
    half.save_pretrained(aside)
    processor.save_pretrained(aside)
    for file in aside.iterdir():  # a kill while writing leaves the last checkpoint
        os.replace(file, folder / file.name)
    aside.rmdir()
