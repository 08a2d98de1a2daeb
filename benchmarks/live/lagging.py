"""Average lagging of live text, by OmniSTEval where it is installed.

Sources: LAAL (Papi et al. 2022, arXiv 2206.05807), LongYAAL (Polák et al. 2025, arXiv 2509.17349).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

_METRICS = {"yaal": "LongYAAL (CA)", "laal": "LongLAAL (CA)"}


@dataclass(frozen=True)
class Passage:
    """Something that is said in a stream.

    Attributes:
        offset: Seconds from the beginning of the stream.
        duration: Seconds.
        transcript: What is said, in words between spaces.
    """

    offset: float
    duration: float
    transcript: str


@dataclass(frozen=True)
class Lagging:
    """How far text is behind an ideal one, that keeps pace with the speech: seconds on average.

    Attributes:
        yaal: LongYAAL. The time of computing counts, as it does for `laal`.
        laal: LongLAAL, length-adaptive.
    """

    yaal: float
    laal: float


def lagging(
    passages: Sequence[Passage], spoken: Sequence[tuple[str, float, float]], seconds: float
) -> Lagging | None:
    """None where OmniSTEval is not installed.

    Args:
        passages: Of the stream, in their order.
        spoken: Each word without spaces, how many seconds of audio it was written after, and by the
            clock.
        seconds: Of the whole stream.

    Raises:
        RuntimeError: OmniSTEval refuses them; why is in the message.
    """
    if find_spec("omnisteval") is None:
        return None
    words, heard, clock = zip(*spoken, strict=True)
    hypothesis = {
        "source": "stream",
        "prediction": " ".join(words),
        "delays": [1000 * time for time in heard],
        "elapsed": [1000 * time for time in clock],
        "source_length": 1000 * seconds,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        segments = [{**asdict(passage), "wav": "stream"} for passage in passages]
        (folder / "segments.json").write_text(json.dumps(segments))
        (folder / "transcripts.txt").write_text(
            "".join(f"{passage.transcript}\n" for passage in passages)
        )
        (folder / "hypothesis.jsonl").write_text(json.dumps(hypothesis))
        result = subprocess.run(
            [
                *(sys.executable, "-m", "omnisteval.cli", "longform", "--word_level"),
                *("--no_quality", "--speech_segmentation", "segments.json"),
                *("--ref_sentences_file", "transcripts.txt"),
                *("--hypothesis_file", "hypothesis.jsonl", "--output_folder", "scores"),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            raise RuntimeError(f"OmniSTEval refuses the stream: {result.stderr.strip()}")
        rows = (folder / "scores" / "scores.tsv").read_text().splitlines()
    scores = dict(row.split("\t") for row in rows)
    return Lagging(**{name: float(scores[metric]) / 1000 for name, metric in _METRICS.items()})
