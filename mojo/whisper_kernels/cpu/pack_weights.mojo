"""A model's weights into panels, when it is loaded."""

from std.math import ceildiv

import extensibility
from extensibility import InputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from ..common.simd import F32, LANES
from ..common.views import Address, ByteView, FloatView, View, first
from .pack_panels import clear_column, pack_column, quantize_column
from .panels import PANEL, panel_bytes
from .rotation import choose_signs, rotate
from .threads import parallel

comptime PACKED_ROWS = 64
"""Rows of a panel of floats that stay in L1 while their columns are written."""


def pack_panel[
    storage: DType, dtype: DType
](
    weight: View[dtype],
    scale: FloatView,
    columns: FloatView,
    outputs: Int,
    inputs: Int,
    index: Int,
    panel: ByteView,
):
    """A panel of a weight, see `PackWeights`."""
    comptime if storage == DType.int8:
        pack_rotated(weight, scale, columns, outputs, inputs, index, panel)
    else:
        for start in range(0, inputs, PACKED_ROWS):
            var depth = min(PACKED_ROWS, inputs - start)
            var rows = panel.offset(panel_bytes[storage](start) if start > 0 else 0)
            for lane in range(PANEL):
                var n = index * PANEL + lane
                if n < outputs:
                    var column = weight.offset(n * inputs + start)
                    pack_column[storage](column, depth, scale[n], rows, lane)
                else:
                    clear_column[storage](depth, rows, lane)


def pack_rotated[
    dtype: DType
](
    weight: View[dtype],
    scale: FloatView,
    columns: FloatView,
    outputs: Int,
    inputs: Int,
    index: Int,
    panel: ByteView,
):
    """The same to int8, which needs a whole column at once."""
    var column = FloatView.allocate(inputs)
    var signs = FloatView.allocate(inputs)
    choose_signs(signs)
    var factors = columns.slice(0, inputs)
    var centre = columns.slice(inputs, inputs)
    var whole = inputs // LANES * LANES
    for lane in range(PANEL):
        var n = index * PANEL + lane
        if n < outputs:
            var row = weight.slice(n * inputs, inputs)
            var factor = SIMD[F32, LANES](scale[n])
            for k in range(0, whole, LANES):
                var x = row.load[LANES](k).cast[F32]() * factor
                column.store(k, x.fma(factors.load[LANES](k), -centre.load[LANES](k)))
            for k in range(whole, inputs):
                column[k] = row[k].cast[F32]() * scale[n] * factors[k] - centre[k]
            rotate(column, signs, column)
            quantize_column(column, inputs, panel, lane)
        else:
            clear_column[DType.int8](inputs, panel, lane)
    column.free()
    signs.free()


struct Source(ImplicitlyCopyable):
    """A matrix to be packed, as a row of the table that `PackWeights` takes."""

    comptime NUMBERS = 6

    var weight: Int
    """The address of numbers [outputs, inputs]."""
    var scale: Int
    """The address of factors [outputs]."""
    var columns: Int
    """The address of factors [inputs], then of what is subtracted [inputs], for int8."""
    var place: Int
    """The first byte of its panels."""
    var outputs: Int
    var inputs: Int

    def __init__(out self, table: View[DType.int64], index: Int):
        var row = table.offset(index * Self.NUMBERS)
        self.weight = Int(row[0])
        self.scale = Int(row[1])
        self.columns = Int(row[2])
        self.place = Int(row[3])
        self.outputs = Int(row[4])
        self.inputs = Int(row[5])

    @always_inline
    def panels(self) -> Int:
        """Number of panels."""
        return ceildiv(self.outputs, PANEL)


@extensibility.register("whisper.pack_weights")
struct PackWeights:
    """Weights [outputs, inputs] of one type, times scales [outputs], into panels of any type; for
    int8, also times factors [inputs], less a centre [inputs], and rotated.

    packed [bytes]: of each weight, ceil(outputs / PANEL) panels of `panel_bytes`; columns past the
    last output are zero. sources [weights, Source.NUMBERS] int64: the weights are told by their
    addresses, since a graph takes no list of tensors.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, dtype: DType
    ](
        packed: MutableInputTensor[dtype=DType.uint8, rank=1, ...],
        sources: InputTensor[dtype=DType.int64, rank=2, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var destination = View(packed)
        var table = View(sources)
        var panels = 0
        for index in range(sources.dim_size(0)):
            panels += Source(table, index).panels()

        def pack(task: Int) {imm}:
            var panel = task
            var index = 0
            while panel >= Source(table, index).panels():
                panel -= Source(table, index).panels()
                index += 1
            var source = Source(table, index)
            pack_panel[storage](
                View(
                    Address[dtype](unsafe_from_address=source.weight),
                    source.outputs * source.inputs,
                ),
                FloatView(Address[F32](unsafe_from_address=source.scale), source.outputs),
                FloatView(Address[F32](unsafe_from_address=source.columns), 2 * source.inputs),
                source.outputs,
                source.inputs,
                panel,
                destination.offset(source.place + panel * panel_bytes[storage](source.inputs)),
            )

        parallel(first(threads), panels, pack)
