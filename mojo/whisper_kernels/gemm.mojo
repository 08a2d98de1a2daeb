"""Float32 matrix product against a matrix stored in column panels.

Every dense product of the model (linear layers, convolutions, attention
scores and the weighted sum of values) is `C = A B`, where B has been stored
once as panels of `PANEL` columns: element (k, n) lies at
`[n // PANEL][k][n % PANEL]`, the last panel padded with zeros. A panel is read
front to back, which is what a decoder step, bound by memory, wants; for its sake
panels may also be of a smaller type, widened as they are read. Rows of A are
interleaved into strips of `ROWS` before the inner loop, which then
streams both operands (Goto and van de Geijn, "Anatomy of High-Performance
Matrix Multiplication", 2008).
"""

from std.collections import Array
from std.math import align_up, erf
from std.sys import simd_width_of

from .tensors import Floats, Numbers

comptime F32 = DType.float32
comptime LANES = simd_width_of[F32]()
comptime PANEL = 32
"""Columns of a panel: two vectors of AVX-512, four of AVX2."""
comptime COLUMNS = min(2 * LANES, PANEL)
"""Columns that one pass of the inner loop covers."""
comptime VECTORS = COLUMNS // LANES
comptime ROWS = 12 if LANES >= 16 else (8 if LANES == 4 else 6)
"""Rows of a strip: as many accumulators as the register file holds."""
comptime HALF = ROWS // 2
comptime QUARTER = ROWS // 4
"""Strips are `ROWS`, `HALF`, `QUARTER` or 1 high: code is generated for these."""
comptime DEPTH = 512
"""Inner-dimension block: a strip and a panel of this depth stay in L2."""




