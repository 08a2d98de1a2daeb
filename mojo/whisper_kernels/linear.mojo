"""Linear layers and convolutions over panel-packed weights.

Sources: the linear layers of openai/whisper's `model.py`; a convolution is the
same product over overlapping rows (its weights laid out [out, kernel, in]).
"""

from std.math import ceildiv
from std.memory.alloc import unsafe_alloc
from std.runtime import parallelism_level

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext

from .gemm import PANEL, ROWS, Epilogue, Rows, multiply, scratch_size
from .tensors import Floats, floats

comptime TASK_ROWS = 9 * ROWS
"""Most rows that one task takes: their strips fill a part of L2."""


def product(
    a: Rows, rows: Int, b: Floats, depth: Int, columns: Int, c: Floats, epilogue: Epilogue
):
    """`c[rows, columns] = epilogue(a b)` on all threads, `b` packed in panels.

    Many rows are split among the threads by rows, few by panels.
    """
    var threads = parallelism_level()
    var panels = ceildiv(columns, PANEL)
    var strips = ceildiv(rows, ROWS)
    var row_tasks = 1
    var panel_tasks = 1
    if strips >= 2 * threads:
        row_tasks = ceildiv(ceildiv(rows, TASK_ROWS), threads) * threads
    else:
        panel_tasks = min(threads, panels)
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

    sync_parallelize(task, row_tasks * panel_tasks)


@extensibility.register("whisper.linear")
struct Linear:
    """`y = x W^T + bias`, through GELU where asked.

    x [batch, rows, in], W packed [panels, in, PANEL], bias [out], y [batch, rows, out].
    """

    @staticmethod
    def execute[
        target: StaticString, activate: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=DType.float32, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var depth = x.dim_size(2)
        product(
            Rows(floats(x), depth, 0, rows * depth),
            rows,
            floats(weight),
            depth,
            y.dim_size(2),
            floats(y),
            Epilogue(bias=floats(bias), activate=activate),
        )


@extensibility.register("whisper.linear_residual")
struct LinearResidual:
    """`y = x W^T + bias + residual`; residual [batch, rows, out], else as `whisper.linear`."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=DType.float32, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var depth = x.dim_size(2)
        product(
            Rows(floats(x), depth, 0, rows * depth),
            rows,
            floats(weight),
            depth,
            y.dim_size(2),
            floats(y),
            Epilogue(bias=floats(bias), residual=floats(residual), residual_rows=rows),
        )


@extensibility.register("whisper.project")
struct Project:
    """`y = x W^T` without a bias: the logits over the vocabulary.

    x [batch, rows, in], W packed [panels, in, PANEL], y [batch, rows, out].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var depth = x.dim_size(2)
        product(
            Rows(floats(x), depth, 0, rows * depth),
            rows,
            floats(weight),
            depth,
            y.dim_size(2),
            floats(y),
            Epilogue(),
        )


def convolve(
    x: Floats,
    batch: Int,
    time: Int,
    channels: Int,
    stride: Int,
    weight: Floats,
    y: Floats,
    frames: Int,
    columns: Int,
    epilogue: Epilogue,
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
        )


@extensibility.register("whisper.conv")
struct Conv:
    """Convolution over time of width 3 and padding 1, through GELU.

    x [batch, time, in], W packed [panels, 3 * in, PANEL], bias [out],
    y [batch, (time - 1) // stride + 1, out].
    """

    @staticmethod
    def execute[
        target: StaticString, stride: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=DType.float32, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        convolve(
            floats(x),
            x.dim_size(0),
            x.dim_size(1),
            x.dim_size(2),
            stride,
            floats(weight),
            floats(y),
            y.dim_size(1),
            y.dim_size(2),
            Epilogue(bias=floats(bias), activate=True),
        )


@extensibility.register("whisper.conv_residual")
struct ConvResidual:
    """As `whisper.conv`, plus a residual [out time, out] that every item shares, after GELU."""

    @staticmethod
    def execute[
        target: StaticString, stride: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=DType.float32, rank=3, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        convolve(
            floats(x),
            x.dim_size(0),
            x.dim_size(1),
            x.dim_size(2),
            stride,
            floats(weight),
            floats(y),
            y.dim_size(1),
            y.dim_size(2),
            Epilogue(
                bias=floats(bias),
                residual=floats(residual),
                residual_rows=y.dim_size(1),
                activate=True,
            ),
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
        ctx: DeviceContext,
    ) raises:
        var channels = x.dim_size(1)
        var time = x.dim_size(2)
        for item in range(x.dim_size(0)):
            var source = floats(x).unsafe_offset(item * channels * time)
            var destination = floats(y).unsafe_offset(item * channels * time)
            for t in range(time):
                for c in range(channels):
                    destination[unsafe_offset=t * channels + c] = source[unsafe_offset=c * time + t]


@extensibility.register("whisper.pack")
struct Pack:
    """Weights [out, in] into column panels [ceil(out / PANEL), in, PANEL], zero-padded."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        packed: MutableInputTensor[dtype=DType.float32, rank=3, ...],
        weight: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var outputs = weight.dim_size(0)
        var inputs = weight.dim_size(1)
        var source = floats(weight)
        var destination = floats(packed)

        def panel(p: Int) {imm}:
            for lane in range(PANEL):
                var n = p * PANEL + lane
                var column = destination.unsafe_offset(p * inputs * PANEL + lane)
                if n < outputs:
                    for k in range(inputs):
                        column[unsafe_offset=k * PANEL] = source[unsafe_offset=n * inputs + k]
                else:
                    for k in range(inputs):
                        column[unsafe_offset=k * PANEL] = 0

        sync_parallelize(panel, packed.dim_size(0))
