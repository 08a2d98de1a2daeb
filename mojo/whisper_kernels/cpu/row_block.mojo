"""What a block of the encoder's rows goes through between two attentions, row by row."""

from std.memory.alloc import unsafe_alloc

from .epilogue import Epilogue
from .gemm import multiply
from .norm import normalize
from .panels import TILES, Rows
from .weights import Linear, Norm
from .strips import Strips
from ..common.views import Floats, Numbers


struct RowBlock[storage: DType]:
    """A thread's room for a block of rows."""

    comptime HIDDEN = DType.float16 if TILES and Self.storage == DType.int8 else DType.float32
    """Of what lies between the layers of the feed-forward, which becomes bytes. Processors with a
    tile unit compute in float16, too."""

    var strips: Strips[Self.storage]
    var hidden: Numbers[Self.HIDDEN]
    var group: Floats
    """[rows, columns of a group of heads]."""

    def __init__(out self, rows: Int, width: Int, depth: Int, group: Int):
        """For `rows` of the model's width, products as deep as `depth` and groups of so many
        columns."""
        self.strips = Strips[Self.storage](rows, depth)
        self.hidden = unsafe_alloc[Scalar[Self.HIDDEN]](rows * 4 * width, alignment=64)
        self.group = unsafe_alloc[Float32](rows * group, alignment=64)

    def __deinit__(deinit self):
        self.hidden.unsafe_free()
        self.group.unsafe_free()

    def add_attention(mut self, attended: Floats, rows: Int, out_: Linear[Self.storage], x: Floats):
        """`x += out(attended)`."""
        var width = out_.weight.depth
        self.strips.prepare(Rows(attended, width, rows), 0, rows, width)
        self.apply(out_, x, residual=x)

    def feed_forward(
        mut self,
        x: Floats,
        rows: Int,
        norm: Norm,
        up: Linear[Self.storage],
        down: Linear[Self.storage],
    ):
        """`x += down(gelu(up(norm(x))))`."""
        var width = up.weight.depth
        self.strips.prepare_normed(x, rows, width, norm)
        self.apply(up, self.hidden, activate=True)
        self.strips.prepare(Rows(self.hidden, 4 * width, rows), 0, rows, 4 * width)
        self.apply(down, x, residual=x)

    def apply[
        output: DType
    ](
        self,
        linear: Linear[Self.storage],
        y: Numbers[output],
        residual: Optional[Floats] = None,
        activate: Bool = False,
    ):
        """The layer for the rows that the strips hold."""
        multiply(
            self.strips,
            linear.weight,
            0,
            linear.weight.panels(),
            y,
            linear.weight.columns,
            Epilogue(bias=linear.bias, residual=residual, activate=activate),
        )

    def normalize_rows(self, x: Floats, rows: Int, norm: Norm, width: Int):
        """Layer normalisation of some rows, in place."""
        for row in range(rows):
            var line = x.unsafe_offset(row * width)
            normalize(line, norm.gamma, norm.beta, line, width)
