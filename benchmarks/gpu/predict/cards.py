"""What is known of GPUs: the constants of the model, each with where it is from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        multiprocessors: How many it has.
        hertz: Boost clock of the data sheet, at which its operations a second are counted.
        operations: bfloat16 operations a second that a large product was measured to reach.
        dram_bytes: Bytes a second that a copy within its memory was measured to move.
        l2_bytes: Bytes a second between the L2 cache and all multiprocessors (Chips and Cheese,
            H100 PCIe, scaled by multiprocessors and clock).
    """

    multiprocessors: int
    hertz: float
    operations: float
    dram_bytes: float
    l2_bytes: float


CARDS = {
    # benchmarks/results/gpu-nvidia-h200.json
    "H200": Card(132, 1.83e9, 771e12, 4.26e12, 6.7e12),
    # The same processor with slower memory; measured like the H200.
    "H100": Card(132, 1.83e9, 798e12, 3.0e12, 6.7e12),
}

SCHEDULERS = 4
"""Of a multiprocessor; each issues one instruction a cycle, of one of its warps."""
REGISTERS = 65536
REGISTER_UNIT = 256
"""Registers are given to a warp in multiples of it."""
SHARED_BYTES = 233_472
"""Of a multiprocessor, 228 KiB."""
SHARED_RESERVED = 1024
"""That the system takes of it for each block."""
MAX_WARPS = 64
MAX_BLOCKS = 32
WARP = 32

LAUNCH_SECONDS = 1.3e-6
"""From the end of a kernel to the start of the next one that waits for it, in a captured graph."""
EARLY_SECONDS = 0.7e-6
"""Likewise of one that has begun before, and only has to be told. Assumed, not measured."""

LATENCIES = {"l1": 41, "shared": 29, "l2": 263, "dram": 479}
"""Cycles from a load to its result (Luo et al., arXiv 2402.13499, H100)."""
OTHER_LATENCY = 24
"""Cycles of shuffles, special functions and other instructions of no fixed latency."""
BARRIER_CYCLES = 20
"""From the arrival of a block's last warp to the next instruction."""

MMA_SHARE = 0.629
"""Of the tensor units' peak that mma.sync reaches on Hopper, wgmma alone more (Luo et al.)."""
MULTIPLICATIONS = 512
"""Of half types, each with an addition, that a scheduler's tensor unit does in a cycle."""
MMA_16816_CYCLES = 16 * 8 * 16 / MULTIPLICATIONS / MMA_SHARE
"""Of a scheduler's tensor unit, for one mma.sync.m16n8k16."""
SHARED_BYTES_PER_CYCLE = 128
"""Of a multiprocessor's shared memory."""
L1_BYTES_PER_CYCLE = 64
"""Between a multiprocessor and the L2 cache."""

HALF_RATE = 2
"""Cycles that an instruction of a warp keeps a unit of 16 lanes busy."""
SPECIAL = 8
"""Cycles that it keeps the special function unit busy."""
