"""Other programs that run Whisper, on the same weights and behind one protocol.

A peer transcribes English with beam search or greedily (one beam), at temperature 0, without
looking for speech first and without the text of earlier windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.record import version_of

Transcribe = Callable[[np.ndarray, int], str]
"""From float32 ``[samples]`` at 16 kHz and a number of beams to the text."""


@dataclass(frozen=True)
class Model:
    """A model and its CTranslate2 directory, which the others' files are made from."""

    name: str
    folder: Path


class Peer(Protocol):
    """A program with a precision and, if it has a say, a number of threads."""

    @property
    def name(self) -> str:
        """What the results call it."""

    def why_absent(self) -> str:
        """Why it cannot run here, with the remedy; "" if it can."""

    def load(self, model: Model) -> Transcribe:
        """A loaded model. Whatever the program raises comes through."""


def peers() -> list[Peer]:
    """All programs that are compared with, whether they are installed or not."""
    from benchmarks.peers.faster_whisper import FasterWhisper
    from benchmarks.peers.openai_whisper import OpenAIWhisper
    from benchmarks.peers.openvino_genai import OpenVINO
    from benchmarks.peers.transformers import Transformers
    from benchmarks.peers.whisper_cpp import WhisperCpp

    return [
        FasterWhisper("faster_whisper", "int8"),
        FasterWhisper("faster_whisper", "int8", threads=1),
        OpenVINO(),
        WhisperCpp("q8_0"),
        Transformers("bfloat16"),
        OpenAIWhisper(),
    ]


def missing(*packages: str) -> str:
    """What `Peer.why_absent` says where packages are not installed; "" where all are."""
    absent = [package for package in packages if version_of(package) is None]
    if not absent:
        return ""
    return f"not installed: {', '.join(absent)} (pip install -e '.[peers]')"
