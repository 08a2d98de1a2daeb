"""The product `C = A B` of strips and panels.

A tile of `STRIP_ROWS` x `PASS_COLUMNS` results stays in registers while the depth streams
past: float32 products, sums of two products of bfloat16 (VDPBF16PS), or, for int8 panels, sums of
products of bytes (four by VPDPBUSD or SDOT, eight by SMMLA, see arm_blocks.mojo) or of two of 16 bits
(PMADDWD), from which the float32 result is
`scale_row * scale_column * (sum - zero_row * sum_column) + shift_row`. Where there is AMX, it does the
products that it can (amx/gemm.mojo).
"""

from std.collections import Array
from std.math import ceildiv
from std.memory import bitcast
from std.sys import llvm_intrinsic, size_of
from std.sys.info import CompilationTarget

from ..common.simd import BF16, F32, LANES
from ..common.views import ByteView, FloatView, View
from .amx.gemm import multiply_tiles
from .arm_blocks import block_sums
from .epilogue import Epilogue, finish
from .panels import HEADER, PANEL, Matrix
from .prefetch import NEAR, prefetch
from .strips import HALF_STRIP, QUARTER_STRIP, Strips, strip_height
from .target import BLOCKS, DOTS, GROUP, SIGNED, STRIP_ROWS, paired, tiled

comptime PASS_COLUMNS = min(2 * LANES, PANEL)
"""Columns that one pass of the inner loop covers."""
comptime PREFETCH_BYTES = 8192
"""Bytes before its use that a panel is asked for: where rows are few, reading sets the pace."""
comptime PASS_VECTORS = PASS_COLUMNS // LANES
comptime I32 = DType.int32


