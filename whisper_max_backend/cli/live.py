"""The command `live`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from . import live_audio, options

if TYPE_CHECKING:
    from ..live import LiveWord, Update


class _View(Protocol):
    def show(self, update: Update, seconds: float) -> None: ...


@click.command()
@click.argument("source")
@click.option("--model", default=options.DEFAULT_MODEL, show_default=True, help="Name or path.")
@options.COMPUTE_TYPE
@options.THREADS
@options.LOCAL_FILES_ONLY
@click.option("--language", help="Language spoken, e.g. en; detected if not given.")
@click.option(
    "--task",
    type=click.Choice(["transcribe", "translate"]),
    default="transcribe",
    show_default=True,
    help="translate: into English.",
)
@options.POLICY
@options.CHUNK
@click.option("--fast", is_flag=True, help="Play a file as fast as it is transcribed.")
def live(
    source: str,
    model: str,
    compute_type: str,
    cpu_threads: int | None,
    local_files_only: bool,
    language: str | None,
    task: str,
    policy: str,
    chunk: float,
    fast: bool,
) -> None:
    """Transcribe SOURCE while it is heard: a file, which is played in real time, mic for the
    microphone until Ctrl-C, or - for audio on standard input (16 bits, mono, 16 kHz).

    On a terminal, words that may still change are dim. Elsewhere, only words that stay are written.
    """
    if source == "mic":
        heard = live_audio.microphone()
    elif source == "-":
        heard = live_audio.standard_input()
    else:
        heard = live_audio.played(source, not fast)
    from .. import WhisperModel
    from ..live import LiveTranscriber

    try:
        loaded = WhisperModel(
            model,
            device="cpu",
            compute_type=compute_type,
            **options.loading(cpu_threads, local_files_only),
        )
        transcriber = LiveTranscriber(
            loaded,
            policy,  # type: ignore[arg-type]  # click has checked it
            language=language,
            task=task,
            min_chunk=chunk,
        )
    except (RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    seconds = 0.0
    with _view() as view:
        try:
            for piece, rate in heard:
                seconds += len(piece) / rate
                view.show(transcriber.push(piece, rate), seconds)
        except KeyboardInterrupt:
            if source != "mic":
                raise
        view.show(transcriber.finish(), seconds)


@contextmanager
def _view() -> Iterator[_View]:
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.live import Live

    with Live(refresh_per_second=8, vertical_overflow="visible") as screen:
        yield Screen(screen)
    print()


class _Lines:
    """Committed words as they come, for files and pipes."""

    def show(self, update: Update, seconds: float) -> None:
        if update.committed:
            click.echo(update.committed_text, nl=False)
            sys.stdout.flush()


class Screen:
    """Committed words, tentative ones dim, and how far behind it is."""

    def __init__(self, screen: Any) -> None:
        self._screen = screen
        self._committed: list[LiveWord] = []

    def show(self, update: Update, seconds: float) -> None:
        from rich.text import Text

        from ..live.words import joined

        self._committed += update.committed
        self._screen.update(
            Text.assemble(
                (f"{seconds:6.1f} s, {update.behind:3.1f} s behind\n", "cyan"),
                joined(self._committed).strip(),
                (update.tentative_text, "dim"),
            )
        )
