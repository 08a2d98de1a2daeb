"""The inputs of a convolution side by side, so that it is a product of matrices."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.views import View
from .thread_block import thread_share
from .launch import Kernel, launch


@fieldwise_init
struct Im2colKernel[source: DType, result: DType](Kernel):
    """The three frames around one output of a convolution, [3, channels]; zeros outside."""

    comptime threads = 256
    var x: View[Self.source]
    var y: View[Self.result]
    var frames: Int
    var channels: Int
    var states: Int
    var stride: Int
    var frame_distance: Int
    """Between the numbers of neighbouring frames, and below of channels."""
    var channel_distance: Int

    @always_inline
    def __call__(self, block: Int):
        var item = self.x.offset(block // self.states * self.frames * self.channels)
        var y = self.y.slice(block * 3 * self.channels, 3 * self.channels)
        var first = block % self.states * self.stride - 1
        for k in thread_share[Self.threads](3 * self.channels):
            var frame = first + k // self.channels
            var value = Scalar[Self.source](0)
            if 0 <= frame < self.frames:
                value = item[
                    frame * self.frame_distance + k % self.channels * self.channel_distance
                ]
            y[k] = value.cast[Self.result]()


@extensibility.register("whisper.gpu.im2col")
struct Im2col:
    """Of a convolution of width 3.

    x [batch, frames, channels], or [batch, channels, frames] where `channels_first`;
    y [batch, states, 3 * channels], of the frames `stride * state - 1` and following.
    """

    @staticmethod
    def execute[
        target: StaticString, source: DType, result: DType, stride: Int, channels_first: Bool
    ](
        y: OutputTensor[dtype=result, rank=3, ...],
        x: InputTensor[dtype=source, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        comptime frame_axis = 2 if channels_first else 1
        comptime channel_axis = 1 if channels_first else 2
        var frames = x.dim_size(frame_axis)
        var channels = x.dim_size(channel_axis)
        var states = y.dim_size(1)
        var kernel = Im2colKernel(
            View(x),
            View(y),
            frames,
            channels,
            states,
            stride,
            1 if channels_first else channels,
            frames if channels_first else 1,
        )
        launch[target](kernel, y.dim_size(0) * states, ctx)
