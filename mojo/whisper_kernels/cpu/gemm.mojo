"""The product `C = A B` of strips and panels.

A tile of `ROWS` x `COLUMNS` results stays in registers while the depth streams past: float32
products, or, for int8 panels, sums of four products of bytes (VPDPBUSD) or of two of 16 bits
(PMADDWD), from which the float32 result is
`scale_row * scale_column * (sum - zero_row * sum_column)`. Where there is a tile unit, it does the
products that it can (amx/product.mojo).
"""

from std.collections import Array
from std.math import ceildiv
from std.memory import bitcast
from std.sys import llvm_intrinsic, size_of
from std.sys.info import CompilationTarget
from std.sys.intrinsics import prefetch

from .epilogue import Epilogue, finish
from ..common.simd import F32, LANES
from .panels import DOTS, GROUP, HEADER, PANEL, Matrix, tiled
from .prefetch import NEAR
from .strips import HALF, QUARTER, ROWS, Strips, strip_height
from ..common.views import Bytes, Floats, Numbers
from .amx.product import multiply_tiles

comptime COLUMNS = min(2 * LANES, PANEL)
"""Columns that one pass of the inner loop covers."""
comptime AHEAD = 2048
"""Bytes before its use that a panel is asked for where the rows are few, so that reading sets the
pace."""
comptime VECTORS = COLUMNS // LANES
comptime I32 = DType.int32
comptime SEGMENT = 512 // GROUP
"""Groups whose products of 16 bits and a byte an int32 can hold the sum of."""


@always_inline
def float_tile[
    height: Int, dtype: DType
](
    strip: Floats,
    panel: Numbers[dtype],
    depth: Int,
    c: Floats,
    c_stride: Int,
    rows: Int,
):
    """The first `rows` of a tile of `height` x `COLUMNS`: `c = strip panel`."""
    var sums = Array[SIMD[F32, LANES], height * VECTORS](fill=SIMD[F32, LANES](0))
    for k in range(depth):
        var line = panel.unsafe_offset(k * PANEL)
        comptime if height <= HALF:
            comptime for ahead in range(AHEAD, AHEAD + PANEL * size_of[Scalar[dtype]](), 64):
                prefetch[NEAR](line.unsafe_bitcast[UInt8]().unsafe_offset(ahead))
        var b = Array[SIMD[F32, LANES], VECTORS](fill=SIMD[F32, LANES](0))
        comptime for j in range(VECTORS):
            b[j] = (
                line.unsafe_offset(j * LANES)
                .unsafe_load[width=LANES]()
                .cast[F32]()
            )
        comptime for i in range(height):
            var a = SIMD[F32, LANES](strip[unsafe_offset=k * height + i])
            comptime for j in range(VECTORS):
                sums[i * VECTORS + j] = a.fma(b[j], sums[i * VECTORS + j])
    comptime for i in range(height):
        if i < rows:
            comptime for j in range(VECTORS):
                c.unsafe_offset(i * c_stride + j * LANES).unsafe_store(sums[i * VECTORS + j])


@always_inline
def load_group(b: Numbers[DType.int8]) -> SIMD[I32, LANES]:
    """The groups of `LANES` columns of a panel, a group a lane."""
    comptime if DOTS:
        return bitcast[I32, LANES](b.unsafe_load[width=4 * LANES]())
    return bitcast[I32, LANES](b.unsafe_load[width=2 * LANES]().cast[DType.int16]())


