"""Options that commands share."""

from __future__ import annotations

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
