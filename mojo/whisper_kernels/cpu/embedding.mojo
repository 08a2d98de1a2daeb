"""Looks token embeddings up, and multiplies states with them to make logits."""

from std.math import ceildiv

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.simd import F32
from ..common.views import ByteView, FloatView, View, first
from .gemm import multiply
from .panels import HEADER, PANEL, Matrix, Rows, cell
from .rotation import rotate_back
from .self_attention import dot
from .strips import Strips
from .threads import Phases, Worker, parallel, together
from .weight_reader import WeightReader

comptime TASK_PANELS = 64
"""Panels of the vocabulary that one task takes."""
comptime TASK_COLUMNS = TASK_PANELS * PANEL


struct Embeddings[storage: DType](ImplicitlyCopyable):
    """The embeddings of all tokens, which are a matrix [width, vocabulary], too.

    In int8 they are multiplied by the gains of the last normalisation, which states are without:
    what stands out in a state would hide the rest. And they lie around a centre, because most of
    each is what all have in common. `engine/cpu/embeddings.py` makes both.
    """

    comptime scaled = Self.storage == DType.int8

    var centre: FloatView
    """[width], if scaled."""
    var inverses: FloatView
    """Of the gains [width], if scaled."""
    var matrix: Matrix[Self.storage]

    def __init__(out self, packed: ByteView, width: Int, vocabulary: Int):
        var reader = WeightReader(packed)
        self.centre = reader.vector(width if Self.scaled else 0)
        self.inverses = reader.vector(width if Self.scaled else 0)
        self.matrix = Matrix[Self.storage](reader.place, width, vocabulary)

    def prepare(self, mut strips: Strips[Self.storage], states: FloatView, rows: Int):
        """Takes states [rows, width] as the left operand of `vocabulary_task`."""
        var width = self.matrix.depth
        strips.prepare(Rows(states, width, rows), 0, rows, width)
        comptime if Self.scaled:
            for i in range(rows):
                strips.shift(i, dot[0](states.offset(i * width), self.centre, width))


def embed[
    storage: DType
](embeddings: Embeddings[storage], token: Int, encoding: FloatView, signs: FloatView, x: FloatView):
    """`x = E[token] + encoding`, the token's column of the panels; `signs` as of `rotate`."""
    var panel = embeddings.matrix.panel(token // PANEL)
    var depth = embeddings.matrix.depth
    var lane = token % PANEL
    comptime if storage == DType.int8:
        var scale = panel.bitcast[DType.float32]()[lane]
        var values = panel.offset(HEADER).bitcast[DType.int8]()
        for k in range(depth):
            x[k] = values[cell[storage](k, lane)].cast[F32]() * scale
        rotate_back(x, signs.slice(0, depth))
        for k in range(depth):
            x[k] = (x[k] + embeddings.centre[k]) * embeddings.inverses[k] + encoding[k]
    else:
        var values = panel.bitcast[storage]()
        for k in range(depth):
            x[k] = values[cell[storage](k, lane)].cast[F32]() + encoding[k]


def vocabulary_task[
    storage: DType
](strips: Strips[storage], embeddings: Embeddings[storage], task: Int, logits: FloatView):
    """The logits of the rows in the strips over one task's part of the vocabulary."""
    var matrix = embeddings.matrix
    var start = task * TASK_PANELS
    var end = min(matrix.panels(), start + TASK_PANELS)
    multiply(strips, matrix, start, end, logits, matrix.columns)


@extensibility.register("whisper.logits")
struct Logits:
    """`logits = states E^T`; states [batch, rows, width], embeddings [bytes] in panels,
    logits [batch, rows, vocabulary]."""

    @staticmethod
    def execute[
        target: StaticString, storage: DType
    ](
        logits: OutputTensor[dtype=DType.float32, rank=3, ...],
        states: InputTensor[dtype=DType.float32, rank=3, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = states.dim_size(0) * states.dim_size(1)
        var width = states.dim_size(2)
        var matrix = Embeddings[storage](View(embeddings), width, logits.dim_size(2))
        var source = View(states)
        var results = View(logits)
        var phases = Phases(1)

        def body(_thread: Int) {imm}:
            var worker = Worker(phases.counters)
            var strips = Strips[storage](rows, width, for_weights=True, request_rows=rows)
            matrix.prepare(strips, source, rows)

            def task(index: Int) {imm}:
                vocabulary_task(strips, matrix, index, results)

            worker.run(ceildiv(logits.dim_size(2), TASK_COLUMNS), task)

        together(first(threads), body)


@extensibility.register("whisper.take_token")
struct TakeToken:
    """One token's row of every item: y[b, 0] = states[b, index]; index [1] int32."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        states: InputTensor[dtype=DType.float32, rank=3, ...],
        index: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var tokens = states.dim_size(1)
        var state = states.dim_size(2)
        var token = first(index)
        var source = View(states)
        var destination = View(y)

        def task(item: Int) {imm}:
            var row = source.slice((item * tokens + token) * state, state)
            var taken = destination.slice(item * state, state)
            for k in range(state):
                taken[k] = row[k]

        parallel(first(threads), states.dim_size(0), task)
