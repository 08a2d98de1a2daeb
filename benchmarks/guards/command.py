"""``python -m benchmarks guards``: words that guards take out, without speech and with it.

The record's ``guards`` are the figures, as `Figures`; ``recordings`` has what was heard of each,
with guards and without, and every refusal with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import click
import faster_whisper
import jiwer
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.accuracy.errors import error_rate, words
from benchmarks.accuracy.transcripts import TRANSCRIPTS
from benchmarks.guards.sounds import sounds
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE, speech
from compat_tests.support.models import model_directory
from whisper_max_backend import BatchedInferencePipeline, WhisperModel
from whisper_max_backend.guards.loops import Loops
from whisper_max_backend.suffixes import SUFFIXES

GONE = 0.95
"""The share of invented words that is to go."""
LOST = 2
"""The most words of all speech that may go with them."""
_COMPRESSION_RATIO = 2.4
"""Above it, faster-whisper takes a text for a failure."""
_WITHOUT_SPEECH = ("music", "silence")
_WITH_SPEECH = (
    "moby",
    "dialogue",
    "noisy",
    "over_music",
    "long_pauses",
    "two_minutes",
    "very_short",
)
"""Of the tests' recordings, besides those with transcripts."""


@dataclass(frozen=True)
class Recording:
    """What is transcribed.

    Attributes:
        name: Of a file, or of a sound.
        samples: Float32 ``[samples]`` at 16 kHz.
        language: That is spoken, or is told to be.
        transcript: What is said; nothing where nobody speaks, and None if it is not known.
    """

    name: str
    samples: np.ndarray
    language: str
    transcript: str | None


@dataclass(frozen=True)
class Heard:
    """One recording, without guards and with them.

    Attributes:
        name: Of the recording.
        transcript: What is said in it, if that is known.
        without: The text without guards.
        guarded: The text with them.
        loops_without: Segments that are part of a loop, without guards.
        loops_guarded: The same with them.
        refused: Guard, text and reason of what was refused.
        recovered: Texts that were found again.
    """

    name: str
    transcript: str | None
    without: str
    guarded: str
    loops_without: int
    loops_guarded: int
    refused: list[tuple[str, str, str]]
    recovered: list[str]

    @property
    def lost(self) -> int:
        """Words that were right without guards, less those that are with them."""
        truth = words(self.without if self.transcript is None else self.transcript)
        if not truth:
            return 0
        before, after = (
            jiwer.process_words(truth, words(text)).hits for text in (self.without, self.guarded)
        )
        return int(before - after)


@dataclass(frozen=True)
class Figures:
    """Of all recordings together.

    Attributes:
        without_speech: Recordings in which nobody speaks.
        invented: Words heard there without guards.
        invented_guarded: The same with them.
        with_speech: The other recordings.
        spoken: Words heard there without guards.
        lost: Words that were right there without guards, and are gone with them.
        error_rate: Word errors without guards, where there is a transcript.
        error_rate_guarded: The same with them.
        loops: Segments that are part of a loop, without guards.
        loops_guarded: The same with them.
    """

    without_speech: int
    invented: int
    invented_guarded: int
    with_speech: int
    spoken: int
    lost: int
    error_rate: float
    error_rate_guarded: float
    loops: int
    loops_guarded: int


def listen(model: WhisperModel, recording: Recording, batched: bool, **options: Any) -> Heard:
    """Transcribe a recording twice."""
    transcriber = BatchedInferencePipeline(model) if batched else model
    asked = {"language": recording.language, **options}
    without = list(transcriber.transcribe(recording.samples, **asked)[0])
    segments, info = transcriber.transcribe(recording.samples, guards=True, **asked)
    guarded = list(segments)
    return Heard(
        recording.name,
        recording.transcript,
        _text(without),
        _text(guarded),
        _loops(model, without),
        _loops(model, guarded),
        [(each.guard, each.text, each.reason) for each in info.refused],
        [each.text for each in info.recovered],
    )


def figures(heard: Sequence[Heard]) -> Figures:
    """Of all recordings."""
    silent = [each for each in heard if each.transcript == ""]
    spoken = [each for each in heard if each.transcript != ""]
    known = [each for each in spoken if each.transcript is not None]
    transcripts = [each.transcript or "" for each in known]
    return Figures(
        len(silent),
        sum(_count(each.without) for each in silent),
        sum(_count(each.guarded) for each in silent),
        len(spoken),
        sum(_count(each.without) for each in spoken),
        sum(each.lost for each in spoken),
        error_rate(transcripts, [each.without for each in known]) if known else 0.0,
        error_rate(transcripts, [each.guarded for each in known]) if known else 0.0,
        sum(each.loops_without for each in heard),
        sum(each.loops_guarded for each in heard),
    )


