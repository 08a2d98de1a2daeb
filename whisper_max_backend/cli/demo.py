"""The command `demo`."""

from __future__ import annotations

import importlib.util
import logging

import click

from . import options

_log = logging.getLogger("whisper_max_backend")


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    default=[options.DEFAULT_MODEL],
    show_default=True,
    help="Name or path; several times: visitors choose.",
)
@click.option("--backend", "names", multiple=True, help="Offer these only; see `backends`.")
@click.option("--compute-type", "compute_types", multiple=True, help="Offer these only.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="[default: the first free one from 7860 on]"
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Longest recording, and longest time to speak.",
)
@click.option(
    "--max-upload-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=50,
    show_default=True,
    help="Largest file.",
)
@click.option(
    "--max-speakers",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Visitors who may speak at once; 0: the page has no tab Live.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this name, too: what a reverse proxy is known as.",
)
@click.option("--share", is_flag=True, help="A public address, through Gradio's servers.")
@options.THREADS
@options.LOCAL_FILES_ONLY
def demo(
    models: tuple[str, ...],
    names: tuple[str, ...],
    compute_types: tuple[str, ...],
    host: str,
    port: int | None,
    max_minutes: float,
    max_upload_mb: float,
    max_speakers: int,
    hosts: tuple[str, ...],
    share: bool,
    cpu_threads: int | None,
    local_files_only: bool,
) -> None:
    """Compare backends side by side on a web page, with your own recordings.

    The page is for this machine alone, unless --host or --share say otherwise. It needs the extra
    `web`: pip install 'whisper-max-backend[web]'
    """
    if importlib.util.find_spec("gradio") is None:
        raise click.ClickException("The page needs Gradio: pip install 'whisper-max-backend[web]'")
    from ..comparison.choices import usable_choices
    from ..demo.recording import Limits
    from ..demo.server import serve
    from ..plugins import PluginError, backends

    loading = options.loading(cpu_threads, local_files_only)
    try:
        choices = usable_choices(backends().values(), names, compute_types)
        limits = Limits(max_minutes, max_upload_mb, max_speakers)
        serve(models, choices, limits, loading, host, port, share, hosts)
    except (ValueError, OSError, PluginError) as error:
        _log.debug("the page cannot be served", exc_info=error)
        raise click.ClickException(str(error)) from error
