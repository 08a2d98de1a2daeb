"""``python -m benchmarks.cpu.onednn``: FLOP/s of oneDNN's bfloat16 product, as PyTorch calls it.

What a well-kept library reaches on the machine, where it may read and write: less than the tile
units alone. A process of its own, for the sake of PyTorch's threads.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from subprocess import run
from typing import Any

from benchmarks.cpu.limits import shortest
from benchmarks.machine import cores
from benchmarks.record import ROOT

ROWS, INPUTS, OUTPUTS = 1500, 512, 2048
"""A window of `base` through the first half of a feed-forward layer."""
_TOGETHER = 20
"""Products that are timed as one."""


def onednn_rate() -> float | None:
    """FLOP/s on all cores, or None without PyTorch."""
    if find_spec("torch") is None:
        return None
    command = [sys.executable, "-m", __name__]
    result = run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(result.stdout)


def main() -> None:
    """Prints the rate."""
    torch: Any = import_module("torch")
    torch.set_num_threads(cores())
    rows = torch.randn(ROWS, INPUTS, dtype=torch.bfloat16)
    layer = torch.nn.Linear(INPUTS, OUTPUTS, bias=False, dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(_TOGETHER):
            layer(rows)

    with torch.no_grad():
        seconds = shortest(products)
    print(_TOGETHER * 2 * ROWS * INPUTS * OUTPUTS / seconds)


if __name__ == "__main__":
    main()
