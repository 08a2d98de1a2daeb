"""Weights into column panels, at load, from whatever type the file holds."""

import extensibility
from extensibility import InputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from .gemm import F32, PANEL
from .parallel import parallel
from .tensors import first, floats, numbers

comptime BLOCK = 64
"""Rows of a panel that stay in L1 while their columns are written."""


@extensibility.register("whisper.pack")
struct Pack:
    """Weights [outputs, inputs] of any type, times scale [outputs], into panels of any type.

    packed [ceil(outputs / PANEL), inputs, PANEL]; columns past the last output are zero.
    """

    @staticmethod
    def execute[
        target: StaticString, packed_type: DType, dtype: DType
    ](
        packed: MutableInputTensor[dtype=packed_type, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var outputs = weight.dim_size(0)
        var inputs = weight.dim_size(1)
        var source = numbers(weight)
        var scales = floats(scale)
        var destination = numbers(packed)

        def panel(p: Int) {imm}:
            var corner = destination.unsafe_offset(p * inputs * PANEL)
            for start in range(0, inputs, BLOCK):
                var end = min(inputs, start + BLOCK)
                for lane in range(PANEL):
                    var n = p * PANEL + lane
                    var column = corner.unsafe_offset(lane)
                    if n < outputs:
                        var row = source.unsafe_offset(n * inputs)
                        var factor = scales[unsafe_offset=n]
                        for k in range(start, end):
                            column[unsafe_offset=k * PANEL] = (
                                row[unsafe_offset=k].cast[F32]() * factor
                            ).cast[packed_type]()
                    else:
                        for k in range(start, end):
                            column[unsafe_offset=k * PANEL] = 0

        parallel(first(threads), packed.dim_size(0), panel)
