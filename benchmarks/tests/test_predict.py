"""The model of a GPU: what it reads in machine code, and what it makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.gpu.models import SIZES
from benchmarks.gpu.predict import cards, kernels
from benchmarks.gpu.predict.cards import CARDS
from benchmarks.gpu.predict.kernels import Kernel, NoTools
from benchmarks.gpu.predict.launches import Launch, encoder_launches, step_launches
from benchmarks.gpu.predict.model import predicted, resident_blocks
from benchmarks.gpu.predict.report import predict
from benchmarks.gpu.predict.sass import parse
from benchmarks.gpu.predict.scheduler import Loop, Scheduled, schedule
from benchmarks.record import read


def line(text: str, stall: int = 1, result: int = 7, waits: int = 0) -> str:
    """An instruction as `nvdisasm` prints it."""
    control = (waits << 11 | 7 << 8 | result << 5 | stall) << 41
    return f"        /*0000*/   {text} ;   /* {0:#018x} */\n   /* {control:#018x} */"


def code(*lines: str) -> str:
    return "\n".join(lines)


LOOP = code(
    line("S2R R0, SR_TID.X", result=0),
    ".L_x_0:",
    line("@!P0 LDG.E.128 R4, desc[UR4][R2.64+0x10]", result=1, waits=1),
    line("HMMA.16816.F32.BF16 R20, R4, R8, R20", stall=4, waits=2),
    line("@P1 BRA `(.L_x_0)"),
    line("STG.E desc[UR4][R2.64], R20"),
    line("EXIT"),
    ".L_x_1:",
    line("BRA `(.L_x_1)"),
)


def run(text: str, *loops: Loop, source: str = "l2", blocks: int = 1, warps: int = 1) -> Scheduled:
    return schedule(parse(text), loops, source, blocks, warps)


def test_a_program() -> None:
    program = parse(LOOP)
    load, product, back = program.instructions[1:4]
    assert (load.kind, load.bytes, load.predicated, load.waits, load.result) == (
        *("LDG", 16, True),
        *((0,), 1),
    )
    assert load.address == (2, 16)
    assert list(load.written) == [4, 5, 6, 7]
    assert (product.stall, product.result) == (4, None)
    assert (back.target, back.jumps) == (1, False)
    assert program.ends == [3], "the last branch, to itself, is no loop"
    assert program.innermost() == [None, 0, 0, 0, None, None, None]
    assert program.loop(0) == {"LDG": 1, "HMMA": 1, "BRA": 1}


def test_a_warp_waits_for_what_it_loads() -> None:
    once, twice = run(LOOP), run(LOOP, Loop(2))
    assert once.issued["HMMA"] == 1
    assert twice.issued["HMMA"] == 2
    latency = cards.LATENCIES["l2"]
    assert latency < once.cycles < latency + 100
    # The second time, the same address of the same register is in the L1 cache.
    assert cards.LATENCIES["l1"] < twice.cycles - once.cycles < cards.LATENCIES["l1"] + 20
    longer = run(LOOP, Loop(1, "dram")).cycles - once.cycles
    assert longer == cards.LATENCIES["dram"] - latency


def test_warps_share_a_unit() -> None:
    """Eight warps hide each other's latency, and wait for the tensor unit."""
    products = code(*[line("HMMA.16816.F32.BF16 R20, R4, R8, R20", stall=15)] * 50, line("EXIT"))
    alone, together = run(products), run(products, blocks=4, warps=2)
    assert alone.cycles == pytest.approx(50 * 15, abs=1)
    assert together.cycles == pytest.approx(8 * 50 * cards.MMA_16816_CYCLES, rel=0.05)


def test_a_barrier_is_of_a_block() -> None:
    slow = code(line("LDG.E R4, desc[UR4][R2.64]", result=0), line("IADD3 R5, R4, R4, RZ", waits=1))
    text = code(slow, line("BAR.SYNC 0x0"), line("EXIT"))
    one, two = run(text), run(text, warps=2)
    assert two.cycles > one.cycles
    assert two.issued["BAR"] == 2


