"""The epilogue of a product: scale, bias, GELU, residual."""

from ...common.gelu import gelu
from ...common.views import FloatView, View


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
        self.store(sum, row, column, self.bias_of(column), self.residual_of(row, column))

    @always_inline
    def store(self, sum: Float32, row: Int, column: Int, bias: Float32, residual: Float32):
        """The same with bias and residual that were loaded before.

        A load is not moved above a store, so one who stores many sums loads for all of them first.
        """
        var value = sum
        comptime if Self.storage == DType.int8:
            value *= self.scale[column]
        comptime if Self.biased:
            value += bias
        comptime if Self.activate:
            value = gelu[1](value)
        comptime if Self.added:
            value += residual
        self.y[row * self.columns + column] = value.cast[Self.result]()

    @always_inline
    def bias_of(self, column: Int) -> Float32:
        """The bias of a column, if there is one."""
        comptime if Self.biased:
            return self.bias[column]
        else:
            return 0

    @always_inline
    def residual_of(self, row: Int, column: Int) -> Float32:
        """What is added to the result in the end, if anything is."""
        comptime if Self.added:
            return self.residual[row * self.columns + column]
        else:
            return 0
