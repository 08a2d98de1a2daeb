"""Options that commands share."""

from __future__ import annotations

from typing import Any

import click

DEFAULT_MODEL = "tiny.en"

DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
COMPUTE_TYPE = click.option(
    "--compute-type",
    default="default",
    show_default=True,
    help="float32, int8, ...; default is the model file's, auto the fastest.",
)
THREADS = click.option(
    "--threads", "cpu_threads", type=click.IntRange(min=0), help="Threads that compute on a CPU."
)
LOCAL_FILES_ONLY = click.option(
    "--local-files-only", is_flag=True, help="Fetch no model from the Hugging Face hub."
)
POLICY = click.option(
    "--policy",
    type=click.Choice(["alignatt", "local-agreement"]),
    default="alignatt",
    show_default=True,
    help="When a word is committed.",
)
CHUNK = click.option(
    "--chunk",
    type=click.FloatRange(0.1, 10),
    default=1.0,
    show_default=True,
    help="Seconds of new audio that a decoding waits for.",
)


def loading(cpu_threads: int | None, local_files_only: bool) -> dict[str, Any]:
    """Two of these options as arguments of `load_model`; only what was asked for."""
    given: dict[str, Any] = {"local_files_only": True} if local_files_only else {}
    if cpu_threads is not None:
        given["cpu_threads"] = cpu_threads
    return given


BATCHED = click.option("--batched", is_flag=True, help="Transcribe several windows at once.")
BATCH_SIZE = click.option(
    "--batch-size", type=click.IntRange(min=1), help="How many (with --batched)."
)
GUARDS = click.option(
    "--guards", is_flag=True, help="Leave out what nobody said, and find speech without text."
)
