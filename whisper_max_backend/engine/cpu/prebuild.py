"""Compiles all that CPUs need, for a wheel: ``python -m ...engine.cpu.prebuild``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from max.driver import CPU
from max.dtype import DType

from ..checkpoint.weight_dtypes import Storage
from ..compile.cpu_target import TARGETS, VARIABLE, has_bfloat16, has_tiles
from ..compile.prebuild import put
from ..compile.session import Session
from .model import cpu_artifact
from .model_independent_graphs import common_artifact


def storages() -> tuple[Storage, ...]:
    """Every way in which this processor keeps the numbers of a model (`dtypes.storage_for`)."""
    halves = [Storage(DType.float32, DType.bfloat16, DType.float32)]
    if has_bfloat16():
        halves = [Storage(DType.bfloat16, DType.bfloat16, DType.bfloat16)]
        if not has_tiles():
            halves.append(Storage(DType.bfloat16, DType.float16, DType.bfloat16))
    return (
        Storage(DType.float32, DType.float32, DType.float32),
        Storage(DType.float32, DType.float16, DType.float32),
        *halves,
        Storage(DType.int8, DType.int8, DType.int8),
    )


def prebuild(folder: Path, targets: Sequence[str] = TARGETS) -> None:
    """Put the artifacts for some processors into a folder; what the cache holds is copied.

    Args:
        folder: Made if it is not there.
        targets: LLVM names of processors.

    Raises:
        subprocess.CalledProcessError: Something does not compile; why is on standard error.
    """
    for target in targets:
        # A process compiles for one processor only.
        subprocess.run(
            [sys.executable, "-m", __spec__.name, str(folder)],
            env={**os.environ, VARIABLE: target},
            check=True,
        )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Put the artifacts for the processor of WHISPER_MAX_CPU_TARGET into FOLDER."""
    device = CPU()
    session = Session([device])
    wanted = [common_artifact(session)]
    wanted += [cpu_artifact(storage, device, session) for storage in storages()]
    put(wanted, folder)


if __name__ == "__main__":
    main()