def test_copies_to_shared_memory() -> None:
    """A warp waits for the older of two groups alone."""
    group = [line("LDGSTS.E.BYPASS.128 [R13], desc[UR4][R14.64]"), line("LDGDEPBAR")]
    first = run(code(*group, *group, line("DEPBAR.LE SB0, 0x1"), line("EXIT"))).cycles
    both = run(code(*group, *group, line("DEPBAR.LE SB0, 0x0"), line("EXIT"))).cycles
    assert both - first == 16 * 32 * cards.SCHEDULERS / cards.L1_BYTES_PER_CYCLE


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "blocks"),
    [
        (158, 26240, 256, 1),  # 160 registers of 8 warps: one, and another would not fit
        (128, 26240, 256, 2),
        (222, 50176, 128, 2),
        (32, 0, 1024, 2),  # 64 warps
        (16, 0, 32, 32),  # the most blocks
        (32, 120_000, 64, 1),  # shared memory
        (255, 0, 1024, 0),
    ],
)
def test_resident_blocks(registers: int, shared: int, threads: int, blocks: int) -> None:
    assert resident_blocks(registers, shared, threads) == blocks


def test_rounds() -> None:
    """A block more than there is room for takes as long as another round."""
    kernel = Kernel("a_Kernel_1", 32, 120_000, 0, LOOP)
    card = CARDS["H200"]
    launch = Launch("one", "Kernel", card.multiprocessors, 128)
    over = dataclasses.replace(launch, blocks=card.multiprocessors + 1)
    one, two = predicted([launch, over], [kernel], card)
    assert (one.rounds, two.rounds, one.bound) == (1, 2, "instructions")
    gap = cards.LAUNCH_SECONDS
    assert two.seconds - gap == pytest.approx(2 * (one.seconds - gap))
    heavy = dataclasses.replace(launch, bytes=card.dram_bytes)
    (found,) = predicted([heavy], [kernel], card)
    assert (found.bound, found.limit) == ("memory", 1)
    assert found.seconds == 1 + gap


def test_a_launch_without_a_kernel() -> None:
    launch = Launch("one", "Kernel", 1, 128)
    with pytest.raises(LookupError, match="one kernel should be Kernel"):
        predicted([launch], [Kernel("other", 32, 0, 0, LOOP)], CARDS["H200"])


def test_work_of_the_stages() -> None:
    """What is launched is what is counted elsewhere, for every size."""
    from benchmarks.gpu.models import device_step_bytes
    from benchmarks.operations import encoder_operations

    for name in ("base", "large-v3", "large-v3-turbo"):
        d = SIZES[name]
        operations = sum(one.count * one.operations for one in encoder_launches(d, 3))
        assert operations == pytest.approx(3 * encoder_operations(d))
        read = sum(one.count * one.bytes for one in step_launches(d, 1, 5))
        assert read == pytest.approx(device_step_bytes(d, "bfloat16"), rel=0.05)


def test_missing_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(NoTools, match="pip install"):
        kernels.tool("nvdisasm")


@pytest.mark.slow
def test_kernels_of_the_repository(tmp_path: Path) -> None:
    """They compile, every launch finds its own, and their least time is between the hardware's
    limit and what was measured."""
    try:
        kernels.tool("nvdisasm")
    except NoTools as missing:
        pytest.skip(str(missing))
    predict(["base"], "H200", tmp_path)
    (path,) = tmp_path.glob("gpu-predicted-h200-*.json")
    found = read(path).found
    assert [row["measured"] is None for row in found["predicted"]] == [False, False, False, True]
    for row in found["predicted"]:
        assert row["limit"] < row["seconds"] < (row["measured"] or 1), row
    # Products of 32 rows need a little more than a thread's registers.
    spilled = {row["case"] for row in found["launches"] if row["local"]}
    assert spilled <= {"base, decoder step, 20 windows, greedy"}
    assert all(row["local"] <= 16 for row in found["launches"] if row["registers"])
