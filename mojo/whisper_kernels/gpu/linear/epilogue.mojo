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
        var place = row * self.columns + column
        var value = sum
        comptime if Self.storage == DType.int8:
            value *= self.scale[column]
        comptime if Self.biased:
            value += self.bias[column]
        comptime if Self.activate:
            value = gelu[1](value)
        comptime if Self.added:
            value += self.residual[place]
        self.y[place] = value.cast[Self.result]()
