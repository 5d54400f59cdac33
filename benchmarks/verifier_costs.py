"""How many verifier GPUs feed how many rollout GPUs? The sum of benchmarks/engines.md, step by step.

    python -m benchmarks.verifier_costs                         # 8 H100; a minute: it counts a real Grounding DINO
    python -m benchmarks.verifier_costs --gpus 16 --labels 8

What is counted: of the 7B, trained and as judge, the matrix products (runs/costs.py). Of Grounding DINO base and
SAM 2.1 large, the products of one forward pass of a model with their published sizes and random weights
(PyTorch's FlopCounterMode). What is assumed is a flag below, with where it comes from. All of it is arithmetic;
no GPU has confirmed it.

Before: serve.py, runs/costs.py. Next: benchmarks/engines.md
"""
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (GroundingDinoConfig, GroundingDinoForObjectDetection, Sam2Config, Sam2HieraDetConfig,
                          Sam2Model, Sam2VisionConfig, SwinConfig)

from runs import costs
from runs.errors import run_main
from runs.settings import QWEN_7B, flag, parse_config


# ---- 1. Assumptions ----------------------------------------------------------------------------------------
@dataclass
class Config:
    gpus: int = flag(8, "GPUs in all")
    prompts: int = flag(54, "prompts of a step (paper: 56; 6 GPUs share 54 evenly)")
    group_size: int = flag(8, "rollouts per prompt")
    tokens: int = flag(768, "tokens of a rollout, all as long as the limit: the dearest case")
    labels: int = flag(4, "different labels that a group points at: our guess")
    tflops: float = flag(989., "10^12 FLOP a second of bfloat16, H100's data sheet")
    tflops_32: float = flag(67., "the same of float32, in which the detector and the segmenter run")
    gb_per_second: float = flag(3350., "10^9 bytes a second, H100's data sheet")
    share: float = flag(.38, "of the peak that is reached: our update's on an H200 (runs/README.md)")
    share_32: float = flag(.3, "the same of the detector and the segmenter: our guess")


# ---- 2. Counts ---------------------------------------------------------------------------------------------
def forward_flop(act, *args, **options):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        act(*args, **options)
    return counter.get_total_flops()


def detector_flop():
    """Of Grounding DINO base: one label, a picture of 800 x 1,040, its processor's size for 4 : 3."""
    swin = SwinConfig(image_size=384, window_size=12, embed_dim=128, depths=[2, 2, 18, 2],
                      num_heads=[4, 8, 16, 32], out_indices=[2, 3, 4])
    model = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin)).eval()
    words = torch.ones(1, 6, dtype=torch.long)
    return forward_flop(model, pixel_values=torch.zeros(1, 3, 800, 1040), input_ids=words,
                        attention_mask=torch.ones_like(words))


def segmenter_flop():
    """Of SAM 2.1 large's image encoder, once a picture of 1,024 x 1,024. A box costs 1 % of it: left out."""
    widths = [144, 288, 576, 1152]
    hiera = Sam2HieraDetConfig(hidden_size=144, num_attention_heads=2, blocks_per_stage=[2, 6, 36, 4],
                               embed_dim_per_stage=widths, num_attention_heads_per_stage=[2, 4, 8, 16],
                               window_size_per_stage=[8, 4, 16, 8], global_attention_blocks=[23, 33, 43])
    with torch.device("meta"):  # shapes alone: nothing is computed
        vision = Sam2VisionConfig(backbone_config=hiera, backbone_channel_list=widths[::-1])
        model = Sam2Model(Sam2Config(vision_config=vision)).eval()
        return forward_flop(model.get_image_embeddings, torch.zeros(1, 3, 1024, 1024))


def step_costs(cfg):
    """{phase: Cost} of a step in which all weights are trained; the judge as serve.py asks it."""
    seven_b = costs.Config(policy=QWEN_7B, judge=QWEN_7B, dtype="bfloat16", lora_rank=0, prompts=cfg.prompts,
                           group_size=cfg.group_size, max_new_tokens=cfg.tokens, image_pixels=512 * 784,
                           sample_batch=cfg.prompts * cfg.group_size, micro_batch=cfg.group_size,
                           checkpointing=True)
    plain, fast = costs.phases(seven_b, fast=False), costs.phases(seven_b, fast=True)
    return fast | {"loss": plain["loss"], "backward": plain["backward"]}  # engines read a prompt per rollout


# ---- 3. The sum --------------------------------------------------------------------------------------------
def main():
    cfg = parse_config(Config, __doc__)
    step = step_costs(cfg)
    rollouts = cfg.prompts * cfg.group_size
    bf16, fp32 = cfg.tflops * 1e12 * cfg.share, cfg.tflops_32 * 1e12 * cfg.share_32
    memory = cfg.gb_per_second * 1e9 * cfg.share

    judge = step["judge"].flop / rollouts
    detector = cfg.labels * detector_flop() / cfg.group_size
    segmenter = segmenter_flop() / cfg.group_size
    print("A rollout's share of its group, at the verifier:")
    tell("judge", judge, cfg.tflops, cfg.share, "the picture once, then each reasoning; only behind an open gate")
    tell("detector", detector, cfg.tflops_32, cfg.share_32, f"{cfg.labels} labels a group, a pass each")
    tell("segmenter", segmenter, cfg.tflops_32, cfg.share_32, "one pass a group")
    verifying = rollouts * (judge / bf16 + (detector + segmenter) / fp32)
    print(f"  together {verifying / rollouts * 1e3:.0f} ms; a step's {rollouts}: {verifying:.0f} s of one GPU")

    sampling = (step["encode"].flop + step["prefill"].flop) / bf16
    written = step["decode"].flop / bf16
    scoring = step["loss"].flop / bf16  # a forward pass over all rollouts
    update = scoring + step["backward"].flop / bf16
    model = costs.Model(QWEN_7B, "bfloat16", 0, True)
    reading = (model.matrices + model.head) * model.width * cfg.tokens / memory  # each GPU its own copy, per token
    print("\nA step at the trainer, in seconds of one GPU:")
    print(f"  prompts {sampling:.0f}, sampling {written:.0f} (and on each GPU at least {reading:.0f}, to read the "
          f"weights),\n  old and reference log-probabilities 2 x {scoring:.0f}, update {update:.0f}")

    print("\nEasyR1 verifies while it computes the log-probabilities, then waits. Seconds:\n")
    print("| verifier GPUs | rollout GPUs | verifying | of it hidden | waiting | step | share of waiting |")
    print("|---|---|---|---|---|---|---|")
    for verifiers in range(1, cfg.gpus // 2 + 1):
        trainers = cfg.gpus - verifiers
        own = max(reading, written / trainers) + (sampling + 2 * scoring + update) / trainers
        taken = verifying / verifiers
        hidden = min(taken, 2 * scoring / trainers)
        waiting = taken - hidden
        total = own + waiting
        print(f"| {verifiers} | {trainers} | {taken:.1f} | {hidden:.1f} | {waiting:.1f} | {total:.1f} | "
              f"{waiting / total:.0%} |")


def tell(name, flop, tflops, share, what):
    seconds = flop / (tflops * 1e12 * share)
    print(f"  {name:10} {flop / 1e12:4.1f} TFLOP / ({tflops:g} x {share:g}) = {seconds * 1e3:3.0f} ms   {what}")


if __name__ == "__main__":
    run_main(main)