def broken(found: Figures) -> list[str]:
    """Which promises do not hold, in words."""
    problems = []
    if found.invented_guarded > (1 - GONE) * found.invented:
        problems.append(f"{found.invented_guarded} of {found.invented} invented words are left")
    if found.lost > LOST:
        problems.append(f"{found.lost} of {found.spoken} words of speech are lost")
    return problems


def table(found: Figures) -> Table:
    """The figures of one run."""
    result = Table(
        title=f"{found.without_speech} recordings without speech, {found.with_speech} with speech"
    )
    for heading in ("", "without guards", "with them"):
        result.add_column(heading, justify="right" if heading else "left")
    result.add_row("words invented", str(found.invented), str(found.invented_guarded))
    result.add_row("segments in loops", str(found.loops), str(found.loops_guarded))
    result.add_row("words of speech lost", "", f"{found.lost} of {found.spoken}")
    result.add_row("word errors", f"{found.error_rate:.2%}", f"{found.error_rate_guarded:.2%}")
    return result


def own_recordings() -> Iterator[Recording]:
    """Sounds, and the recordings of the tests."""
    for name, samples in sounds():
        yield Recording(name, samples, "en", "")
    for name in _WITHOUT_SPEECH:
        yield Recording(name, speech(name), "en", "")
    for name, transcript in TRANSCRIPTS.items():
        yield Recording(name, speech(name), "en", transcript)
    for name in _WITH_SPEECH:
        yield Recording(name, speech(name), "en", None)


def from_manifest(manifest: Path, multilingual: bool) -> Iterator[Recording]:
    """Those of a file with lines of JSON; without a language, nobody speaks."""
    for line in manifest.read_text().splitlines():
        row = json.loads(line)
        language = row.get("language")
        if language in (None, "en") or multilingual:
            transcript = row.get("transcript") if language else ""
            samples = _decoded(manifest.parent / row["path"])
            yield Recording(row["path"], samples, language or "en", transcript)


def from_folder(folder: Path, seconds: float) -> Iterator[Recording]:
    """All sounds in a folder and those in it, in which nobody speaks."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.is_symlink():
            try:
                samples = _decoded(path)[: int(seconds * RATE)]
            except (IndexError, av.error.FFmpegError) as error:
                click.echo(f"{path} is left out: {error}", err=True)
                continue
            yield Recording(str(path.relative_to(folder)), samples, "en", "")


def _decoded(path: Path) -> np.ndarray:
    samples: np.ndarray = faster_whisper.decode_audio(str(path), sampling_rate=RATE)
    return samples


def _text(segments: Sequence[Any]) -> str:
    return "".join(segment.text for segment in segments)


def _count(text: str) -> int:
    return len(re.findall(r"\w+", text))


def _loops(model: WhisperModel, segments: Sequence[Any]) -> int:
    end_of_text = model.hf_tokenizer.token_to_id("<|endoftext|>")
    assert end_of_text is not None
    loops = Loops(end_of_text, _COMPRESSION_RATIO, lambda start, end: "")
    return sum(loops.judge(segment).kept is None for segment in segments)


@click.command()
@click.option("--model", "name", default="base", type=click.Choice(["tiny.en", "base"]))
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--beam-size", default=5, show_default=True)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Lines of JSON with path, transcript and language (null: nobody speaks).",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Of sounds in which nobody speaks; may be given several times.",
)
@click.option("--seconds", default=60.0, show_default=True, help="At most, of each file of these.")
@click.option("--word-timestamps", is_flag=True)
@click.option("--batched", is_flag=True, help="By the pipeline, which leaves out silence.")
@click.option("--own/--no-own", default=True, help="Sounds and the recordings of the tests, too.")
@results_option
def main(
    name: str,
    compute_type: str,
    beam_size: int,
    manifest: Path | None,
    folders: tuple[Path, ...],
    seconds: float,
    word_timestamps: bool,
    batched: bool,
    own: bool,
    results: Path,
) -> None:
    """Count the words that guards take out, without speech and with it.

    The exit status is 1 if too few invented words are gone, or too many that were said.
    """
    model = WhisperModel(str(model_directory(name)), device="cpu", compute_type=compute_type)
    recordings = list(own_recordings()) if own else []
    if manifest is not None:
        recordings += from_manifest(manifest, model.model.is_multilingual)
    for folder in folders:
        recordings += from_folder(folder, seconds)
    record = begin(
        "guards",
        f"{name} {compute_type}",
        options={"beam_size": beam_size, "word_timestamps": word_timestamps, "batched": batched},
    )
    heard = [
        listen(model, each, batched, beam_size=beam_size, word_timestamps=word_timestamps)
        for each in track(recordings, description="twice each", transient=True)
    ]
    found = figures(heard)
    record.found["guards"] = asdict(found)
    record.found["recordings"] = [asdict(each) for each in heard]
    record.found["broken"] = broken(found)
    Console().print(table(found))
    record.finish(results)


if __name__ == "__main__":
    main()
