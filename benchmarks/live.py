"""``python -m benchmarks live``: how late and how right live text is, by a simulated clock.

The clock gives a piece of audio when it has been spoken, and goes on while it is transcribed. The
record's ``live`` are rows of `Run`; ``offline_error_rate`` is that of the whole recording at once.
"""

from __future__ import annotations

import difflib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import faster_whisper
import numpy as np
from rich.console import Console
from rich.table import Table

import whisper_max_backend
from benchmarks.accuracy.errors import error_rate, words
from benchmarks.accuracy.transcripts import TRANSCRIPTS
from benchmarks.lagging import Lagging, Passage, lagging
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE, speech
from compat_tests.support.models import model_directory
from whisper_max_backend.live import LiveTranscriber, LiveWord

PAUSE_SECONDS = 1.0
"""Between two recordings of a stream."""
POINTS = {0.5: 2.0, 1.0: 1.0}
"""What alignatt may add to the word error rate, in points, by the length of a chunk."""
DELAY_SECONDS = 1.0
"""The most that a word may be late on average with chunks of half a second."""


@dataclass(frozen=True)
class Run:
    """One stream.

    Attributes:
        side: Whose model, and the policy.
        chunk: Seconds of new audio that a decoding waits for.
        error_rate: Word errors for each word of the transcript.
        first_seconds: From the end of the first word that both have to its commitment.
        delay_seconds: The same, on average over all words that the whole recording has, too.
        delay_p95_seconds: For 19 of 20 words it is less.
        erased: Tentative words that were taken back, for each committed one.
        real_time_factor: Seconds of work for each second of audio.
        lagging: See `Lagging`, None where OmniSTEval is not installed.
    """

    side: str
    chunk: float
    error_rate: float
    first_seconds: float
    delay_seconds: float
    delay_p95_seconds: float
    erased: float
    real_time_factor: float
    lagging: Lagging | None


@dataclass(frozen=True)
class Stream:
    """What is played.

    Attributes:
        samples: Float32 ``[samples]`` at 16 kHz.
        passages: The recordings in it, with their transcripts.
        spoken: Words of the whole recording, transcribed at once, and when they end.
        offline_error_rate: Of these words.
    """

    samples: np.ndarray
    passages: list[Passage]
    spoken: list[tuple[str, float]]
    offline_error_rate: float

    @property
    def transcript(self) -> str:
        """What is said."""
        return " ".join(passage.transcript for passage in self.passages)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / RATE


def play(live: LiveTranscriber, stream: Stream, side: str, chunk: float) -> Run:
    """One stream, in pieces of a chunk."""
    committed: list[tuple[LiveWord, float]] = []
    written: list[tuple[str, float, float]] = []
    guessed: list[LiveWord] = []
    erased = 0
    clock = worked = heard = 0.0
    length = int(chunk * RATE)
    for start in [*range(0, len(stream.samples), length), None]:
        begun = time.perf_counter()
        if start is None:
            update = live.finish()
        else:
            piece = stream.samples[start : start + length]
            heard = (start + len(piece)) / RATE
            clock = max(clock, heard)
            update = live.push(piece)
        seconds = time.perf_counter() - begun
        worked += seconds
        clock += seconds
        committed += [(word, clock) for word in update.committed]
        text = "".join(word.text for word in update.committed)
        written += [(word, heard, clock) for word in text.split()]
        now = [*update.committed, *update.tentative]
        same = [a.text == b.text for a, b in zip(guessed, now, strict=False)]
        erased += len(guessed) - (same.index(False) if False in same else len(same))
        guessed = update.tentative
    delays = _delays(committed, stream.spoken)
    return Run(
        side,
        chunk,
        error_rate([stream.transcript], ["".join(word.text for word, _ in committed)]),
        delays[0],
        statistics.mean(delays),
        float(np.percentile(delays, 95)),
        erased / max(1, len(committed)),
        worked / stream.seconds,
        lagging(stream.passages, written, stream.seconds),
    )


def _delays(
    committed: Sequence[tuple[LiveWord, float]], spoken: Sequence[tuple[str, float]]
) -> list[float]:
    """From the end of each word, where the whole recording has it, to its commitment."""
    texts = [words(word.text) for word, _ in committed]
    expected = [text for text, _ in spoken]
    matcher = difflib.SequenceMatcher(None, texts, expected, autojunk=False)
    return [
        committed[block.a + k][1] - spoken[block.b + k][1]
        for block in matcher.get_matching_blocks()
        for k in range(block.size)
    ]


