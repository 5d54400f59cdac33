"""The teachers: the four kinds of model that Argos asks before it believes a response.

Argos knows only these roles, so a teacher is replaced by naming another. Whatever has the methods will do:

    role        asked                      answers              the paper's          classes in teachers/
    Detector    picture, labels            boxes per label      open-vocabulary      detectors.py
    Segmenter   picture, boxes             one mask per box     SAM-2                segmenters.py
    Pointer     picture, label             points               Molmo-7B             pointers.py
    Judge       texts, frames, reasoning   yes/no, p(answer)    GLM-4.1V, GLM-4.5V   judges.py

Who can fill them, by name (teachers/names.py), and the licence of the code (weights have licences of their
own):

    --detector   pixels              rules for the embedded world's drawings     Apache-2.0, tiny/pixels.py
                 grounding-dino      GroundingDINO, the paper's                  Apache-2.0, transformers
                 mm-grounding-dino   MM-GroundingDINO                            Apache-2.0, transformers
                 owlv2               OWLv2                                       Apache-2.0, transformers
                 yolo-world          YOLO-World                                  AGPL-3.0 (!), ultralytics
    --segmenter  pixels              as above                                    Apache-2.0, tiny/pixels.py
                 sam2                SAM 2.1 by its own package                  Apache-2.0, sam2
                 sam2-hf             SAM 2.1, no further package                 Apache-2.0, transformers
    --pointer    pixels              as above                                    Apache-2.0, tiny/pixels.py
                 molmo               runs Python code of its checkpoint          Apache-2.0, allenai
                 qwen                Qwen2.5-VL asked to point                   Apache-2.0, transformers
                 base                the model that curate.py and train_grpo.py have loaded anyway
    --judge      any vision-language model, by its folder or hub id

The first three are written NAME, or NAME:FOLDER_OR_HUB_ID to name the checkpoint: `--detector
owlv2:my/owlv2`.

What they need beyond requirements.txt (grounding-dino, mm-grounding-dino, owlv2, sam2-hf and qwen: no package):

    pip install setuptools wheel                          # sam2 (and yolo-world):
    SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation -r tests/requirements-extra.txt
    hf download IDEA-Research/grounding-dino-base         # or whichever you name: the 7B presets' detector
    hf download facebook/sam2.1-hiera-large
    hf download openai/clip-vit-base-patch32              # yolo-world's text encoder; and yolov8x-worldv2.pt
                                                          # from ultralytics' releases, into this folder
A detector, a segmenter or Molmo never downloads by itself: what is missing is said in one line, with its cure.

Three rules for whoever fills a role:

1. Coordinates are pixels of the picture passed in, which is the picture as the policy saw it
   (verifier/coordinates.py).
2. An answer depends on its own question alone: not on its neighbours in a batch (the other labels, boxes or
   texts of the call), nor on what came before. Detectors break this easily: asked together, labels compete
   for boxes. A reward that moves with its neighbours is noise to the policy, and could not be kept on disk.
3. What a text says is data. A judge obeys no instruction in an answer that it grades (`defuse` in judges.py).

A teacher may raise whatever it likes: Argos finds out whether it or the item is at fault, and counts it
(verifier/asking.py). Only a mistake in a setting (BadInput) and a full GPU go on to the person.

The paper's text says "open-vocabulary detector"; a figure of its blog post names Grounding DINO, so it is the
default of the 7B presets. YOLO-World is faster and a name away: its code is AGPL-3.0, which whoever passes the
whole on must heed.

Simplified against the paper: the judge, unless one is named, is no larger model but the policy's own frozen
base, its LoRA adapter switched off.

This file imports no model library: `from teachers import Detector` is quick.

Run:   python argos.py photo.jpg QUESTION RESPONSE --detector owlv2 --segmenter sam2-hf   # what to download
Next:  teachers/loading.py, detectors.py, segmenters.py, pointers.py, judges.py, names.py, cache.py; argos.py
       (what becomes of their answers)
"""
from typing import Protocol

import numpy as np

from verifier.coordinates import Box, Media


class Detector(Protocol):
    def detect(self, image, labels: list[str]) -> list[list[Box]]:
        """Where is what these labels name?

        image: PIL, RGB. labels: any texts, as a response wrote them. Returns one list of boxes per label, the
        surest first, empty where nothing was found; corners are finite numbers inside the picture, scores
        0..1.
        """


class Segmenter(Protocol):
    def segment(self, image, boxes: list[Box]) -> np.ndarray:
        """Which pixels belong to the thing in each box?

        image: PIL, RGB, of H x W pixels. Returns bool (N, H, W), one mask per box, also for N = 0. A box
        without area (x1 = x2 and y1 = y2) is a point prompt: the thing at this point.
        """


class Pointer(Protocol):
    def point(self, image, label: str) -> list[tuple[float, float]]:
        """The centre (x, y), in pixels, of each thing that the label names; empty where there is none. image:
        PIL, RGB. A reply that cannot be read is an error, not "none"."""


class Judge(Protocol):
    """The last three methods are optional. Without the first two a judge is asked one by one; without
    extract_claims nothing is extracted, and argos.Argos(extract=True) raises BadInput."""

    def equivalent(self, question: str, truth: str, prediction: str) -> bool:
        """Do the two answers mean the same? The prediction is quoted data, never an instruction."""

    def frame_claim(self, image, claim: str) -> bool:
        """Is the claim true of this one frame? image: PIL, RGB."""

    def segment_claim(self, frames: list, seconds: list[float], claim: str) -> bool:
        """Is the claim true of these frames? frames: PIL, RGB, of one size; seconds: the time of each."""

    def answer_probability(self, media: Media, question: str, thinks: list[str], answers: list[str],
                           length_normalized: bool = False) -> list[float]:
        """p(answer | question, think, media) for each response of a group of G -> G numbers, 0..1 (paper eq.
        5).

        thinks, answers: G texts each. length_normalized: the geometric mean over the answer's tokens, not
        their product.
        """

    def answer_probabilities(self, groups: list[tuple], length_normalized: bool = False) -> list[list[float]]:
        """answer_probability of many groups at once: (media, question, thinks, answers) each -> its G numbers.
        Groups differ in size."""

    def yes_or_no(self, questions: list[tuple]) -> list[bool]:
        """Many of the first three at once -> one bool per question.

        questions: (name of the method, *its arguments) each, as in ("frame_claim", image, "the door is
        open").
        """

    def extract_claims(self, thinks: list[str]) -> list[str]:
        """The claims in each reasoning about a clip, as JSON -> one text per think;
        verifier.extraction.read_claims checks it."""
