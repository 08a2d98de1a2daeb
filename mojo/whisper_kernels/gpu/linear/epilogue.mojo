"""The epilogue of a product: scale, bias, GELU, residual."""

from std.sys import size_of

from ...common.gelu import gelu, nearly_gelu
from ...common.views import FloatView, View
from ..thread_block import load


@fieldwise_init
struct Epilogue[storage: DType, result: DType, activate: Bool, biased: Bool, added: Bool](
    TrivialRegisterPassable
):
    """`y = activation(scale * sum + bias) + residual`, for y and residual [rows, columns].

    Weights of int8 have `scale [columns]`, which is not read for other types; nor
    are `bias [columns]` and `residual` that the parameters rule out.
    """

    var scale: FloatView
    var bias: FloatView
    var residual: FloatView
    var y: View[Self.result]
    var columns: Int

    @always_inline
    def store(self, sum: Float32, row: Int, column: Int):
        """Writes what a sum becomes to its place in `y`."""
        self.store[1](sum, row, column, self.bias_of[1](column), self.residual_of[1](row, column))

    @always_inline
    def store[
        width: Int
    ](
        self,
        sums: SIMD[DType.float32, width],
        row: Int,
        column: Int,
        bias: SIMD[DType.float32, width],
        residual: SIMD[DType.float32, width],
    ):
        """The same of neighbours, with biases and residuals that were loaded before.

        Columns are multiples of `width`. A load is not moved above a store, so one who stores many
        sums loads for all of them first.
        """
        var value = sums
        comptime if Self.storage == DType.int8:
            value *= load[width](self.scale, column)
        comptime if Self.biased:
            value += bias
        comptime if Self.activate:
            comptime if Self.result == DType.bfloat16:
                value = nearly_gelu[width](value)
            else:
                value = gelu[width](value)
        comptime if Self.added:
            value += residual
        comptime ALIGNMENT = width * size_of[Scalar[Self.result]]()
        self.y.store[alignment=ALIGNMENT](row * self.columns + column, value.cast[Self.result]())

    @always_inline
    def bias_of[width: Int](self, column: Int) -> SIMD[DType.float32, width]:
        """The biases from a column on, if there are any."""
        comptime if Self.biased:
            return load[width](self.bias, column)
        else:
            return 0

    @always_inline
    def residual_of[width: Int](self, row: Int, column: Int) -> SIMD[DType.float32, width]:
        """What is added to the results in the end, if anything is."""
        comptime if Self.added:
            return load[width](self.residual, row * self.columns + column)
        else:
            return 0
