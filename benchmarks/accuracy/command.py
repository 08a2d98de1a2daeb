"""``python -m benchmarks accuracy``: word error rates of every precision on real speech.

The record's ``accuracy`` are rows of `Accuracy`; ``texts`` has what every side has heard of each
recording, beside its transcript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.accuracy.errors import Errors, without_worst
from benchmarks.accuracy.transcripts import Transcribed, from_manifest, transcribed_speech
from benchmarks.peers import Model
from benchmarks.peers.faster_whisper import OPTIONS, FasterWhisper
from benchmarks.record import begin, results_option
from compat_tests.support.models import model_directory

BASELINE = FasterWhisper("whisper_max_backend", "float32")
OURS = tuple(FasterWhisper("whisper_max_backend", kind) for kind in ("bfloat16", "int8"))
STOCK = FasterWhisper("faster_whisper", "int8")

_BFLOAT16_POINTS = 0.1
_BFLOAT16_EQUAL = 0.9
_INT8_EQUAL = 0.7


@dataclass(frozen=True)
class Accuracy:
    """One side on all recordings.

    Attributes:
        errors: Against the transcripts, where there are any.
        by_group: The same of each group of recordings.
        from_float32: Against the text of this package's float32.
        without_worst: The same without the worst hundredth of recordings.
        equal_tokens: The share of recordings with its tokens.
    """

    name: str
    errors: Errors
    by_group: dict[str, Errors]
    from_float32: Errors
    without_worst: Errors
    equal_tokens: float


@dataclass(frozen=True)
class Text:
    """What was heard."""

    text: str
    tokens: tuple[int, ...]


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
    figures = [figures_of(name, heard, baseline, recordings) for name, heard in texts.items()]
    return figures, absent, texts


def figures_of(
    name: str, heard: Sequence[Text], baseline: Sequence[Text], recordings: Sequence[Transcribed]
) -> Accuracy:
    """How far a side's texts are from the transcripts and from float32's."""
    against_transcript: dict[str, list[Errors]] = {}
    against_float32 = []
    for found, exact, recording in zip(heard, baseline, recordings, strict=True):
        against_float32.append(Errors.of(exact.text, found.text, recording.language))
        if recording.transcript is not None:
            errors = Errors.of(recording.transcript, found.text, recording.language)
            against_transcript.setdefault(recording.group, []).append(errors)
    same = [a.tokens == b.tokens for a, b in zip(heard, baseline, strict=True)]
    groups = {group: Errors.total(one) for group, one in sorted(against_transcript.items())}
    return Accuracy(
        name,
        Errors.total(groups.values()),
        groups,
        Errors.total(against_float32),
        Errors.total(without_worst(against_float32)),
        sum(same) / len(same),
    )


def _transcribe(side: FasterWhisper, model: Model, recordings: Sequence[Transcribed]) -> list[Text]:
    loaded = side.open(model)
    heard = []
    for recording in track(recordings, description=side.name, transient=True):
        options = {**OPTIONS, "language": recording.language}
        segments, _ = loaded.transcribe(recording.samples, **options)
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
        worse = 100 * (bfloat16.errors.rate - baseline.errors.rate)
        if worse > _BFLOAT16_POINTS:
            found.append(f"bfloat16's word error rate is {worse:.2f} points above float32's")
        if bfloat16.equal_tokens < _BFLOAT16_EQUAL:
            found.append(f"bfloat16 has float32's tokens on {bfloat16.equal_tokens:.0%} only")
    if int8 is not None:
        if int8.from_float32.rate > stock.from_float32.rate:
            found.append(f"int8 is {int8.from_float32} from float32, stock {stock.from_float32}")
        if int8.equal_tokens < _INT8_EQUAL:
            found.append(f"int8 has float32's tokens on {int8.equal_tokens:.0%} only")
    return found


def tables(record: dict[str, Any], figures: Sequence[Accuracy]) -> Iterator[Table]:
    """The figures of one run, then those of its groups, if there are several."""
    speech = record["speech"]
    result = Table(
        title=f"{record['model']}, {speech['recordings']} recordings, {speech['minutes']:.1f} min",
        caption="\n".join(f"{name}: {reason}" for name, reason in record["absent"].items()),
    )
    result.add_column("")
    columns = ("word errors", "words unlike float32's", "without the worst 1 %", "its tokens")
    for column in columns:
        result.add_column(column, justify="right")
    for one in figures:
        rates = (one.errors, one.from_float32, one.without_worst)
        result.add_row(one.name, *map(str, rates), f"{one.equal_tokens:.1%}")
    yield result
    groups = figures[0].by_group
    if len(groups) > 1:
        result = Table("", *(one.name for one in figures), title="errors against transcripts")
        for group in groups:
            result.add_row(group, *(str(one.by_group[group]) for one in figures))
        yield result


@click.command()
@click.option("--model", "name", default="base", show_default=True, help="base or tiny.en.")
@click.option("--recordings", type=int, help="Only so many, spread over all.")
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Lines of JSON with path, transcript, language and group, instead of the prompts.",
)
@results_option
def main(name: str, recordings: int | None, manifest: Path | None, results: Path) -> None:
    """Word error rates of this package's precisions and of stock int8; 1 if a promise is broken."""
    console = Console()
    speech = list(from_manifest(manifest) if manifest else transcribed_speech())
    if recordings:
        speech = speech[:: max(1, len(speech) // recordings)][:recordings]
    variant = f"{name}-manifest" if manifest else name
    record = begin("accuracy", variant, model=name)
    figures, absent, texts = measure(Model(name, model_directory(name)), speech, console.print)
    record.found |= {
        "speech": {
            "recordings": len(speech),
            "minutes": sum(one.seconds for one in speech) / 60,
            "words": figures[0].errors.units,
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
    for table in tables(record.found, figures):
        console.print(table)
    record.finish(results)
