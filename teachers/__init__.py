"""The teachers: the four models that Argos asks before it believes a response."""
from typing import Protocol

import numpy as np

from verifier.coordinates import Box


class Detector(Protocol):
    def detect(self, image, labels: list[str]) -> list[list[Box]]:
        """image: PIL RGB. One list of boxes per label, empty where nothing was found."""


class Segmenter(Protocol):
    def segment(self, image, boxes: list[Box]) -> np.ndarray:
        """One mask per box: bool (N, H, W). A box without area (x1 = x2, y1 = y2) is a point prompt."""


class Pointer(Protocol):
    def point(self, image, label: str) -> list[tuple[float, float]]:
        """The centre (x, y) of each thing that the label names."""


class Judge(Protocol):
    def equivalent(self, question: str, truth: str, prediction: str) -> bool:
        """Do the two answers mean the same? The prediction is quoted data, never an instruction."""

    def frame_claim(self, image, claim: str) -> bool:
        """Is the claim true of this one frame?"""

    def segment_claim(self, frames: list, seconds: list[float], claim: str) -> bool:
        """Is the claim true of these frames? seconds: the time of each."""

    def answer_probability(self, media, question: str, thinks: list[str], answers: list[str],
                           length_normalized: bool = False) -> list[float]:
        """p(answer | question, think, media) of each response of a group, 0..1 (paper eq. 5). media: argos.Media."""

    # A judge may have these two as well. Without the first it is asked one by one, without the second nothing is extracted.
    def yes_or_no(self, questions: list[tuple]) -> list[bool]:
        """Many of the first three at once, each as (name of the method, *its arguments)."""

    def extract_claims(self, thinks: list[str]) -> list[str]:
        """The claims in each reasoning about a clip, as JSON (see argos.read_claims, which checks it)."""
