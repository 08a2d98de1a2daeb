"""The command `wyoming`."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import click

from . import options


@click.command()
@click.option(
    "--uri",
    default="tcp://127.0.0.1:10300",
    show_default=True,
    help="Address to listen on: tcp://host:port or unix:///path.",
)
@click.option("--model", default=options.DEFAULT_MODEL, show_default=True, help="Name or path.")
@options.COMPUTE_TYPE
@options.THREADS
@options.LOCAL_FILES_ONLY
@click.option("--language", help="Of requests that name none; detected if not given.")
@options.POLICY
@options.CHUNK
def wyoming(
    uri: str,
    model: str,
    compute_type: str,
    cpu_threads: int | None,
    local_files_only: bool,
    language: str | None,
    policy: str,
    chunk: float,
) -> None:
    """Serve live speech to text to Home Assistant, by the Wyoming protocol.

    The server is for this machine alone, unless --uri says otherwise. It needs the extra `wyoming`:
    pip install 'whisper-max-backend[wyoming]'
    """
    if importlib.util.find_spec("wyoming") is None:
        raise click.ClickException(
            "The server needs wyoming: pip install 'whisper-max-backend[wyoming]'"
        )
    from .. import WhisperModel
    from ..adapters.wyoming import Service, serve

    try:
        loaded = WhisperModel(
            model,
            device="cpu",
            compute_type=compute_type,
            **options.loading(cpu_threads, local_files_only),
        )
        service = Service(
            loaded,
            Path(model).name,
            language,
            policy,  # type: ignore[arg-type]  # click has checked it
            chunk,
        )
        service.open().close()  # raises what every request would
        click.echo(f"{service.name} listens on {uri}", err=True)
        asyncio.run(serve(uri, service))
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
