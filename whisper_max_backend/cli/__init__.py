"""The command `whisper-max`."""

from __future__ import annotations

import logging

import click

from .cache import show_cache
from .compare import compare
from .compile import compile_model
from .corpus import corpus
from .demo import demo
from .inventory import list_backends, list_plugins
from .live import live
from .run import run
from .transcribe import transcribe
from .wyoming import wyoming


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="whisper-max-backend")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, and where errors come from.")
def main(verbose: bool) -> None:
    """Speech to text: faster-whisper on MAX graphs and Mojo kernels."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("whisper_max_backend").setLevel(logging.DEBUG if verbose else logging.INFO)
    if verbose:
        logging.getLogger("faster_whisper").setLevel(logging.DEBUG)


for _command in (
    *(transcribe, corpus, live, wyoming, run, list_backends, list_plugins),
    *(compile_model, show_cache, compare, demo),
):
    main.add_command(_command)
