"""``python -m benchmarks gpu``: checks every kernel and the tokens, then times, on one device.

The record has the ``device``, its ``limits``, checks of ``products``, ``kernels`` and ``tokens``,
and ``cases``, the rows of `benchmarks.gpu.cases`, beside ``peers`` and the cases of an ``old``
checkout; ``stages`` tells how long each took, and ``failures`` are parts that ended early.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu import HOST_TARGET
from benchmarks.gpu.predict.cards import CARDS
from benchmarks.record import results_option

SIZES = ("base", "large-v3", "large-v3-turbo")


@click.command()
@click.option(
    "--device",
    type=click.Choice(["gpu", "cpu"]),
    default="gpu",
    show_default=True,
    help="cpu runs everything at miniature sizes, to test the command itself.",
)
@click.option("--target", help="Compile for a GPU that need not be here, e.g. sm_90, and stop.")
@click.option(
    "--predict",
    type=click.Choice(list(CARDS)),
    is_flag=False,
    flag_value="H200",
    help="Predict the times of a GPU that need not be here from the kernels' machine code "
    "[H200 where none is named], and stop.",
)
@click.option("--artifacts", type=click.Path(path_type=Path), help="Folder of compiled graphs.")
@click.option(
    "--peers",
    default="faster_whisper,transformers",
    show_default=True,
    help="Whom to compare with; empty: nobody.",
)
@click.option(
    "--int8/--no-int8", default=True, show_default=True, help="Models with int8 weights, too."
)
@click.option("--sizes", default=",".join(SIZES), show_default=True, help="Models to time.")
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True),
    help="A real model's directory, for the end-to-end cases; base, where the test extra is.",
)
@click.option(
    "--call",
    type=click.IntRange(1, 2),
    help="One of two parts of the run, for a GPU that is lent for minutes; 2 adds to the record "
    "of 1.  [default: both]",
)
@click.option("--stages", default="", help="Stages to run, by name.  [default: all]")
@click.option(
    "--seconds",
    type=float,
    help="Begin no further stage after so many seconds.  [default: no limit]",
)
@click.option(
    "--old",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A checkout of another commit: its encoder and steps are timed beside.",
)
@results_option
def main(
    device: str,
    target: str | None,
    predict: str | None,
    artifacts: Path | None,
    sizes: str,
    peers: str,
    int8: bool,
    model: Path | None,
    call: int | None,
    stages: str,
    seconds: float | None,
    old: Path | None,
    results: Path,
) -> None:
    """Check every kernel against float64, tokens against the CPU, then time."""
    # What the environment says is read when these modules are imported, so they are imported late.
    os.environ.setdefault("MODULAR_TELEMETRY_ENABLED", "0")
    if artifacts:
        os.environ["WHISPER_MAX_CACHE"] = str(artifacts.resolve())
    if predict:
        from benchmarks.gpu.predict.report import predict as tell

        tell(_named(sizes), predict, results)
        return
    from max.driver import CPU, Accelerator, accelerator_count, set_virtual_cpu_target

    names = ["miniature"] if device == "cpu" else _named(sizes)
    if target:
        from whisper_max_backend.engine.gpu.prebuild import pretend_gpu

        pretend_gpu(target)
    if device == "gpu":
        set_virtual_cpu_target(HOST_TARGET)
        if not target and accelerator_count() == 0:
            raise click.ClickException(
                "no GPU is found: --device cpu tests the command, --target compiles ahead"
            )
    place = CPU() if device == "cpu" else Accelerator()
    if target:
        _compile(place, names)
        return
    from benchmarks.gpu.run import FIRST_CALL, SECOND_CALL, STAGES, Run

    wanted = _named(stages) or {None: STAGES, 1: FIRST_CALL, 2: SECOND_CALL}[call]
    unknown = set(wanted) - set(STAGES)
    if unknown:
        raise click.ClickException(f"no stages: {unknown}; there are {', '.join(STAGES)}")
    run = Run(place, names, _named(peers), int8, model, old, results, resume=call == 2)
    sys.exit(0 if run.all(wanted, seconds) else 1)


def _named(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _compile(place: Any, names: list[str]) -> None:
    """Everything that a run on such a device needs."""
    from max.driver import CPU
    from max.dtype import DType

    from benchmarks.gpu.device import product_artifact
    from benchmarks.gpu.models import SIZES as DIMENSIONS
    from benchmarks.gpu.products import products_artifact
    from benchmarks.gpu.run import SIDE, types_of
    from compat_tests.support.gpu_kernels import kernels_artifact
    from whisper_max_backend.engine.checkpoint.weight_dtypes import Storage
    from whisper_max_backend.engine.compile.artifacts import compiled
    from whisper_max_backend.engine.compile.cache import cache_folder
    from whisper_max_backend.engine.compile.session import Session
    from whisper_max_backend.engine.cpu.model import cpu_artifact
    from whisper_max_backend.engine.cpu.model_independent_graphs import common_artifact
    from whisper_max_backend.engine.gpu.graphs.layers import THREADS
    from whisper_max_backend.engine.gpu.model import gpu_artifact
    from whisper_max_backend.engine.gpu.prebuild import specs

    session = Session([place])
    wanted = [kernels_artifact(place, dtype, session) for dtype in types_of(place)]
    wanted.append(product_artifact(place, DType.bfloat16, session, SIDE))
    wanted.append(products_artifact(place, DType.bfloat16, session))
    wanted += [
        gpu_artifact(DIMENSIONS["miniature"], kind, place, session, THREADS)
        for kind in ("float32", "int8_float32")
    ]
    wanted += specs([DIMENSIONS[name] for name in names], place, session)
    host = CPU()
    on_host = Session([host])
    wanted.append(common_artifact(on_host))
    storages = (DType.float32, DType.float16)
    wanted += [
        cpu_artifact(Storage(DType.float32, s, DType.float32), host, on_host) for s in storages
    ]
    for spec in wanted:
        compiled(**spec)
        click.echo(f"{spec['name']} is ready")
    size = sum(file.stat().st_size for file in cache_folder().glob("*.mef"))
    click.echo(f"{cache_folder()}: {size / 2**20:.1f} MiB")
