"""``python -m benchmarks accuracy``: word error rates of every precision on real speech.

The record's ``accuracy`` are rows of `Accuracy`; ``texts`` has what every side has heard of each
recording, beside its transcript.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import jiwer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.accuracy.transcripts import Transcribed, transcribed_speech
from benchmarks.peers import Model
from benchmarks.peers.faster_whisper import OPTIONS, FasterWhisper
from benchmarks.record import begin, results_option
from compat_tests.support.models import model_directory

BASELINE = FasterWhisper("whisper_max_backend", "float32")
OURS = tuple(FasterWhisper("whisper_max_backend", kind) for kind in ("bfloat16", "int8"))
STOCK = FasterWhisper("faster_whisper", "int8")

_BFLOAT16_POINTS = 0.1
_BFLOAT16_EQUAL = 0.9
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@dataclass(frozen=True)
class Accuracy:
    """One side on all recordings; rates are of all words together.

    Attributes:
        error_rate: Against the transcripts.
        from_float32: Against the text of this package's float32.
        equal_tokens: The share of recordings with its tokens.
    """

    name: str
    error_rate: float
    from_float32: float
    equal_tokens: float


@dataclass(frozen=True)
class Text:
    """What was heard."""

    text: str
    tokens: tuple[int, ...]


def words(text: str) -> str:
    """A text as it is compared: no case, no punctuation, digits up to ten and keys by name."""
    text = re.sub(r"\(.*?\)|\[.*?\]|<.*?>", " ", text.lower())  # what is heard and not said
    text = re.sub(r"[-/.]", " ", text.replace("#", " pound ").replace("*", " star "))
    found = (re.sub(r"[^\w']", "", word) for word in text.split())
    return " ".join(
        _DIGITS[int(word)] if word.isdecimal() and int(word) <= 10 else word
        for word in found
        if word
    )


def error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word errors for each word of the references, over all texts together."""
    return float(jiwer.wer([words(one) for one in references], [words(one) for one in hypotheses]))


def measure(
    model: Model, recordings: Sequence[Transcribed], tell: Callable[[str], None]
) -> tuple[list[Accuracy], dict[str, str], dict[str, list[Text]]]:
    """All sides on all recordings: the figures, why sides are absent, and the texts."""
    texts: dict[str, list[Text]] = {}
    absent: dict[str, str] = {}
    for side in (BASELINE, *OURS, STOCK):
        reason = side.why_absent()
        if reason:
            absent[side.name] = reason
            continue
        tell(side.name)
        texts[side.name] = _transcribe(side, model, recordings)
    baseline = texts[BASELINE.name]
    transcripts = [one.transcript for one in recordings]
    figures = []
    for name, heard in texts.items():
        said = [one.text for one in heard]
        same = [a.tokens == b.tokens for a, b in zip(heard, baseline, strict=True)]
        figures.append(
            Accuracy(
                name,
                error_rate(transcripts, said),
                error_rate([one.text for one in baseline], said),
                sum(same) / len(same),
            )
        )
    return figures, absent, texts


def _transcribe(side: FasterWhisper, model: Model, recordings: Sequence[Transcribed]) -> list[Text]:
    loaded = side.open(model)
    heard = []
    for recording in track(recordings, description=side.name, transient=True):
        segments, _ = loaded.transcribe(recording.samples, **OPTIONS)
        found = list(segments)
        tokens = tuple(token for segment in found for token in segment.tokens)
        heard.append(Text("".join(segment.text for segment in found), tokens))
    return heard


def broken(figures: Sequence[Accuracy]) -> list[str]:
    """Which promises do not hold, in words."""
    by_name = {one.name: one for one in figures}
    baseline, stock = by_name[BASELINE.name], by_name[STOCK.name]
    bfloat16, int8 = (by_name.get(side.name) for side in OURS)
    found = []
    if bfloat16 is not None:
        worse = 100 * (bfloat16.error_rate - baseline.error_rate)
        if worse > _BFLOAT16_POINTS:
            found.append(f"bfloat16's word error rate is {worse:.2f} points above float32's")
        if bfloat16.equal_tokens < _BFLOAT16_EQUAL:
            found.append(f"bfloat16 has float32's tokens on {bfloat16.equal_tokens:.0%} only")
    if int8 is not None and int8.from_float32 > stock.from_float32:
        found.append(
            f"int8 is {int8.from_float32:.2%} from float32, and stock int8 {stock.from_float32:.2%}"
        )
    return found


def table(kept: dict[str, Any]) -> Table:
    """The figures of one run."""
    minutes = kept["speech"]["minutes"]
    result = Table(
        title=f"{kept['model']}, {kept['speech']['recordings']} recordings, {minutes:.1f} minutes",
        caption="\n".join(f"{name}: {reason}" for name, reason in kept["absent"].items()),
    )
    result.add_column("")
    for column in ("word errors", "words unlike float32's", "recordings of its tokens"):
        result.add_column(column, justify="right")
    for row in kept["accuracy"]:
        result.add_row(
            row["name"],
            f"{row['error_rate']:.2%}",
            f"{row['from_float32']:.2%}",
            f"{row['equal_tokens']:.1%}",
        )
    return result


@click.command()
@click.option("--model", "name", default="base", show_default=True, help="base or tiny.en.")
@click.option("--recordings", type=int, help="Only so many, spread over all.")
@results_option
def main(name: str, recordings: int | None, results: Path) -> None:
    """Word error rates of this package's precisions and of stock int8; 1 if a promise is broken."""
    console = Console()
    speech = list(transcribed_speech())
    if recordings:
        speech = speech[:: max(1, len(speech) // recordings)][:recordings]
    record = begin("accuracy", name, model=name)
    figures, absent, texts = measure(Model(name, model_directory(name)), speech, console.print)
    record.found |= {
        "speech": {
            "recordings": len(speech),
            "minutes": sum(one.seconds for one in speech) / 60,
            "words": sum(len(words(one.transcript).split()) for one in speech),
        },
        "accuracy": [asdict(one) for one in figures],
        "broken": broken(figures),
        "absent": absent,
        "texts": {
            one.name: {
                "transcript": one.transcript,
                **{side: heard[index].text.strip() for side, heard in texts.items()},
            }
            for index, one in enumerate(speech)
        },
    }
    console.print(table(record.found))
    record.finish(results)
