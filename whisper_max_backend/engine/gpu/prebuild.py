"""Compiles what GPUs need, for a wheel; they need not be here.

``python -m whisper_max_backend.engine.gpu.prebuild FOLDER --target sm_90``
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from max import driver

from ..checkpoint.dimensions import Dimensions
from ..checkpoint.weight_dtypes import gpu_types
from ..compile.artifacts import ArtifactSpec
from ..compile.prebuild import put
from ..compile.session import Session
from .hopper import is_hopper, products_artifact
from .model import gpu_artifact

COMPUTE_TYPES = ("bfloat16", "int8_bfloat16")
"""What models run in unless float32 is asked for."""


def _sizes(width: int, heads: int, layers: int, text_layers: int = 0) -> dict[str, int]:
    """Of an encoder and a decoder that are equally wide."""
    return {
        "n_audio_ctx": 1500,
        "n_audio_state": width,
        "n_audio_head": heads,
        "n_audio_layer": layers,
        "n_text_ctx": 448,
        "n_text_state": width,
        "n_text_head": heads,
        "n_text_layer": text_layers or layers,
    }


_ENGLISH = {"n_mels": 80, "n_vocab": 51864}
_MULTILINGUAL = {"n_mels": 80, "n_vocab": 51865}
_V3 = {"n_mels": 128, "n_vocab": 51866}
MODELS: Mapping[str, Dimensions] = {
    "tiny.en": Dimensions(**_sizes(384, 6, 4), **_ENGLISH),
    "tiny": Dimensions(**_sizes(384, 6, 4), **_MULTILINGUAL),
    "base.en": Dimensions(**_sizes(512, 8, 6), **_ENGLISH),
    "base": Dimensions(**_sizes(512, 8, 6), **_MULTILINGUAL),
    "small.en": Dimensions(**_sizes(768, 12, 12), **_ENGLISH),
    "small": Dimensions(**_sizes(768, 12, 12), **_MULTILINGUAL),
    "medium.en": Dimensions(**_sizes(1024, 16, 24), **_ENGLISH),
    "medium": Dimensions(**_sizes(1024, 16, 24), **_MULTILINGUAL),
    "large-v2": Dimensions(**_sizes(1280, 20, 32), **_MULTILINGUAL),
    "large-v3": Dimensions(**_sizes(1280, 20, 32), **_V3),
    "large-v3-turbo": Dimensions(**_sizes(1280, 20, 32, 4), **_V3),
    "distil-small.en": Dimensions(**_sizes(768, 12, 12, 4), **_ENGLISH),
    "distil-medium.en": Dimensions(**_sizes(1024, 16, 24, 2), **_ENGLISH),
    "distil-large-v2": Dimensions(**_sizes(1280, 20, 32, 2), **_MULTILINGUAL),
    "distil-large-v3": Dimensions(**_sizes(1280, 20, 32, 2), **_V3),
}
"""What has graphs of its own, by the first name that faster-whisper has for it."""


def prebuild(folder: Path, target: str, models: Sequence[str] = ()) -> None:
    """Put the artifacts for a kind of GPU into a folder; what the cache holds is copied.

    Args:
        folder: Made if it is not there.
        target: An architecture, such as ``"sm_90"`` or ``"gfx942"``.
        models: Of `MODELS`; all of them where none is named.

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


def specs(models: Sequence[str], device: driver.Device, session: Session) -> list[ArtifactSpec]:
    """What a process with such a GPU asks for."""
    found = []
    for compute_type in COMPUTE_TYPES:
        dtype, _ = gpu_types(compute_type)
        hopper = is_hopper(device, dtype)
        if hopper and compute_type == COMPUTE_TYPES[0]:
            found.append(products_artifact(device, dtype, session))
        for name in models:
            found.append(gpu_artifact(MODELS[name], compute_type, device, session, hopper))
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1, type=click.Choice(list(MODELS)))
@click.option("--target", required=True, help="Architecture of the GPU, such as sm_90.")
def main(folder: Path, models: tuple[str, ...], target: str) -> None:
    """Put the artifacts of MODELS, or of all, for a kind of GPU into FOLDER."""
    pretend_gpu(target)
    device = driver.Accelerator()
    session = Session([device])
    put(specs(models or tuple(MODELS), device, session), folder)
    os._exit(0)  # MAX's compiler threads now and then abort a process that ends the usual way


if __name__ == "__main__":
    main()
