"""The command `corpus`."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import click

from . import options
from .transcribe import model_options

_NEEDED = ("pyarrow", "ray")
_EXTRA = "pip install 'whisper-max-backend[corpus]'"

_log = logging.getLogger("whisper_max_backend")


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the corpus, which all machines can write.",
)
@click.option("--model", default=options.DEFAULT_MODEL, show_default=True, help="Name or path.")
@click.option("--backend", default="auto", show_default=True, help="See `whisper-max backends`.")
@options.DEVICE
@options.COMPUTE_TYPE
@options.THREADS
@options.LOCAL_FILES_ONLY
@click.option(
    "-f",
    "--output-format",
    "format",
    type=click.Choice(["parquet", "jsonl"]),
    default="parquet",
    show_default=True,
    help="Of the shards.",
)
@click.option(
    "-w",
    "--write",
    "writes",
    multiple=True,
    metavar="NAME",
    help="Write beside the shards: txt, srt, vtt, tsv, lhotse; may be given several times.",
)
@click.option("--retry-errors", is_flag=True, help="Transcribe again what failed before.")
@click.option(
    "--max-errors", type=click.IntRange(min=0), help="End with status 1 when more have failed."
)
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    help="Recordings in a shard, at most.  [default: 256, and fewer in a small corpus]",
)
@click.option(
    "--ray",
    "address",
    default="local",
    show_default=True,
    envvar="RAY_ADDRESS",
    help="Address of a Ray cluster, or auto; local starts one.",
)
@click.option(
    "--actors",
    type=click.IntRange(min=1),
    help="Processes, at most.  [default: as many as Ray has room for]",
)
@click.option(
    "--gpus",
    type=click.FloatRange(min=0),
    help="GPUs of each process, 0.5 for half of one.  [default: 1 where there are any]",
)
@click.option("--dashboard", is_flag=True, help="Start Ray's dashboard, at 127.0.0.1:8265.")
@options.BATCHED
@options.BATCH_SIZE
@options.GUARDS
@model_options
def corpus(
    inputs: tuple[str, ...],
    out: Path,
    model: str,
    backend: str,
    device: str,
    compute_type: str,
    cpu_threads: int | None,
    local_files_only: bool,
    format: str,
    writes: tuple[str, ...],
    retry_errors: bool,
    max_errors: int | None,
    shard_rows: int | None,
    address: str,
    actors: int | None,
    gpus: float | None,
    dashboard: bool,
    batched: bool,
    batch_size: int | None,
    guards: bool,
    **given: Any,
) -> None:
    """Transcribe INPUTS, thousands of hours of them, on one machine or many, with Ray.

    INPUTS are files, folders, patterns, lists, manifests of NeMo and lhotse, parquet, tar files,
    and data sets of Hugging Face on disk. A run that was stopped goes on when the same command is
    given again. It needs the extra `corpus`: pip install 'whisper-max-backend[corpus]'
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise click.ClickException(f"This needs {', '.join(missing)}: {_EXTRA}")
    if batch_size is not None and not batched:
        raise click.UsageError("--batch-size needs --batched")
    from ..corpus.environment import prepare

    prepare(address)
    from ray.exceptions import RayError

    from ..corpus.corpus import Resources, transcribe_corpus
    from ..corpus.run import RunFailed
    from ..corpus.transcribe import Job
    from ..plugins import PluginError

    model_given = {name: value for name, value in given.items() if value is not None}
    if batch_size is not None:
        model_given["batch_size"] = batch_size
    if guards:
        model_given["guards"] = True
    job = Job(
        folder=out.absolute(),
        model=str(Path(model).absolute()) if Path(model).exists() else model,
        backend=backend,
        device=device,
        compute_type=compute_type,
        loading={"local_files_only": True} if local_files_only else {},
        options=model_given,
        batched=batched,
        format=format,
        writes=writes,
    )
    try:
        transcribe_corpus(
            inputs,
            job,
            Resources(address, dashboard, actors, cpu_threads, gpus),
            retry_errors=retry_errors,
            max_errors=max_errors,
            shard_rows=shard_rows,
        )
    except (ValueError, OSError, PluginError, RunFailed, RayError) as error:
        _log.debug("the corpus was not transcribed", exc_info=error)
        raise click.ClickException(str(error)) from error