@always_inline
def gelu[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """The exact GELU, x/2 (1 + erf(x / sqrt 2)), as the reference computes it."""
    return 0.5 * x * (1 + erf(x * 0.7071067811865476))


struct Rows(ImplicitlyCopyable):
    """Where the rows of A lie in memory.

    Row i is `data[i * stride + offset ...]`; what falls outside `[0, limit)` is
    zero. A linear layer has offset 0; a convolution over time-major input
    `[time, channels]` reads overlapping windows, with stride `step * channels`
    and offset `-padding * channels`.
    """

    var data: Floats
    var stride: Int
    var offset: Int
    var limit: Int

    def __init__(out self, data: Floats, stride: Int, offset: Int, limit: Int):
        self.data = data
        self.stride = stride
        self.offset = offset
        self.limit = limit


struct Epilogue(ImplicitlyCopyable):
    """What happens to a finished product: `c = gelu(c + bias) + residual`.

    Each part is optional. `residual` has the layout of C, and repeats every
    `residual_rows` rows (position embeddings are one residual for a batch).
    """

    var bias: Optional[Floats]
    var residual: Optional[Floats]
    var residual_rows: Int
    var activate: Bool

    def __init__(
        out self,
        bias: Optional[Floats] = None,
        residual: Optional[Floats] = None,
        residual_rows: Int = 1,
        activate: Bool = False,
    ):
        self.bias = bias
        self.residual = residual
        self.residual_rows = residual_rows
        self.activate = activate

    def empty(self) -> Bool:
        """Whether the product is left as it is."""
        return not (self.bias or self.residual or self.activate)


def scratch_size(rows: Int, depth: Int) -> Int:
    """Floats of scratch that `multiply` needs: the strips, and one tile for the edges."""
    return align_up(rows, ROWS) * min(depth, DEPTH) + ROWS * PANEL


def interleave(
    source: Rows,
    first_row: Int,
    rows: Int,
    height: Int,
    first_k: Int,
    depth: Int,
    strip: Floats,
    scale: Float32,
):
    """Copies rows `[first_row, first_row + rows)`, columns `[first_k, first_k + depth)`
    to `strip[k * height + row]`, times `scale`; rows up to `height` are zero."""
    for i in range(rows, height):
        for k in range(depth):
            strip[unsafe_offset=k * height + i] = 0
    var start = first_row * source.stride + source.offset + first_k
    var end = start + (rows - 1) * source.stride + depth
    var whole = 0
    if start >= 0 and end <= source.limit:
        whole = rows // 4 * 4
        for i in range(0, whole, 4):
            interleave_four(
                source.data.unsafe_offset(start + i * source.stride),
                source.stride,
                depth,
                strip.unsafe_offset(i),
                height,
                scale,
            )
    for i in range(whole, rows):
        var place = start + i * source.stride
        var low = max(0, min(depth, -place))
        var high = max(low, min(depth, source.limit - place))
        var row = source.data.unsafe_offset(place)
        for k in range(low):
            strip[unsafe_offset=k * height + i] = 0
        for k in range(low, high):
            strip[unsafe_offset=k * height + i] = row[unsafe_offset=k] * scale
        for k in range(high, depth):
            strip[unsafe_offset=k * height + i] = 0


def interleave_four(
    rows: Floats, stride: Int, depth: Int, strip: Floats, height: Int, scale: Float32
):
    """`strip[k * height + i] = scale * rows[i * stride + k]` for four rows."""
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var a = rows.unsafe_offset(k).unsafe_load[width=LANES]()
        var b = rows.unsafe_offset(stride + k).unsafe_load[width=LANES]()
        var c = rows.unsafe_offset(2 * stride + k).unsafe_load[width=LANES]()
        var d = rows.unsafe_offset(3 * stride + k).unsafe_load[width=LANES]()
        var together = (a * scale).interleave(c * scale).interleave((b * scale).interleave(d * scale))
        comptime for lane in range(LANES):
            strip.unsafe_offset((k + lane) * height).unsafe_store(
                together.slice[4, offset=4 * lane]()
            )
    for k in range(whole, depth):
        for i in range(4):
            strip[unsafe_offset=k * height + i] = rows[unsafe_offset=i * stride + k] * scale


@always_inline
def inner[
    height: Int, dtype: DType
](
    strip: Floats,
    panel: Numbers[dtype],
    depth: Int,
    c: Floats,
    c_stride: Int,
    rows: Int,
    accumulate: Bool,
):
    """The first `rows` of a tile of `height` x `COLUMNS`: `c (+)= strip panel`.

    Panel rows are `PANEL` apart.
    """
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
                var target = c.unsafe_offset(i * c_stride + j * LANES)
                if accumulate:
                    sums[i * VECTORS + j] += target.unsafe_load[width=LANES]()
                target.unsafe_store(sums[i * VECTORS + j])


def strip_height(rows: Int) -> Int:
    """The lowest of the compiled heights that holds `rows`; the rest is padding."""
    if rows > HALF:
        return ROWS
    if rows > QUARTER:
        return HALF
    return QUARTER if rows > 1 else 1


def tile[
    dtype: DType
](
    height: Int,
    strip: Floats,
    panel: Numbers[dtype],
    depth: Int,
    c: Floats,
    stride: Int,
    rows: Int,
    add: Bool,
):
    """`inner` for one of the compiled heights."""
    if height == ROWS:
        inner[ROWS](strip, panel, depth, c, stride, rows, add)
    elif height == HALF:
        inner[HALF](strip, panel, depth, c, stride, rows, add)
    elif height == QUARTER:
        inner[QUARTER](strip, panel, depth, c, stride, rows, add)
    else:
        inner[1](strip, panel, depth, c, stride, rows, add)


def finish(
    c: Floats, stride: Int, rows: Int, columns: Int, row: Int, column: Int, epilogue: Epilogue
):
    """Applies the epilogue to a tile of C that begins at (row, column)."""
    for i in range(rows):
        var line = c.unsafe_offset(i * stride)
        for k in range(0, columns, LANES):
            if columns - k >= LANES:
                var value = line.unsafe_offset(k).unsafe_load[width=LANES]()
                line.unsafe_offset(k).unsafe_store(
                    finished[LANES](value, stride, row + i, column + k, epilogue)
                )
            else:
                for lane in range(k, columns):
                    line[unsafe_offset=lane] = finished[1](
                        line[unsafe_offset=lane], stride, row + i, column + lane, epilogue
                    )


@always_inline
def finished[
    width: Int
](
    product: SIMD[F32, width], stride: Int, row: Int, column: Int, epilogue: Epilogue
) -> SIMD[F32, width]:
    """`gelu(product + bias) + residual` for `width` neighbours."""
    var value = product
    if epilogue.bias:
        value += epilogue.bias.value().unsafe_offset(column).unsafe_load[width=width]()
    if epilogue.activate:
        value = gelu(value)
    if epilogue.residual:
        var place = row % epilogue.residual_rows * stride + column
        value += epilogue.residual.value().unsafe_offset(place).unsafe_load[width=width]()
    return value


def multiply[
    dtype: DType
](
    a: Rows,
    first_row: Int,
    last_row: Int,
    b: Numbers[dtype],
    first_panel: Int,
    last_panel: Int,
    depth: Int,
    columns: Int,
    c: Floats,
    c_stride: Int,
    epilogue: Epilogue,
    scratch: Floats,
    scale: Float32 = 1,
):
    """The block of C with rows `[first_row, last_row)` and the given panels' columns.

    `scratch` holds `scratch_size(rows, depth)` floats. `scale` multiplies A.
    """
    var rows = last_row - first_row
    var corner = scratch.unsafe_offset(scratch_size(rows, depth) - ROWS * PANEL)
    for start in range(0, depth, DEPTH):
        var block = min(DEPTH, depth - start)
        var last = start + block == depth
        for strip in range(0, rows, ROWS):
            var present = min(ROWS, rows - strip)
            interleave(
                a,
                first_row + strip,
                present,
                strip_height(present),
                start,
                block,
                scratch.unsafe_offset(strip * block),
                scale,
            )
        for p in range(first_panel, last_panel):
            var panel = b.unsafe_offset((p * depth + start) * PANEL)
            for part in range(0, PANEL, COLUMNS):
                var column = p * PANEL + part
                if column >= columns:
                    break
                var wide = min(COLUMNS, columns - column)
                for strip in range(0, rows, ROWS):
                    var present = min(ROWS, rows - strip)
                    var height = strip_height(present)
                    var row = first_row + strip
                    var target = c.unsafe_offset(row * c_stride + column)
                    var source = scratch.unsafe_offset(strip * block)
                    var b_tile = panel.unsafe_offset(part)
                    if wide == COLUMNS:
                        tile(
                            height, source, b_tile, block, target, c_stride, present, start > 0
                        )
                    else:
                        # At the last column the tile is made apart and its valid part copied.
                        tile(height, source, b_tile, block, corner, PANEL, present, False)
                        for i in range(present):
                            for k in range(wide):
                                var sum = corner[unsafe_offset=i * PANEL + k]
                                if start > 0:
                                    sum += target[unsafe_offset=i * c_stride + k]
                                target[unsafe_offset=i * c_stride + k] = sum
                    if last and not epilogue.empty():
                        finish(target, c_stride, present, wide, row, column, epilogue)
