"""The command `transcribe`."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from . import options
from .inputs import Input, expand, output_names

FORMATS = ("txt", "srt", "vtt", "tsv", "json", "all")

_log = logging.getLogger("whisper_max_backend")


def _temperatures(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return [float(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter("give numbers separated by commas, e.g. 0,0.2,0.4") from error


# Options handed to the model as they are, and only if given: its defaults are the reference's.
_MODEL_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--language", help="Language spoken, e.g. en; detected if not given."),
    click.option(
        "--task", type=click.Choice(["transcribe", "translate"]), help="translate: into English."
    ),
    click.option(
        "--word-timestamps", is_flag=True, default=None, help="Times of every word, in json files."
    ),
    click.option("--vad/--no-vad", "vad_filter", default=None, help="Leave out what is no speech."),
    click.option(
        "--multilingual", is_flag=True, default=None, help="Detect the language of every window."
    ),
    click.option("--beam-size", type=click.IntRange(min=1), help="Hypotheses searched at once."),
    click.option("--best-of", type=click.IntRange(min=1), help="Samples when temperature > 0."),
    click.option("--patience", type=float, help="Beam search patience."),
    click.option("--length-penalty", type=float, help="Exponent of the length in scores."),
    click.option("--repetition-penalty", type=float, help="More than 1 penalises repetition."),
    click.option("--no-repeat-ngram-size", type=click.IntRange(min=0), help="0: may repeat."),
    click.option("--temperature", callback=_temperatures, help="Or several: 0,0.2,0.4."),
    click.option("--compression-ratio-threshold", type=float, help="Above: try the next one."),
    click.option("--log-prob-threshold", type=float, help="Below: try the next temperature."),
    click.option("--no-speech-threshold", type=float, help="Above, a window may be silence."),
    click.option(
        "--condition-on-previous-text/--no-condition-on-previous-text",
        default=None,
        help="Give a window the text before it.",
    ),
    click.option("--initial-prompt", help="Text that is taken to come before."),
    click.option("--prefix", help="Beginning of the text."),
    click.option("--hotwords", help="Words that may come up."),
    click.option(
        "--without-timestamps/--with-timestamps",
        default=None,
        help="Segments without times of their own.",
    ),
    click.option("--clip-timestamps", help="start,end,start,... in seconds: what to transcribe."),
    click.option("--max-new-tokens", type=click.IntRange(min=1), help="In one window."),
    click.option("--chunk-length", type=click.IntRange(min=1, max=30), help="Seconds a window."),
    click.option("--hallucination-silence-threshold", type=float, help="Seconds."),
)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of the model's `transcribe`, for a command."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--model", default=options.DEFAULT_MODEL, show_default=True, help="Name or path.")
@click.option("--backend", default="auto", show_default=True, help="See `whisper-max backends`.")
@options.DEVICE
@options.COMPUTE_TYPE
@options.THREADS
@options.LOCAL_FILES_ONLY
@click.option(
    "-f",
    "--output-format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="Write files; may be given several times.  [default with --output-dir: all]",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to write them.  [default with --output-format: here]",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print the segments.")
@options.BATCHED
@options.BATCH_SIZE
@options.GUARDS
@model_options
def transcribe(
    files: tuple[str, ...],
    model: str,
    backend: str,
    device: str,
    compute_type: str,
    cpu_threads: int | None,
    local_files_only: bool,
    formats: tuple[str, ...],
    output_dir: Path | None,
    quiet: bool,
    batched: bool,
    batch_size: int | None,
    guards: bool,
    **model_options: Any,
) -> None:
    """Transcribe FILES: sound, films, folders of them, or patterns such as 'talks/*.mp3'.

    The word "sample" stands for a short recording that comes with this program. The exit status is
    1 if a file could not be transcribed; the others are.
    """
    if batch_size is not None and not batched:
        raise click.UsageError("--batch-size needs --batched")
    given = {name: value for name, value in model_options.items() if value is not None}
    if batch_size is not None:
        given["batch_size"] = batch_size
    if guards:
        given["guards"] = True
    if output_dir is not None and not formats:
        formats = ("all",)
    inputs = list(expand(files))
    failures = [found for found in inputs if found.path is None]
    inputs = [found for found in inputs if found.path is not None]
    for found in failures:
        _report(found.name, found.problem)
    if inputs:
        loading = options.loading(cpu_threads, local_files_only)
        transcriber = _load(model, backend, device, compute_type, batched, loading)
        if guards and not _has_guards(transcriber):
            raise click.ClickException(f"The backend '{backend}' has no guards: leave out --guards")
        failed = _transcribe_all(transcriber, inputs, given, formats, output_dir or Path(), quiet)
        failures += failed
    if failures:
        raise SystemExit(1)


def _load(
    model: str,
    backend: str,
    device: str,
    compute_type: str,
    batched: bool,
    loading: dict[str, Any],
) -> Any:
    import faster_whisper

    from .. import BatchedInferencePipeline, load_model

    try:
        transcriber = load_model(model, backend, device, compute_type, **loading)
    except Exception as error:  # a plugin's backend may raise anything
        _log.debug("the model was not loaded", exc_info=error)
        raise click.ClickException(f"The model '{model}' cannot be loaded: {error}") from error
    if not batched:
        return transcriber
    if not isinstance(transcriber, faster_whisper.WhisperModel):
        raise click.ClickException(f"The backend '{backend}' has no batches: leave out --batched")
    return BatchedInferencePipeline(model=transcriber)


def _has_guards(transcriber: Any) -> bool:
    from .. import BatchedInferencePipeline, WhisperModel

    return isinstance(transcriber, WhisperModel | BatchedInferencePipeline)


def _transcribe_all(
    transcriber: Any,
    inputs: list[Input],
    given: dict[str, Any],
    formats: tuple[str, ...],
    folder: Path,
    quiet: bool,
) -> list[Input]:
    """Transcribe each file; the ones that failed, which were reported."""
    from .. import format_timestamp, writers

    wanted = [name for name in writers.WRITERS if name in formats or "all" in formats]
    # A plugin's backend, or faster-whisper's own model, does not tell how far it is.
    tells = "progress" in inspect.signature(transcriber.transcribe).parameters
    failed = []
    for found, name in zip(inputs, output_names(inputs), strict=True):
        if len(inputs) > 1 and not quiet:
            click.echo(f"{found.name}:")
        try:
            kept = []
            with _progress(found.name) as show:
                watched = {"progress": lambda seconds: show(completed=seconds)} if tells else {}
                segments, info = transcriber.transcribe(str(found.path), **given, **watched)
                show(total=info.duration)
                for segment in segments:
                    kept.append(segment)
                    if not quiet:
                        start, end = map(format_timestamp, (segment.start, segment.end))
                        click.echo(f"[{start} --> {end}] {segment.text.strip()}")
                    if not tells:
                        show(completed=min(segment.end, info.duration))
            if not quiet:
                _tell_guards(found.name, info)
            for suffix in wanted:
                text = writers.WRITERS[suffix](kept, info)
                writers.write(folder / f"{name}.{suffix}", text)
        except BrokenPipeError:
            raise
        except Exception as error:  # one file must not stop the others
            _log.debug("%s was not transcribed", found.name, exc_info=error)
            _report(found.name, str(error) or type(error).__name__)
            failed.append(found)
    return failed


def _tell_guards(name: str, info: Any) -> None:
    """What guards did, if there were any."""
    for segment in getattr(info, "refused", ()):
        _report(name, f"{_at(segment.start)}{segment.text.strip()!r} is left out: {segment.reason}")
    for segment in getattr(info, "recovered", ()):
        _report(name, f"{_at(segment.start)}{segment.text.strip()!r} was found again")
    for start, end in getattr(info, "uncovered", ()):
        _report(name, f"{_at(start)}{end - start:.1f} s of speech have no text")


def _at(seconds: float) -> str:
    from .. import format_timestamp

    return f"[{format_timestamp(seconds)}] "


def _report(name: str, problem: str) -> None:
    click.echo(f"{name}: {problem}", err=True)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[..., None]]:
    """A bar on the terminal, if there is one; the function given takes what is `completed` of the
    `total`, in seconds."""
    if not sys.stderr.isatty():
        yield lambda **_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # Segments that go to a file must not go to the terminal instead.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(name, total=None)
        yield functools.partial(bar.update, task)
