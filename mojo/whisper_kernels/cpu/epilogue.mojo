"""The epilogue of a product: `c = gelu(product + bias) + residual`."""

from ..common.gelu import gelu, half_gelu, nearly_gelu
from ..common.min_max import smaller
from ..common.simd import F32
from ..common.views import FloatView, View
from .target import paired


struct Epilogue(ImplicitlyCopyable):
    """What happens to a finished product: `c = gelu(c + bias) + residual`.

    Each part is optional. `residual` has the layout of C, and may be C itself.
    """

    var bias: Optional[FloatView]
    var residual: Optional[FloatView]
    var activate: Bool

    def __init__(
        out self,
        bias: Optional[FloatView] = None,
        residual: Optional[FloatView] = None,
        activate: Bool = False,
    ):
        self.bias = bias
        self.residual = residual
        self.activate = activate

    def empty(self) -> Bool:
        """Whether the product is left as it is."""
        return not (self.bias or self.residual or self.activate)


@always_inline
def finish[
    output: DType, //, storage: DType, width: Int
](product: FloatView, columns: Int, column: Int, c: View[output], place: Int, epilogue: Epilogue):
    """A row of a tile, at most `width` columns, through the epilogue to `c[place]`."""
    if columns == width:
        # All columns at once, so that they share the loads of constants.
        var value = product.load[width]()
        c.store(place, finished[storage, output, width](value, column, place, epilogue))
        return
    for lane in range(columns):
        var value = product[lane]
        c[place + lane] = finished[storage, output, 1](value, column + lane, place + lane, epilogue)


@always_inline
def finished[
    storage: DType, output: DType, width: Int
](product: SIMD[F32, width], column: Int, place: Int, epilogue: Epilogue) -> SIMD[output, width]:
    """`gelu(product + bias) + residual` for `width` neighbours, of matrices of type `storage`; in
    float16, where nothing is added to, without a residual."""
    var value = product
    if epilogue.bias:
        value += epilogue.bias.value().load[width](column)
    comptime if output == DType.float16:
        # Two vectors become one before the GELU. What is too large for the type stays finite.
        var half = value.cast[DType.float16]()
        if epilogue.activate:
            half = half_gelu(half)
        return smaller(half, SIMD[DType.float16, width](Float16.MAX_FINITE)).cast[output]()
    if epilogue.activate:
        comptime if storage == DType.int8 or paired[storage]():
            value = nearly_gelu(value)
        else:
            value = gelu(value)
    if epilogue.residual:
        value += epilogue.residual.value().load[width](place)
    return value.cast[output]()
