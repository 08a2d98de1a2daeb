"""What a stage launches: the launches of mojo/whisper_kernels/gpu, as its graphs make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from benchmarks.gpu.predict.scheduler import Loop
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.gpu.graphs.attention import SPLITS
from whisper_max_backend.engine.gpu.graphs.decoder import BLOCKS_PER_ROW
from whisper_max_backend.engine.gpu.graphs.layers import FEW_ROWS

HALF = 2
"""Bytes of a number of a half type."""
FLOAT = 4
POSITION = 20
"""Of the step that is predicted: `benchmarks.gpu.cases` times steps 3 to 43."""
CANDIDATES = 2
"""For each beam."""
GROUPS = 4
"""Of eight rows, in a product of more than eight (gpu/linear/layer.mojo)."""
EARLY_READER = 2
"""A kernel that reads weights while the one before it still works (gpu/launch.mojo)."""
RESIDENT_BLOCKS = 264
"""Of a product with a norm: where there are more, three share a multiprocessor, not two."""
ENOUGH_BLOCKS = 256
"""Of cross-attention, so that frames are not split (gpu/cross_attention.mojo)."""

_BFLOAT16, _FLOAT32 = "DType_bfloat16", "DType_float32"


@dataclass(frozen=True)
class Launch:
    """A launch of a kernel.

    Attributes:
        label: What it does.
        kernel: What the kernel's name has in it; None for one of MAX's, whose work is counted.
        blocks: Of the grid.
        threads: Of a block.
        loops: Of the kernel's code in the order of their ends, with their trips.
        source: Where loads outside of loops find their data: ``"l1"``, ``"l2"`` or ``"dram"``.
        operations: Of its products.
        bytes: That it must move through the card's memory: what no cache has.
        requested: Bytes that its blocks ask the L2 cache for.
        count: How often the stage makes it.
        dynamic: Bytes of shared memory of a block that the launch adds.
    """

    label: str
    kernel: str | None
    blocks: int
    threads: int
    loops: tuple[Loop, ...] = ()
    source: str = "l2"
    operations: float = 0
    bytes: float = 0
    requested: float = 0
    count: int = 1
    dynamic: int = 0


def encoder_launches(d: Dimensions, windows: int) -> list[Launch]:
    """Of the graph ``encode``."""
    rows, width, mels = windows * d.n_audio_ctx, d.n_audio_state, d.n_mels
    layer = [
        _norm("norm", rows, width, HALF),
        *[_many(f"{name}", rows, width, width) for name in ("queries", "keys", "values")],
        Launch(
            "attention",
            None,
            0,
            0,
            operations=4.0 * windows * d.n_audio_ctx**2 * width,
            bytes=4.0 * rows * width * HALF,
        ),
        _many("attention's output", rows, width, width, added=True),
        _norm("norm", rows, width, HALF),
        _many("first of the MLP", rows, width, 4 * width, activate=True),
        _many("second of the MLP", rows, 4 * width, width, added=True),
    ]
    return [
        _im2col("im2col of the features", 2 * rows, mels, FLOAT),
        _many("first convolution", 2 * rows, 3 * mels, width, activate=True),
        _im2col("im2col", rows, width, HALF),
        _many("second convolution", rows, 3 * width, width, activate=True),
        Launch(
            "positions",
            "AddPositionsKernel",
            rows,
            128,
            (Loop(ceil(width / 128)),),
            bytes=rows * width * (HALF + FLOAT),
        ),
        *(replace(one, count=d.n_audio_layer) for one in layer),
        _norm("last norm", rows, width, FLOAT),
    ]


def step_launches(d: Dimensions, items: int, beams: int) -> list[Launch]:
    """Of the graph ``step_few``, or ``step`` for more than eight rows."""
    width, heads, rows = d.n_text_state, d.n_text_head, items * beams
    candidates = CANDIDATES * beams
    per_thread = ceil(ceil(d.n_vocab / BLOCKS_PER_ROW) / 256)
    group = 1 if beams == 1 else FEW_ROWS
    how = f"True__{int(rows <= FEW_ROWS)}"  # on tensor cores, and begun early
    splits = SPLITS if rows <= FEW_ROWS and items * heads < ENOUGH_BLOCKS else 1
    layer = [
        *_normed("norm, queries, keys, values", rows, width, 3 * width),
        Launch(
            "self-attention",
            f"SelfAttentionKernel_{_BFLOAT16}_{_integers(1, width // heads)}{how}",
            rows * heads,
            256,
            (Loop(ceil((POSITION + 1) / 128)), Loop(1)),
            bytes=2 * rows * (POSITION + 1) * width * HALF,
        ),
        _few("self-attention's output", rows, width, width, added=True),
        *_normed("norm, queries", rows, width, width),
        Launch(
            "cross-attention",
            f"CrossAttentionKernel_{_BFLOAT16}_{_integers(group, width // heads, splits)}{how}",
            items * splits * heads,
            256,
            (Loop(ceil(ceil(d.n_audio_ctx / splits) / 128), "dram"), Loop(ceil(group / 4))),
            bytes=2 * items * d.n_audio_ctx * width * HALF,
        ),
        _few("cross-attention's output", rows, width, width, added=True),
        *_normed("norm, first of the MLP", rows, width, 4 * width, activate=True),
        _few("second of the MLP", rows, 4 * width, width, added=True),
    ]
    if splits > 1:
        layer.append(Launch("join of splits", "MergeSplitsKernel", ceil(rows * width / 128), 128))
    return [
        Launch("embeddings", "EmbedKernel", rows, 256, (Loop(ceil(width / 256)),), source="dram"),
        *(replace(one, count=d.n_text_layer) for one in layer),
        _norm("last norm", rows, width, HALF),
        _few("logits", rows, width, d.n_vocab, biased=False),
        Launch(
            "rules",
            "RulesKernel",
            rows * BLOCKS_PER_ROW,
            256,
            (Loop(per_thread), *[Loop(1)] * 4, Loop(per_thread, "l1")),
        ),
        Launch(
            "top k",
            "TopKKernel",
            rows * BLOCKS_PER_ROW,
            256,
            (Loop(1), Loop(per_thread, "l1"), Loop(candidates)),
        ),
        Launch(
            "ranks", "RankKernel", items, 512, tuple(_rank_loops(beams, candidates)), source="l1"
        ),
    ]


def _integers(*parameters: int) -> str:
    """As the name of a kernel has them."""
    return "".join(f"{each}_SIMD_DType_int_1_" for each in parameters)


def _rank_loops(beams: int, candidates: int) -> Iterator[Loop]:
    yield from [Loop(1)] * 2
    # A cell looks at the first of each part of its row, and at what comes before it.
    yield Loop(ceil((BLOCKS_PER_ROW + candidates) / BLOCKS_PER_ROW))
    yield Loop(BLOCKS_PER_ROW)
    yield Loop(ceil(beams * BLOCKS_PER_ROW * candidates / 512))
    yield from [Loop(1)] * 3  # sampling, which is not wanted
    yield Loop(candidates)
    yield Loop(beams)


def _normed(
    label: str, rows: int, width: int, columns: int, activate: bool = False
) -> Iterator[Launch]:
    """A norm and a product, in one kernel where rows are few."""
    if rows <= FEW_ROWS:
        yield _few(label, rows, width, columns, normed=True, activate=activate)
    else:
        yield _norm("norm", rows, width, HALF)
        yield _few(label.removeprefix("norm, "), rows, width, columns, activate=activate)


def _few(
    label: str,
    rows: int,
    depth: int,
    columns: int,
    normed: bool = False,
    activate: bool = False,
    biased: bool = True,
    added: bool = False,
) -> Launch:
    """A product of up to 64 rows: `TensorCoresKernel`."""
    groups = 1 if rows <= FEW_ROWS else GROUPS
    parts = ceil(rows / (8 * groups))
    result = _BFLOAT16 if biased and not added else _FLOAT32
    start = EARLY_READER if groups == 1 and (normed or added) else 0
    blocks = ceil(columns / 16) * parts
    resident = 3 if normed and blocks > RESIDENT_BLOCKS else 2
    integers = _integers(depth if normed else 0, groups, start, resident)
    parameters = f"{activate}_{biased}_{added}_{integers}"
    return Launch(
        label,
        f"TensorCoresKernel_{_BFLOAT16}_{_BFLOAT16}_{result}_{parameters}",
        blocks,
        256,
        (Loop(ceil(depth / 1280)),),
        source="dram",
        operations=2.0 * rows * depth * columns,
        bytes=depth * columns * HALF,
        requested=blocks * (16 + 8 * groups) * depth * HALF,
    )


def _many(
    label: str, rows: int, depth: int, columns: int, activate: bool = False, added: bool = False
) -> Launch:
    """A product of many rows: `WarpgroupsKernel`, chosen as in gpu/linear/layer.mojo."""
    result = _FLOAT32 if added else _BFLOAT16
    high = ceil(rows / 128)
    wide = 256 if high * ceil(columns / 256) >= 132 else 128
    blocks = high * ceil(columns / wide)
    written = rows * columns * (2 * FLOAT if added else HALF)
    return Launch(
        label,
        f"WarpgroupsKernel_{_BFLOAT16}_{result}_{activate}_True_{added}_{wide}_",
        blocks,
        256,
        (Loop(ceil(depth / 64)),),
        operations=2.0 * rows * depth * columns,
        bytes=(rows + columns) * depth * HALF + written,
        requested=blocks * (128 + wide) * depth * HALF + written,
        dynamic=4 * (128 + wide) * 64 * HALF,
    )


def _norm(label: str, rows: int, width: int, written: int) -> Launch:
    around = ceil(width / 128 / 4)
    kind = _BFLOAT16 if written == HALF else _FLOAT32
    return Launch(
        label,
        f"NormKernel_{kind}_",
        rows,
        128,
        (Loop(around), Loop(around, "l1"), Loop(around, "l1")),
        bytes=rows * width * (FLOAT + written),
    )


def _im2col(label: str, rows: int, channels: int, size: int) -> Launch:
    return Launch(
        label,
        f"Im2colKernel_{_FLOAT32 if size == FLOAT else _BFLOAT16}_",
        rows,
        256,
        (Loop(ceil(3 * channels / 256)),),
        bytes=rows * channels * (size + 3 * HALF),
    )