def made(model: Any, recordings: Sequence[tuple[np.ndarray, str]], language: str) -> Stream:
    """Recordings and their transcripts as one stream, with pauses."""
    pause = np.random.default_rng(0).normal(0, 1e-4, int(PAUSE_SECONDS * RATE)).astype(np.float32)
    samples = np.concatenate([part for audio, _ in recordings for part in (audio, pause)])
    lengths = [len(audio) / RATE for audio, _ in recordings]
    starts = np.cumsum([0.0, *(length + PAUSE_SECONDS for length in lengths)])
    passages = [
        Passage(float(start), length, " ".join(text.split()))
        for start, length, (_, text) in zip(starts, lengths, recordings, strict=False)
    ]
    segments, _ = model.transcribe(samples, language=language, word_timestamps=True)
    spoken = [
        (words(word.word), float(word.end)) for segment in segments for word in segment.words or ()
    ]
    transcript = " ".join(passage.transcript for passage in passages)
    offline = error_rate([transcript], [" ".join(text for text, _ in spoken)])
    return Stream(samples, passages, spoken, offline)


def _from_manifest(manifest: Path, language: str) -> list[tuple[np.ndarray, str]]:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [
        (
            faster_whisper.decode_audio(str(manifest.parent / row["path"]), sampling_rate=RATE),
            row["transcript"],
        )
        for row in rows
        if row.get("language") == language and row.get("transcript")
    ]


def broken(runs: Sequence[Run], offline: float) -> list[str]:
    """Which promises do not hold, in words."""
    found = []
    for run in runs:
        if run.side != "alignatt" or run.chunk not in POINTS:
            continue
        points = 100 * (run.error_rate - offline)
        if points > POINTS[run.chunk]:
            found.append(
                f"with chunks of {run.chunk} s alignatt adds {points:.2f} points of errors"
            )
        if run.chunk <= 0.5 and run.delay_seconds > DELAY_SECONDS:
            found.append(f"a word is {run.delay_seconds:.2f} s late with chunks of {run.chunk} s")
    return found


def table(runs: Sequence[Run], stream: Stream) -> Table:
    """The figures of one run."""
    result = Table(
        title=f"{stream.seconds:.0f} s of speech; at once "
        f"{stream.offline_error_rate:.2%} of the words are wrong"
    )
    headings = ("", "chunk", "wrong", "first word", "late", "95 %", "LAAL", "YAAL", "taken back")
    for heading in (*headings, "work"):
        result.add_column(heading, justify="left" if heading == "" else "right")
    for run in runs:
        result.add_row(
            run.side,
            f"{run.chunk:g} s",
            f"{run.error_rate:.2%}",
            f"{run.first_seconds:.2f} s",
            f"{run.delay_seconds:.2f} s",
            f"{run.delay_p95_seconds:.2f} s",
            f"{run.lagging.laal:.2f} s" if run.lagging else "",
            f"{run.lagging.yaal:.2f} s" if run.lagging else "",
            f"{run.erased:.2f}",
            f"{run.real_time_factor:.3f}",
        )
    return result


@click.command()
@click.option("--model", "name", default="base", type=click.Choice(["tiny.en", "base"]))
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--chunk", "chunks", type=float, multiple=True, default=(1.0, 0.5))
@click.option("--language", default="en", show_default=True)
@click.option(
    "--manifest",
    type=click.Path(exists=True, path_type=Path),
    help="Lines of JSON with path, transcript and language; the tests' recordings if not given.",
)
@click.option("--stock/--no-stock", default=True, help="Local agreement on stock faster-whisper.")
@results_option
def main(
    name: str,
    compute_type: str,
    chunks: tuple[float, ...],
    language: str,
    manifest: Path | None,
    stock: bool,
    results: Path,
) -> None:
    """Play speech to live transcription by a simulated clock. 1 if it is too late or too wrong."""
    path = str(model_directory(name))
    ours = whisper_max_backend.WhisperModel(path, device="cpu", compute_type=compute_type)
    sides: list[tuple[str, Any, Any]] = [
        ("alignatt", ours, "alignatt"),
        ("local-agreement", ours, "local-agreement"),
    ]
    if stock:
        theirs = faster_whisper.WhisperModel(path, device="cpu", compute_type=compute_type)
        sides.append(("stock, local-agreement", theirs, "local-agreement"))
    if manifest is None:
        recordings = [(speech(each), transcript) for each, transcript in TRANSCRIPTS.items()]
    else:
        recordings = _from_manifest(manifest, language)
    record = begin("live", f"{name} {compute_type} {language}")
    stream = made(ours, recordings, language)
    record.found["offline_error_rate"] = stream.offline_error_rate
    record.found["seconds"] = stream.seconds
    runs: list[Run] = []
    for chunk in chunks:
        for side, model, policy in sides:
            live = LiveTranscriber(model, policy, language=language, min_chunk=chunk)
            runs.append(play(live, stream, side, chunk))
            record.found["live"] = [asdict(run) for run in runs]
            record.keep(results)
    console = Console()
    console.width = max(console.width, 100)
    console.print(table(runs, stream))
    record.found["broken"] = broken(runs, stream.offline_error_rate)
    record.finish(results)


if __name__ == "__main__":
    main()
