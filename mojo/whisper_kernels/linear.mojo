"""Linear layers and convolutions over panel-packed weights.

Sources: the linear layers of openai/whisper's `model.py`; a convolution is the
same product over overlapping rows (its weights laid out [out, kernel, in]).
"""

from std.math import ceildiv
from std.memory.alloc import unsafe_alloc
from std.sys import size_of

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .gemm import PANEL, ROWS, Epilogue, Rows, multiply, scratch_size
from .parallel import parallel
from .tensors import Floats, Numbers, first, floats, numbers

comptime TASK_BYTES = 256 * 1024
"""Least weights that are worth a thread of their own when rows are few."""
comptime TASK_ROWS = 9 * ROWS
"""Most rows that one task takes: their strips fill a part of L2."""


def product[
    dtype: DType
](
    a: Rows,
    rows: Int,
    b: Numbers[dtype],
    depth: Int,
    columns: Int,
    c: Floats,
    epilogue: Epilogue,
    threads: Int,
):
    """`c[rows, columns] = epilogue(a b)`, `b` packed in panels.

    Many rows are split among the threads by rows, few by panels.
    """
    var panels = ceildiv(columns, PANEL)
    var strips = ceildiv(rows, ROWS)
    var row_tasks = 1
    var panel_tasks = 1
    if strips >= 2 * threads:
        row_tasks = ceildiv(ceildiv(rows, TASK_ROWS), threads) * threads
    else:
        var bytes = panels * PANEL * depth * size_of[Scalar[dtype]]()
        panel_tasks = max(1, min(threads, panels, bytes // TASK_BYTES))
    var strips_each = ceildiv(strips, row_tasks)
    var panels_each = ceildiv(panels, panel_tasks)

    def task(index: Int) {imm}:
        var first_row = (index // panel_tasks) * strips_each * ROWS
        var last_row = min(rows, first_row + strips_each * ROWS)
        var first_panel = (index % panel_tasks) * panels_each
        var last_panel = min(panels, first_panel + panels_each)
        if first_row >= last_row or first_panel >= last_panel:
            return
        var scratch = unsafe_alloc[Float32](scratch_size(last_row - first_row, depth))
        multiply(
            a,
            first_row,
            last_row,
            b,
            first_panel,
            last_panel,
            depth,
            columns,
            c,
            columns,
            epilogue,
            scratch,
        )
        scratch.unsafe_free()

    parallel(threads, row_tasks * panel_tasks, task)


@extensibility.register("whisper.linear")
struct Linear:
    """`y = x W^T + bias`, through GELU where asked.

    x [batch, rows, in], W packed [panels, in, PANEL] of any float type, bias [out],
    y [batch, rows, out].
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, activate: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var depth = x.dim_size(2)
        product(
            Rows(floats(x), depth, 0, rows * depth),
            rows,
            numbers(weight),
            depth,
            y.dim_size(2),
            floats(y),
            Epilogue(bias=floats(bias), activate=activate),
            first(threads),
        )


@extensibility.register("whisper.linear_residual")
struct LinearResidual:
    """`y = x W^T + bias + residual`; residual [batch, rows, out], else as `whisper.linear`."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var depth = x.dim_size(2)
        product(
            Rows(floats(x), depth, 0, rows * depth),
            rows,
            numbers(weight),
            depth,
            y.dim_size(2),
            floats(y),
            Epilogue(bias=floats(bias), residual=floats(residual), residual_rows=rows),
            first(threads),
        )


@extensibility.register("whisper.project")
struct Project:
    """`y = x W^T` without a bias: the logits over the vocabulary.

    x [batch, rows, in], W packed [panels, in, PANEL], y [batch, rows, out].
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=3, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var depth = x.dim_size(2)
        product(
            Rows(floats(x), depth, 0, rows * depth),
            rows,
            numbers(weight),
            depth,
            y.dim_size(2),
            floats(y),
            Epilogue(),
            first(threads),
        )


def convolve[
    dtype: DType
](
    x: Floats,
    batch: Int,
    time: Int,
    channels: Int,
    stride: Int,
    weight: Numbers[dtype],
    y: Floats,
    frames: Int,
    columns: Int,
    epilogue: Epilogue,
    threads: Int,
):
    """A convolution over time of width 3 and padding 1, item by item.

    x [batch, time, channels], weight packed [panels, 3 * channels, PANEL],
    y [batch, frames, columns].
    """
    for item in range(batch):
        product(
            Rows(
                x.unsafe_offset(item * time * channels),
                stride * channels,
                -channels,
                time * channels,
            ),
            frames,
            weight,
            3 * channels,
            columns,
            y.unsafe_offset(item * frames * columns),
            epilogue,
            threads,
        )


@extensibility.register("whisper.conv")
struct Conv:
    """Convolution over time of width 3 and padding 1, through GELU.

    x [batch, time, in], W packed [panels, 3 * in, PANEL], bias [out],
    y [batch, (time - 1) // stride + 1, out].
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, stride: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        convolve(
            floats(x),
            x.dim_size(0),
            x.dim_size(1),
            x.dim_size(2),
            stride,
            numbers(weight),
            floats(y),
            y.dim_size(1),
            y.dim_size(2),
            Epilogue(bias=floats(bias), activate=True),
            first(threads),
        )


@extensibility.register("whisper.conv_residual")
struct ConvResidual:
    """As `whisper.conv`, plus a residual [out time, out] that every item shares, after GELU."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, stride: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=2, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        convolve(
            floats(x),
            x.dim_size(0),
            x.dim_size(1),
            x.dim_size(2),
            stride,
            numbers(weight),
            floats(y),
            y.dim_size(1),
            y.dim_size(2),
            Epilogue(
                bias=floats(bias),
                residual=floats(residual),
                residual_rows=y.dim_size(1),
                activate=True,
            ),
            first(threads),
        )


@extensibility.register("whisper.time_major")
struct TimeMajor:
    """Features [batch, channels, time] as y [batch, time, channels]."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var channels = x.dim_size(1)
        var time = x.dim_size(2)
        var source = floats(x)
        var destination = floats(y)

        def task(index: Int) {imm}:
            var item = index // channels * channels * time
            var channel = index % channels
            for t in range(time):
                destination[unsafe_offset=item + t * channels + channel] = source[
                    unsafe_offset=item + channel * time + t
                ]

        parallel(first(threads), x.dim_size(0) * channels, task)


