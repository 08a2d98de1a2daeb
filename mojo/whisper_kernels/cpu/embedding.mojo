"""Token embeddings: on the way in a row of the matrix, on the way out a product with it."""

from std.math import ceildiv

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .gemm import multiply
from ..common.simd import F32
from .panels import HEADER, PANEL, Matrix, Rows, cell
from .threads import Member, Phases, parallel, together
from .strips import Strips
from ..common.views import Floats, first, floats, numbers

comptime TASK_PANELS = 64
"""Panels of the vocabulary that one task takes."""
comptime TASK_COLUMNS = TASK_PANELS * PANEL


def embed[
    storage: DType
](embeddings: Matrix[storage], token: Int, encoding: Floats, x: Floats):
    """`x = E[token] + encoding`, the token's column of the panels."""
    var panel = embeddings.panel(token // PANEL)
    var lane = token % PANEL
    for k in range(embeddings.depth):
        comptime if storage == DType.int8:
            var value = panel.unsafe_offset(HEADER + cell[storage](k, lane)).unsafe_bitcast[Int8]()
            var scale = panel.unsafe_bitcast[Float32]()[unsafe_offset=lane]
            x[unsafe_offset=k] = (
                value[unsafe_offset=0].cast[F32]() * scale + encoding[unsafe_offset=k]
            )
        else:
            var value = panel.unsafe_bitcast[Scalar[storage]]()
            x[unsafe_offset=k] = (
                value[unsafe_offset=cell[storage](k, lane)].cast[F32]() + encoding[unsafe_offset=k]
            )


def vocabulary_task[
    storage: DType
](strips: Strips[storage], embeddings: Matrix[storage], task: Int, logits: Floats):
    """The logits of the rows in the strips over one task's part of the vocabulary."""
    var start = task * TASK_PANELS
    var end = min(embeddings.panels(), start + TASK_PANELS)
    multiply(strips, embeddings, start, end, logits, embeddings.columns)


@extensibility.register("whisper.project")
struct Project:
    """Logits: `y = x E^T`; x [batch, rows, width], embeddings [bytes] in panels,
    y [batch, rows, vocabulary]."""

    @staticmethod
    def execute[
        target: StaticString, storage: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var width = x.dim_size(2)
        var matrix = Matrix[storage](numbers(embeddings), width, y.dim_size(2))
        var source = floats(x)
        var logits = floats(y)
        var phases = Phases(1)

        def body(_worker: Int) {imm}:
            var member = Member(phases.counters)
            var strips = Strips[storage](rows, width)
            strips.prepare(Rows(source, width, rows), 0, rows, width)

            def task(index: Int) {imm}:
                vocabulary_task(strips, matrix, index, logits)

            member.run(ceildiv(matrix.columns, TASK_COLUMNS), task)

        together(first(threads), body)


@extensibility.register("whisper.take_token")
struct TakeToken:
    """One token's row of every item: y[b, 0] = x[b, index]; index [1] int32."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        index: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var tokens = x.dim_size(1)
        var state = x.dim_size(2)
        var token = first(index)
        var source = floats(x)
        var destination = floats(y)

        def task(item: Int) {imm}:
            var row = source.unsafe_offset((item * tokens + token) * state)
            var taken = destination.unsafe_offset(item * state)
            for k in range(state):
                taken[unsafe_offset=k] = row[unsafe_offset=k]

        parallel(first(threads), x.dim_size(0), task)