@always_inline
def in_all_lanes[dtype: DType, //, height: Int, i: Int](column: View[dtype]) -> SIMD[dtype, LANES]:
    """Number `i` of a column of a strip."""
    comptime if CompilationTarget.has_neon() and height % LANES == 0:
        # Instructions take one lane of a vector, which is loaded for all its numbers.
        return SIMD[dtype, LANES](column.load[LANES](i // LANES * LANES)[i % LANES])
    return SIMD[dtype, LANES](column[i])


@always_inline
def load_columns[dtype: DType](b: View[dtype]) -> SIMD[F32, LANES]:
    """`LANES` columns of a panel: a number a lane, or the bits of a pair."""
    comptime if paired[dtype]():
        return bitcast[F32, LANES](b.load[2 * LANES]())
    return b.load[LANES]().cast[F32]()


@always_inline
def add_float_products[
    dtype: DType
](sums: SIMD[F32, LANES], a: SIMD[F32, LANES], b: SIMD[F32, LANES]) -> SIMD[F32, LANES]:
    """In every lane: `sums` and the product of two numbers, or of two pairs."""
    comptime if paired[dtype]():
        return llvm_intrinsic["llvm.x86.avx512bf16.dpbf16ps.512", SIMD[F32, LANES]](
            sums, bitcast[BF16, 2 * LANES](a), bitcast[BF16, 2 * LANES](b)
        )
    return a.fma(b, sums)


@always_inline
def float_tile[
    height: Int, dtype: DType
](strip: FloatView, panel: View[dtype], depth: Int, c: FloatView, c_stride: Int, rows: Int,):
    """The first `rows` of a tile of `height` x `PASS_COLUMNS`: `c = strip panel`."""
    comptime group = Strips[dtype].group
    comptime line_bytes = group * PANEL * size_of[Scalar[dtype]]()
    var sums = Array[SIMD[F32, LANES], height * PASS_VECTORS](fill=SIMD[F32, LANES](0))
    for k in range(ceildiv(depth, group)):
        var line = panel.offset(k * group * PANEL)
        comptime for ahead in range(PREFETCH_BYTES, PREFETCH_BYTES + line_bytes, 64):
            prefetch[NEAR](line.bitcast[DType.uint8]().offset(ahead))
        var b = Array[SIMD[F32, LANES], PASS_VECTORS](fill=SIMD[F32, LANES](0))
        comptime for j in range(PASS_VECTORS):
            b[j] = load_columns(line.offset(group * LANES * j))
        comptime for i in range(height):
            var a = in_all_lanes[height, i](strip.offset(k * height))
            comptime for j in range(PASS_VECTORS):
                sums[i * PASS_VECTORS + j] = add_float_products[dtype](
                    sums[i * PASS_VECTORS + j], a, b[j]
                )
    comptime for i in range(height):
        if i < rows:
            comptime for j in range(PASS_VECTORS):
                c.store(i * c_stride + j * LANES, sums[i * PASS_VECTORS + j])


@always_inline
def load_group(b: View[DType.int8]) -> SIMD[I32, LANES]:
    """The groups of `LANES` columns of a panel, a group a lane."""
    comptime if DOTS:
        return bitcast[I32, LANES](b.load[4 * LANES]())
    return bitcast[I32, LANES](b.load[2 * LANES]().cast[DType.int16]())


@always_inline
def add_products(
    sums: SIMD[I32, LANES], a: SIMD[I32, LANES], b: SIMD[I32, LANES]
) -> SIMD[I32, LANES]:
    """In every lane: `sums` and the products of the group's members."""
    comptime if SIGNED:
        return llvm_intrinsic["llvm.aarch64.neon.sdot.v4i32.v16i8", SIMD[I32, LANES]](
            sums, bitcast[DType.int8, 4 * LANES](b), bitcast[DType.int8, 4 * LANES](a)
        )
    comptime if DOTS:
        comptime wide = LANES == 16
        comptime dot = "llvm.x86.avx512.vpdpbusd.512" if wide else "llvm.x86.avx512.vpdpbusd.256"
        return llvm_intrinsic[dot, SIMD[I32, LANES]](
            sums, bitcast[DType.uint8, 4 * LANES](a), bitcast[DType.int8, 4 * LANES](b)
        )
    comptime if CompilationTarget.is_x86() and LANES >= 8:
        comptime name = "llvm.x86.avx512.pmaddw.d.512" if LANES == 16 else "llvm.x86.avx2.pmadd.wd"
        return sums + llvm_intrinsic[name, SIMD[I32, LANES]](
            bitcast[DType.int16, 2 * LANES](a), bitcast[DType.int16, 2 * LANES](b)
        )
    return sums + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16)


@always_inline
def integer_tile[
    height: Int
](
    strip: ByteView,
    panel: ByteView,
    part: Int,
    groups: Int,
    segment: Int,
    scales: FloatView,
    between_scales: Int,
    zeros: FloatView,
    shifts: FloatView,
    c: FloatView,
    c_stride: Int,
    rows: Int,
):
    """The first `rows` of a tile of `height` x `PASS_COLUMNS`, from column `part` of a panel on.

    A row has a scale for each segment, or, where `between_scales` is 0, the same for all.
    """
    var a = strip.bitcast[DType.int32]()
    var b = panel.offset(HEADER + GROUP * part).bitcast[DType.int8]()
    var header = panel.bitcast[DType.float32]().offset(part)
    var start = 0
    var factors = scales
    while start < groups:
        var end = groups if BLOCKS else start + min(segment, groups - start)
        var sums = Array[SIMD[I32, LANES], PASS_VECTORS * height](fill=SIMD[I32, LANES](0))
        comptime if BLOCKS:
            var made = block_sums[height, PASS_COLUMNS, PREFETCH_BYTES](
                strip.bitcast[DType.int8](), b, groups
            )
            comptime for i in range(PASS_VECTORS * height):
                sums[i] = rebind[SIMD[I32, LANES]](made[i])
        else:
            for k in range(start, end):
                var line = b.offset(k * GROUP * PANEL)
                comptime for ahead in range(PREFETCH_BYTES, PREFETCH_BYTES + GROUP * PANEL, 64):
                    prefetch[NEAR](line.offset(ahead))
                var columns = Array[SIMD[I32, LANES], PASS_VECTORS](fill=SIMD[I32, LANES](0))
                comptime for j in range(PASS_VECTORS):
                    columns[j] = load_group(line.offset(GROUP * LANES * j))
                comptime for i in range(height):
                    var row = in_all_lanes[height, i](a.offset(k * height))
                    comptime for j in range(PASS_VECTORS):
                        sums[PASS_VECTORS * i + j] = add_products(
                            sums[PASS_VECTORS * i + j], row, columns[j]
                        )
        comptime for j in range(PASS_VECTORS):
            var column_scale = header.load[LANES](LANES * j)
            var column_sum = header.load[LANES](PANEL + LANES * j)
            comptime for i in range(height):
                if i < rows:
                    var place = c.offset(i * c_stride + LANES * j)
                    var exact = sums[PASS_VECTORS * i + j].cast[F32]()
                    var before = SIMD[F32, LANES](shifts[i])
                    if start == 0:
                        exact = SIMD[F32, LANES](-zeros[i]).fma(column_sum, exact)
                    else:
                        before = place.load[LANES]()
                    place.store(exact.fma(column_scale * factors[i], before))
        start = end
        factors = factors.offset(between_scales)


def tile[
    storage: DType
](a: Strips[storage], first: Int, panel: ByteView, part: Int, c: FloatView, stride: Int):
    """The tile of the strip at row `first` and the columns of a panel from `part` on."""
    var rows = min(STRIP_ROWS, a.strip_rows() - first)
    var height = strip_height(rows)
    comptime for choice in range(4):
        comptime high = STRIP_ROWS if choice == 0 else (
            HALF_STRIP if choice == 1 else (QUARTER_STRIP if choice == 2 else 1)
        )
        if height == high:
            comptime if Strips[storage].quantized:
                integer_tile[high](
                    a.strip(first),
                    panel,
                    part,
                    ceildiv(a.depth, GROUP),
                    a.segment,
                    a.scales.offset(first),
                    a.between_scales,
                    a.zeros.offset(first),
                    a.shifts.offset(first),
                    c,
                    stride,
                    rows,
                )
            else:
                float_tile[high](
                    a.strip(first).bitcast[DType.float32](),
                    panel.bitcast[storage]().offset(Strips[storage].group * part),
                    a.depth,
                    c,
                    stride,
                    rows,
                )
            return


def multiply[
    storage: DType, output: DType
](
    a: Strips[storage],
    b: Matrix[storage],
    first_panel: Int,
    last_panel: Int,
    c: View[output],
    stride: Int,
    epilogue: Epilogue = Epilogue(),
):
    """The columns of some panels, for all rows of A; C begins at A's first row."""
    comptime if tiled[storage]():
        multiply_tiles(a, b, first_panel, last_panel, c, stride, epilogue)
        return
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        for part in range(0, PANEL, PASS_COLUMNS):
            var column = p * PANEL + part
            if column >= b.columns:
                break
            var wide = min(PASS_COLUMNS, b.columns - column)
            var whole = output == F32 and wide == PASS_COLUMNS
            var direct = whole and a.planes == 1 and epilogue.empty()
            for first in range(0, a.strip_rows(), STRIP_ROWS):
                if direct:
                    var target = c.offset(first * stride + column)
                    tile(a, first, panel, part, target.bitcast[DType.float32](), stride)
                    continue
                tile(a, first, panel, part, a.corner, PANEL)
                for i in range(min(STRIP_ROWS, a.strip_rows() - first) // a.planes):
                    var product = a.corner.offset(a.planes * i * PANEL)
                    if a.planes == 2:
                        var low = product.load[PASS_COLUMNS](PANEL)
                        product.store(0, product.load[PASS_COLUMNS](0) + low)
                    var place = (first // a.planes + i) * stride + column
                    finish[storage, PASS_COLUMNS](product, wide, column, c, place, epilogue)
