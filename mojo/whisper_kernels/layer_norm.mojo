"""Layer normalisation (Ba et al., 2016), epsilon 1e-5 as in the reference."""

from std.math import ceildiv, sqrt

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .gemm import F32, LANES
from .parallel import parallel
from .tensors import Floats, first, floats

comptime EPSILON = Float32(1e-5)
comptime BLOCK = 64
"""Rows of a task: fewer cost less than waking a thread."""


def normalize(x: Floats, gamma: Floats, beta: Floats, y: Floats, width: Int):
    """`y = (x - mean) / sqrt(variance + epsilon) * gamma + beta` over one row."""
    var whole = width // LANES * LANES
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        sums += x.unsafe_offset(k).unsafe_load[width=LANES]()
    var total = sums.reduce_add()
    for k in range(whole, width):
        total += x[unsafe_offset=k]
    var mean = total / Float32(width)
    var squares = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        var d = x.unsafe_offset(k).unsafe_load[width=LANES]() - mean
        squares = d.fma(d, squares)
    var variance = squares.reduce_add()
    for k in range(whole, width):
        var d = x[unsafe_offset=k] - mean
        variance += d * d
    var scale = 1 / sqrt(variance / Float32(width) + EPSILON)
    for k in range(0, whole, LANES):
        var d = x.unsafe_offset(k).unsafe_load[width=LANES]() - mean
        var g = gamma.unsafe_offset(k).unsafe_load[width=LANES]() * scale
        y.unsafe_offset(k).unsafe_store(d.fma(g, beta.unsafe_offset(k).unsafe_load[width=LANES]()))
    for k in range(whole, width):
        y[unsafe_offset=k] = (x[unsafe_offset=k] - mean) * scale * gamma[unsafe_offset=k] + beta[
            unsafe_offset=k
        ]


@extensibility.register("whisper.layer_norm")
struct LayerNorm:
    """Rows x [batch, rows, width] with gamma and beta [width]; y as x."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        gamma: InputTensor[dtype=DType.float32, rank=1, ...],
        beta: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = x.dim_size(0) * x.dim_size(1)
        var width = x.dim_size(2)
        var source = floats(x)
        var destination = floats(y)
        var g = floats(gamma)
        var b = floats(beta)
        var blocks = ceildiv(rows, BLOCK)

        def task(index: Int) {imm}:
            for row in range(index * BLOCK, min(rows, (index + 1) * BLOCK)):
                normalize(
                    source.unsafe_offset(row * width),
                    g,
                    b,
                    destination.unsafe_offset(row * width),
                    width,
                )

        parallel(first(threads), blocks, task)
