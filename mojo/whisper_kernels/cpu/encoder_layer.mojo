"""A layer of the encoder: its weights, and the way of a block of rows between two attentions."""

from ..common.views import FloatView, View
from .epilogue import Epilogue
from .gemm import multiply
from .norm import normalize
from .panels import Rows
from .strips import Strips
from .target import HALVES
from .weight_reader import Linear, Norm, WeightReader


struct EncoderLayer[storage: DType](ImplicitlyCopyable):
    """Weights of a layer."""

    var attention_norm: Norm
    var attention_in: Linear[Self.storage]
    """To queries, keys and values."""
    var attention_out: Linear[Self.storage]
    var norm: Norm
    var up: Linear[Self.storage]
    var down: Linear[Self.storage]

    def __init__(out self, mut weights: WeightReader, width: Int):
        self.attention_norm = weights.norm(width)
        self.attention_in = weights.linear[Self.storage](width, 3 * width)
        self.attention_out = weights.linear[Self.storage](width, width)
        self.norm = weights.norm(width)
        self.up = weights.linear[Self.storage](width, 4 * width)
        self.down = weights.linear[Self.storage](4 * width, width)


struct EncoderChunk[storage: DType]:
    """A thread's room for a block of rows."""

    comptime HIDDEN = DType.float16 if HALVES and Self.storage == DType.int8 else DType.float32
    """Of what lies between the layers of the feed-forward, which becomes bytes."""

    var strips: Strips[Self.storage]
    var hidden: View[Self.HIDDEN]
    var group: FloatView
    """[rows, columns of a group of heads]."""

    def __init__(out self, rows: Int, width: Int, depth: Int, group: Int):
        """For `rows` of the model's width, products as deep as `depth` and groups of so many
        columns."""
        self.strips = Strips[Self.storage](rows, depth, for_weights=True)
        self.hidden = View[Self.HIDDEN].allocate(rows * 4 * width)
        self.group = FloatView.allocate(rows * group)

    def __deinit__(deinit self):
        self.hidden.free()
        self.group.free()

    def add_attention(
        mut self, attended: FloatView, rows: Int, out_: Linear[Self.storage], x: FloatView
    ):
        """`x += out(attended)`."""
        var width = out_.weight.depth
        self.strips.prepare(Rows(attended, width, rows), 0, rows, width)
        self.apply(out_, x, residual=x)

    def feed_forward(
        mut self,
        x: FloatView,
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
        y: View[output],
        residual: Optional[FloatView] = None,
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

    def normalize_rows(self, x: FloatView, rows: Int, norm: Norm, width: Int):
        """Layer normalisation of some rows, in place."""
        for row in range(rows):
            var line = x.slice(row * width, width)
            normalize(line, norm.gamma, norm.beta, line, width)