@always_inline
def add_products(
    sums: SIMD[I32, LANES], a: SIMD[I32, LANES], b: SIMD[I32, LANES]
) -> SIMD[I32, LANES]:
    """In every lane: `sums` and the products of the group's members."""
    comptime if DOTS:
        return llvm_intrinsic["llvm.x86.avx512.vpdpbusd.512", SIMD[I32, LANES]](
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
    strip: Bytes,
    panel: Bytes,
    part: Int,
    groups: Int,
    scales: Floats,
    zeros: Floats,
    c: Floats,
    c_stride: Int,
    rows: Int,
):
    """The first `rows` of a tile of `height` x `COLUMNS`, from column `part` of a panel on."""
    var a = strip.unsafe_bitcast[Int32]()
    var b = panel.unsafe_offset(HEADER + GROUP * part).unsafe_bitcast[Int8]()
    var header = panel.unsafe_bitcast[Float32]().unsafe_offset(part)
    var start = 0
    while start < groups:
        var end = groups if DOTS else min(start + SEGMENT, groups)
        var sums = Array[SIMD[I32, LANES], VECTORS * height](fill=SIMD[I32, LANES](0))
        for k in range(start, end):
            var line = b.unsafe_offset(k * GROUP * PANEL)
            comptime if height <= HALF:
                comptime for ahead in range(AHEAD, AHEAD + GROUP * PANEL, 64):
                    prefetch[NEAR](line.unsafe_offset(ahead))
            var columns = Array[SIMD[I32, LANES], VECTORS](fill=SIMD[I32, LANES](0))
            comptime for j in range(VECTORS):
                columns[j] = load_group(line.unsafe_offset(GROUP * LANES * j))
            comptime for i in range(height):
                var row = SIMD[I32, LANES](a[unsafe_offset=k * height + i])
                comptime for j in range(VECTORS):
                    sums[VECTORS * i + j] = add_products(sums[VECTORS * i + j], row, columns[j])
        comptime for j in range(VECTORS):
            var column_scale = header.unsafe_offset(LANES * j).unsafe_load[width=LANES]()
            var column_sum = header.unsafe_offset(PANEL + LANES * j).unsafe_load[width=LANES]()
            comptime for i in range(height):
                if i < rows:
                    var place = c.unsafe_offset(i * c_stride + LANES * j)
                    var exact = sums[VECTORS * i + j].cast[F32]()
                    if start == 0:
                        exact = SIMD[F32, LANES](-zeros[unsafe_offset=i]).fma(column_sum, exact)
                    var value = exact * (column_scale * scales[unsafe_offset=i])
                    if start > 0:
                        value += place.unsafe_load[width=LANES]()
                    place.unsafe_store(value)
        start = end


def tile[
    storage: DType
](a: Strips[storage], first: Int, panel: Bytes, part: Int, c: Floats, stride: Int):
    """The tile of the strip at row `first` and the columns of a panel from `part` on."""
    var rows = min(ROWS, a.rows - first)
    var height = strip_height(rows)
    comptime for choice in range(4):
        comptime high = ROWS if choice == 0 else (
            HALF if choice == 1 else (QUARTER if choice == 2 else 1)
        )
        if height == high:
            comptime if Strips[storage].quantized:
                integer_tile[high](
                    a.strip(first),
                    panel,
                    part,
                    ceildiv(a.depth, GROUP),
                    a.scales.unsafe_offset(first),
                    a.zeros.unsafe_offset(first),
                    c,
                    stride,
                    rows,
                )
            else:
                float_tile[high](
                    a.strip(first).unsafe_bitcast[Float32](),
                    panel.unsafe_bitcast[Scalar[storage]]().unsafe_offset(part),
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
    c: Numbers[output],
    stride: Int,
    epilogue: Epilogue = Epilogue(),
):
    """The columns of some panels, for all rows of A; C begins at A's first row."""
    comptime if tiled[storage]():
        multiply_tiles(a, b, first_panel, last_panel, c, stride, epilogue)
        return
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        for part in range(0, PANEL, COLUMNS):
            var column = p * PANEL + part
            if column >= b.columns:
                break
            var wide = min(COLUMNS, b.columns - column)
            var direct = output == F32 and wide == COLUMNS and epilogue.empty()
            for first in range(0, a.rows, ROWS):
                if direct:
                    var target = c.unsafe_offset(first * stride + column)
                    tile(a, first, panel, part, target.unsafe_bitcast[Float32](), stride)
                    continue
                tile(a, first, panel, part, a.corner, PANEL)
                for i in range(min(ROWS, a.rows - first)):
                    var product = a.corner.unsafe_offset(i * PANEL)
                    var place = (first + i) * stride + column
                    finish[storage, COLUMNS](product, wide, column, c, place, epilogue)
