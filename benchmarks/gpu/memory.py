"""``python -m benchmarks.gpu.memory SIZE``: the device memory of one model, in a fresh process."""

from __future__ import annotations

import json

import click

from benchmarks.gpu.models import SIZES


@click.command()
@click.argument("size", type=click.Choice(list(SIZES)))
@click.option("--device", type=click.Choice(["gpu", "cpu"]), default="gpu")
@click.option("--compute-type", default="bfloat16")
@click.option("--tokens", default=100)
def main(size: str, device: str, compute_type: str, tokens: int) -> None:
    """Print the most MiB that loading a model and transcribing a window with five beams takes."""
    from max.driver import CPU, set_virtual_cpu_target

    from benchmarks.gpu import HOST_TARGET
    from benchmarks.gpu.cases import RandomModel
    from benchmarks.gpu.device import Watch, memory_used
    from whisper_max_backend.engine.api.devices import open_gpu

    if device == "gpu":
        set_virtual_cpu_target(HOST_TARGET)
    before = memory_used()
    with Watch() as watch:
        place = CPU() if device == "cpu" else open_gpu(0)
        model = RandomModel(SIZES[size], compute_type, place)
        for _ in range(3):
            model.generate(1, tokens, 5)
    peak = None if before is None or watch.peak_mib is None else watch.peak_mib - before
    print(json.dumps({"peak_memory_mib": peak}))


if __name__ == "__main__":
    main()
