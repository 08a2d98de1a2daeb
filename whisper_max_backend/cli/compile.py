"""The command `compile`."""

from __future__ import annotations

import logging
import time

import click

from . import options

_log = logging.getLogger("whisper_max_backend")


@click.command("compile")
@click.argument("model", default=options.DEFAULT_MODEL)
@options.DEVICE
@options.COMPUTE_TYPE
@options.LOCAL_FILES_ONLY
def compile_model(model: str, device: str, compute_type: str, local_files_only: bool) -> None:
    """Compile the graphs of MODEL (name or path) ahead of its first use.

    Models of the same dimensions share them. What is compiled already is left as it is.
    """
    from .. import WhisperModel
    from ..assets import SAMPLE

    start = time.perf_counter()
    try:
        loaded = WhisperModel(
            model,
            device=device,
            compute_type=compute_type,
            local_files_only=local_files_only,
        )
        # A few words with their times pass through every graph.
        segments, _ = loaded.transcribe(str(SAMPLE), language="en", word_timestamps=True)
        list(segments)
    except Exception as error:  # told as a message, with its origin under --verbose
        _log.debug("%s was not compiled", model, exc_info=error)
        raise click.ClickException(f"The model '{model}' cannot be compiled: {error}") from error
    click.echo(f"{model} is ready ({time.perf_counter() - start:.1f} s)")
