"""The figures of a side, while it runs and afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from ..comparison.words import compare_words
from .runs import Side


@dataclass(frozen=True)
class Figures:
    """None where there is none yet.

    Attributes:
        real_time_factor: Seconds of transcription for a second of audio, so far.
        speed_up: Over the first side.
        peak_memory: Of the backend's process, bytes.
        cpu: Mean, 1 for a core at work all the time.
        gpu: Mean, 1 for a GPU at work all the time.
        word_differences: Differing words for each word of the first side.
    """

    real_time_factor: float | None = None
    speed_up: float | None = None
    peak_memory: int | None = None
    cpu: float | None = None
    gpu: float | None = None
    word_differences: float | None = None


def figures_of(side: Side, first: Side, duration: float) -> Figures:
    """The figures of a side, compared with the first one where both are done.

    Args:
        duration: Seconds of audio.
    """
    samples = list(side.meter.samples) if side.meter is not None else []
    gpu = [sample.gpu for sample in samples if sample.gpu is not None]
    done = side.state == "done"
    heard = duration if done else side.heard
    both = done and first.state == "done"
    return Figures(
        real_time_factor=side.elapsed / heard if heard else None,
        speed_up=first.elapsed / side.elapsed if both else None,
        peak_memory=max((sample.memory for sample in samples), default=None),
        cpu=mean(sample.cpu for sample in samples) if samples else None,
        gpu=mean(gpu) if gpu else None,
        word_differences=(
            compare_words(first.text, side.text).error_rate if both and side is not first else None
        ),
    )
