"""A layer of the decoder: its weights, and what a thread needs to take some rows through it."""

from std.math import align_up

from ..common.simd import LANES
from ..common.views import FloatView
from .attention import AttentionScratch
from .epilogue import Epilogue
from .gemm import multiply
from .panels import Matrix, Rows
from .strips import Strips
from .weight_reader import Linear, Norm, WeightReader

comptime TASK_BYTES = 96 * 1024
"""Least weights that are worth a task of their own."""


struct DecoderLayer[storage: DType](ImplicitlyCopyable):
    """Weights of a layer."""

    var self_norm: Norm
    var query: Linear[Self.storage]
    var key: Linear[Self.storage]
    var value: Linear[Self.storage]
    var self_out: Linear[Self.storage]
    var cross_norm: Norm
    var cross_query: Linear[Self.storage]
    var cross_out: Linear[Self.storage]
    var norm: Norm
    var up: Linear[Self.storage]
    var down: Linear[Self.storage]

    def __init__(out self, mut weights: WeightReader, width: Int):
        self.self_norm = weights.norm(width)
        self.query = weights.linear[Self.storage](width, width)
        self.key = weights.linear[Self.storage](width, width)
        self.value = weights.linear[Self.storage](width, width)
        self.self_out = weights.linear[Self.storage](width, width)
        self.cross_norm = weights.norm(width)
        self.cross_query = weights.linear[Self.storage](width, width)
        self.cross_out = weights.linear[Self.storage](width, width)
        self.norm = weights.norm(width)
        self.up = weights.linear[Self.storage](width, 4 * width)
        self.down = weights.linear[Self.storage](4 * width, width)


struct DecoderChunk[storage: DType, kv_type: DType]:
    """A thread's view of some items on their way through the layers."""

    var strips: Strips[Self.storage]
    var scores: FloatView
    var attention: AttentionScratch[Self.kv_type]

    def __init__(
        out self,
        rows: Int,
        request_rows: Int,
        width: Int,
        beams: Int,
        context: Int,
        frames: Int,
        head_size: Int,
    ):
        self.strips = Strips[Self.storage](
            rows, 4 * width, for_weights=True, request_rows=request_rows
        )
        self.scores = FloatView.allocate(beams * align_up(context, LANES))
        self.attention = AttentionScratch[Self.kv_type](frames, head_size)

    def __deinit__(deinit self):
        self.scores.free()

    def prepare(mut self, x: FloatView, rows: Int, depth: Int):
        """Takes x [rows, depth] as the left operand of the next products."""
        self.strips.prepare(Rows(x, depth, rows), 0, rows, depth)

    def prepare_normed(mut self, x: FloatView, rows: Int, norm: Norm, width: Int):
        """The same, normalised. Every thread does it: that costs less than to wait for another."""
        self.strips.prepare_normed(x, rows, width, norm)

    def apply(
        self,
        linear: Linear[Self.storage],
        first_panel: Int,
        last_panel: Int,
        y: FloatView,
        stride: Int,
        residual: Optional[FloatView] = None,
        activate: Bool = False,
    ):
        """Some columns of a layer for the rows that the strips hold."""
        multiply(
            self.strips,
            linear.weight,
            first_panel,
            last_panel,
            y,
            stride,
            Epilogue(bias=linear.bias, residual=residual, activate=activate),
        )


def panel_tasks[storage: DType](matrix: Matrix[storage], threads: Int) -> Int:
    """Into how many tasks a product is split by columns."""
    return max(1, min(matrix.panels(), max(threads, matrix.bytes() // TASK_BYTES)))


def share(count: Int, tasks: Int, task: Int) -> Int:
    """Where the part of a task begins, of `count` things shared out evenly."""
    return count * task // tasks
