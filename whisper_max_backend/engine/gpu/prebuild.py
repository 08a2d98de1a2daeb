"""Compiles what GPUs need, for a wheel; the machine that builds it needs no GPU.

``python -m whisper_max_backend.engine.gpu.prebuild FOLDER --target sm_90``
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from max import driver
from max.dtype import DType

from ..checkpoint.dimensions import PUBLISHED, Dimensions
from ..compile.artifacts import ArtifactSpec
from ..compile.prebuild import put
from ..compile.session import Session
from .graphs.layers import THREADS
from .model import gpu_artifact
from .proofs import newest, proof_artifact

COMPUTE_TYPES = ("bfloat16", "int8_bfloat16")
"""What models run in unless float32 is asked for."""


def prebuild(folder: Path, target: str, models: Sequence[str] = ()) -> None:
    """Put the artifacts for a kind of GPU into a folder; what the cache holds is copied.

    Args:
        folder: Made if it is not there.
        target: An architecture, such as ``"sm_90"`` or ``"gfx942"``.
        models: Of `PUBLISHED`; all of them where none is named.

    Raises:
        subprocess.CalledProcessError: Something does not compile; why is on standard error.
    """
    # MAX takes a pretended GPU for real from the start of a process only.
    command = [sys.executable, "-m", __spec__.name, str(folder), "--target", target, *models]
    subprocess.run(command, check=True)


def pretend_gpu(target: str) -> None:
    """Makes MAX believe in a GPU of an architecture; to be called before MAX looks for one."""
    driver.set_virtual_device_count(1)
    driver.set_virtual_device_api("hip" if target.startswith("gfx") else "cuda")
    driver.set_virtual_device_target_arch(target)


def specs(
    sizes: Sequence[Dimensions], device: driver.Device, session: Session
) -> list[ArtifactSpec]:
    """What a process with such a GPU asks for, to run models of some dimensions."""
    dtype = DType.bfloat16
    generation = newest(device, dtype)
    proofs = [] if generation == THREADS else [proof_artifact(device, dtype, session, generation)]
    return proofs + [
        gpu_artifact(dimensions, compute_type, device, session, generation)
        for compute_type in COMPUTE_TYPES
        for dimensions in sizes
    ]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1, type=click.Choice(list(PUBLISHED)))
@click.option("--target", required=True, help="Architecture of the GPU, such as sm_90.")
def main(folder: Path, models: tuple[str, ...], target: str) -> None:
    """Put the artifacts of MODELS, or of all, for a kind of GPU into FOLDER."""
    pretend_gpu(target)
    device = driver.Accelerator()
    session = Session([device])
    sizes = [PUBLISHED[name] for name in models or PUBLISHED]
    put(specs(sizes, device, session), folder)
    os._exit(0)  # MAX's compiler threads now and then abort a process that ends the usual way


if __name__ == "__main__":
    main()
