"""The product `C = A B` of strips and panels.

A tile of `ROWS` x `PANEL` results stays in registers while the depth streams past: float32
products, or, for int8 panels where the processor has the instruction, sums of four products of
bytes (VPDPBUSD), from which the float32 result is
`scale_row * scale_column * (sum - zero_row * sum_column)`.
"""

from std.collections import Array
from std.memory import bitcast
from std.sys import llvm_intrinsic
from std.sys.intrinsics import PrefetchOptions, prefetch

from .gelu import gelu
from .matrix import F32, LANES, PANEL, HEADER, Epilogue, Matrix
from .strips import HALF, QUARTER, ROWS, Strips, strip_height
from .tensors import Bytes, Floats, Numbers

comptime COLUMNS = min(2 * LANES, PANEL)
"""Columns that one pass of the inner loop covers."""
comptime AHEAD = PrefetchOptions().for_read().high_locality().to_data_cache()
comptime VECTORS = COLUMNS // LANES


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
        var b = Array[SIMD[F32, LANES], VECTORS](fill=SIMD[F32, LANES](0))
        comptime for j in range(VECTORS):
            b[j] = (
                panel.unsafe_offset(k * PANEL + j * LANES)
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
def add_dots(
    sums: SIMD[DType.int32, 16], a: SIMD[DType.uint8, 64], b: SIMD[DType.int8, 64]
) -> SIMD[DType.int32, 16]:
    """`sums[j] += sum of a[4 j + i] * b[4 j + i]` over four bytes."""
    return llvm_intrinsic["llvm.x86.avx512.vpdpbusd.512", SIMD[DType.int32, 16]](sums, a, b)


@always_inline
def byte_tile[
    height: Int
](
    strip: Bytes,
    panel: Bytes,
    groups: Int,
    scales: Floats,
    zeros: Floats,
    c: Floats,
    c_stride: Int,
    rows: Int,
):
    """The first `rows` of a tile of `height` x `PANEL` from bytes; `groups` of four in depth."""
    var sums = Array[SIMD[DType.int32, 16], 2 * height](fill=SIMD[DType.int32, 16](0))
    var b = panel.unsafe_offset(HEADER).unsafe_bitcast[Int8]()
    var fours = strip.unsafe_bitcast[Int32]()
    for k in range(groups):
        comptime if height <= HALF:
            prefetch[AHEAD](b.unsafe_offset(k * 4 * PANEL + 2048))
            prefetch[AHEAD](b.unsafe_offset(k * 4 * PANEL + 2048 + 64))
        var b0 = b.unsafe_offset(k * 4 * PANEL).unsafe_load[width=64]()
        var b1 = b.unsafe_offset(k * 4 * PANEL + 64).unsafe_load[width=64]()
        comptime for i in range(height):
            var four = SIMD[DType.int32, 16](fours[unsafe_offset=k * height + i])
            var a = bitcast[DType.uint8, 64](four)
            sums[2 * i] = add_dots(sums[2 * i], a, b0)
            sums[2 * i + 1] = add_dots(sums[2 * i + 1], a, b1)
    var header = panel.unsafe_bitcast[Float32]()
    comptime for j in range(2):
        var column_scale = header.unsafe_offset(16 * j).unsafe_load[width=16]()
        var column_sum = header.unsafe_offset(PANEL + 16 * j).unsafe_load[width=16]()
        comptime for i in range(height):
            if i < rows:
                var zero = SIMD[F32, 16](-zeros[unsafe_offset=i])
                var exact = zero.fma(column_sum, sums[2 * i + j].cast[F32]())
                c.unsafe_offset(i * c_stride + 16 * j).unsafe_store(
                    exact * (column_scale * scales[unsafe_offset=i])
                )


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
                byte_tile[high](
                    a.strip(first),
                    panel,
                    (a.depth + 3) // 4,
                    a.scales.unsafe_offset(first),
                    a.zeros.unsafe_offset(first),
                    c,
                    stride,
                    rows,
                )
            else:
                comptime header = HEADER if storage == DType.int8 else 0
                float_tile[high](
                    a.strip(first).unsafe_bitcast[Float32](),
                    panel.unsafe_offset(header)
                    .unsafe_bitcast[Scalar[storage]]()
                    .unsafe_offset(part),
                    a.depth,
                    c,
                    stride,
                    rows,
                )
            return


def multiply[
    storage: DType
](
    a: Strips[storage],
    b: Matrix[storage],
    first_panel: Int,
    last_panel: Int,
    c: Floats,
    stride: Int,
    epilogue: Epilogue = Epilogue(),
):
    """The columns of some panels, for all rows of A; C begins at A's first row."""
    comptime bytes = Strips[storage].quantized
    comptime columns = PANEL if bytes else COLUMNS
    comptime scaled = storage == DType.int8 and not bytes
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        for part in range(0, PANEL, columns):
            var column = p * PANEL + part
            if column >= b.columns:
                break
            var wide = min(columns, b.columns - column)
            var direct = wide == columns and not scaled and epilogue.empty()
            for first in range(0, a.rows, ROWS):
                if direct:
                    var target = c.unsafe_offset(first * stride + column)
                    tile(a, first, panel, part, target, stride)
                    continue
                tile(a, first, panel, part, a.corner, PANEL)
                var scales = panel.unsafe_bitcast[Float32]().unsafe_offset(part)
                for i in range(min(ROWS, a.rows - first)):
                    finish[scaled](
                        a.corner.unsafe_offset(i * PANEL),
                        scales,
                        wide,
                        column,
                        c,
                        (first + i) * stride + column,
                        epilogue,
                    )


@always_inline
def finish[
    scaled: Bool
](
    product: Floats,
    scales: Floats,
    columns: Int,
    column: Int,
    c: Floats,
    place: Int,
    epilogue: Epilogue,
):
    """A row of a tile, through the columns' scales and the epilogue, to `c[place]`."""
    if columns == COLUMNS:
        # All columns at once, so that they share the loads of constants.
        var value = product.unsafe_load[width=COLUMNS]()
        comptime if scaled:
            value *= scales.unsafe_load[width=COLUMNS]()
        c.unsafe_offset(place).unsafe_store(finished[COLUMNS](value, column, place, epilogue))
        return
    for lane in range(columns):
        var value = product[unsafe_offset=lane]
        comptime if scaled:
            value *= scales[unsafe_offset=lane]
        c[unsafe_offset=place + lane] = finished[1](value, column + lane, place + lane, epilogue)


@always_inline
def finished[
    width: Int
](product: SIMD[F32, width], column: Int, place: Int, epilogue: Epilogue) -> SIMD[F32, width]:
    """`gelu(product + bias) + residual` for `width` neighbours."""
    var value = product
    if epilogue.bias:
        value += epilogue.bias.value().unsafe_offset(column).unsafe_load[width=width]()
    if epilogue.activate:
        value = gelu(value)
    if epilogue.residual:
        value += epilogue.residual.value().unsafe_offset(place).unsafe_load[width=width]()
    return value
