"""Looks token embeddings up, and multiplies states with them to make logits."""

from std.math import ceildiv

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.simd import F32
from ..common.views import FloatView, View, first
from .gemm import multiply
from .panels import HEADER, PANEL, Matrix, Rows, cell
from .strips import Strips
from .threads import Phases, Worker, parallel, together

comptime TASK_PANELS = 64
"""Panels of the vocabulary that one task takes."""
comptime TASK_COLUMNS = TASK_PANELS * PANEL


def embed[
    storage: DType
](embeddings: Matrix[storage], token: Int, encoding: FloatView, x: FloatView):
    """`x = E[token] + encoding`, the token's column of the panels."""
    var panel = embeddings.panel(token // PANEL)
    var lane = token % PANEL
    for k in range(embeddings.depth):
        comptime if storage == DType.int8:
            var value = panel.offset(HEADER + cell[storage](k, lane)).bitcast[DType.int8]()
            var scale = panel.bitcast[DType.float32]()[lane]
            x[k] = value[0].cast[F32]() * scale + encoding[k]
        else:
            var value = panel.bitcast[storage]()
            x[k] = value[cell[storage](k, lane)].cast[F32]() + encoding[k]


def vocabulary_task[
    storage: DType
](strips: Strips[storage], embeddings: Matrix[storage], task: Int, logits: FloatView):
    """The logits of the rows in the strips over one task's part of the vocabulary."""
    var start = task * TASK_PANELS
    var end = min(embeddings.panels(), start + TASK_PANELS)
    multiply(strips, embeddings, start, end, logits, embeddings.columns)


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
        var matrix = Matrix[storage](View(embeddings), width, logits.dim_size(2))
        var source = View(states)
        var results = View(logits)
        var phases = Phases(1)

        def body(_thread: Int) {imm}:
            var worker = Worker(phases.counters)
            var strips = Strips[storage](rows, width)
            strips.prepare(Rows(source, width, rows), 0, rows, width)

            def task(index: Int) {imm}:
                vocabulary_task(strips, matrix, index, results)

            worker.run(ceildiv(matrix.columns, TASK_COLUMNS), task)

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
