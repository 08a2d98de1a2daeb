"""The least time of a launch, from its kernel's machine code and the card's constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from benchmarks.gpu.predict import cards
from benchmarks.gpu.predict.cards import Card
from benchmarks.gpu.predict.kernels import Kernel
from benchmarks.gpu.predict.launches import Launch
from benchmarks.gpu.predict.scheduler import Scheduled, schedule


@dataclass(frozen=True)
class Prediction:
    """Of one launch.

    Attributes:
        launch: What was launched.
        kernel: The kernel; None for what is counted alone.
        seconds: Least time of the launch, with the gap before it.
        limit: Seconds of its operations at the card's measured rate or of its bytes, if that is
            more.
        bound: What takes the time: ``"instructions"``, ``"l2"``, ``"memory"``, ``"operations"`` or
            ``"counted"``.
        resident: Blocks that a multiprocessor has room for.
        rounds: How often the busiest multiprocessor is filled with blocks.
        busy: Share of its time in which the busiest unit of a scheduler works, and its name.
    """

    launch: Launch
    kernel: Kernel | None
    seconds: float
    limit: float
    bound: str
    resident: int = 0
    rounds: int = 0
    busy: tuple[str, float] = ("", 0)

    @property
    def total(self) -> float:
        """Seconds of all such launches of the stage."""
        return self.launch.count * self.seconds


def resident_blocks(registers: int, shared: int, threads: int) -> int:
    """How many blocks a multiprocessor has room for.

    Args:
        registers: Of a thread.
        shared: Bytes of a block.
        threads: Of a block.
    """
    warps = ceil(threads / cards.WARP)
    unit = cards.REGISTER_UNIT
    of_warp = ceil(registers * cards.WARP / unit) * unit
    # A scheduler has a quarter of the registers, and a whole number of warps.
    by_registers = cards.REGISTERS // cards.SCHEDULERS // of_warp * cards.SCHEDULERS // warps
    by_shared = cards.SHARED_BYTES // (shared + cards.SHARED_RESERVED)
    return min(by_registers, by_shared, cards.MAX_WARPS // warps, cards.MAX_BLOCKS)


def predicted(
    launches: Sequence[Launch], kernels: Sequence[Kernel], card: Card
) -> list[Prediction]:
    """Every launch's least time.

    Raises:
        LookupError: A launch has no kernel, or several.
    """
    return [_predict(launch, _kernel_of(launch, kernels), card) for launch in launches]


def _kernel_of(launch: Launch, kernels: Sequence[Kernel]) -> Kernel | None:
    if launch.kernel is None:
        return None
    found = [kernel for kernel in kernels if launch.kernel in kernel.name]
    if len(found) != 1:
        names = [kernel.name for kernel in found or kernels]
        raise LookupError(f"{launch.label}: one kernel should be {launch.kernel} of {names}")
    return found[0]


def _predict(launch: Launch, kernel: Kernel | None, card: Card) -> Prediction:
    times = {
        "memory": launch.bytes / card.dram_bytes,
        "l2": launch.requested / card.l2_bytes,
        "operations": launch.operations / card.operations,
    }
    limit = max(times["memory"], times["operations"])
    if kernel is None:
        return Prediction(launch, None, cards.LAUNCH_SECONDS + limit, limit, "counted")
    resident = resident_blocks(kernel.registers, kernel.shared + launch.dynamic, launch.threads)
    blocks = ceil(launch.blocks / card.multiprocessors)
    warps = ceil(launch.threads / cards.WARP / cards.SCHEDULERS)

    def run(together: int) -> Scheduled:
        return schedule(kernel.program, launch.loops, launch.source, together, warps)

    full, rest = divmod(blocks, resident)
    first = run(min(blocks, resident))
    cycles, busy = first.cycles, first.busy
    whole = full * cycles + (run(rest).cycles if full and rest else 0 if full else cycles)
    # What comes before the wait is done beside the kernel before, as if there were always room.
    times["instructions"] = (whole - first.waited) / card.hertz
    gap = cards.EARLY_SECONDS if first.waited else cards.LAUNCH_SECONDS
    bound = max(times, key=lambda name: times[name])
    unit = max(busy, key=lambda name: busy[name])
    return Prediction(
        launch,
        kernel,
        gap + times[bound],
        limit,
        bound,
        resident,
        ceil(blocks / resident),
        (unit, busy[unit] / cycles),
    )
