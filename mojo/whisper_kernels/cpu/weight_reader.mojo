"""Walks through the packed weights and hands out each layer's, in the order of their use.

The loader lays them out (`engine/cpu/weights.py`); every part begins at a multiple of 64 bytes.
"""

from std.math import align_up

from ..common.views import ByteView, FloatView
from .panels import Matrix

comptime ALIGNMENT = 64


@fieldwise_init
struct Norm(ImplicitlyCopyable):
    """Gain and bias of a layer normalisation."""

    var gamma: FloatView
    var beta: FloatView


@fieldwise_init
struct Linear[storage: DType](ImplicitlyCopyable):
    """Weights and bias of a linear layer or convolution."""

    var weight: Matrix[Self.storage]
    var bias: FloatView


struct WeightReader:
    """A place among the weights."""

    var place: ByteView

    def __init__(out self, place: ByteView):
        self.place = place

    def vector(mut self, count: Int) -> FloatView:
        """The next vector of float32."""
        var found = self.place.slice(0, 4 * count).bitcast[DType.float32]()
        self.place = self.place.offset(align_up(4 * count, ALIGNMENT))
        return found

    def norm(mut self, width: Int) -> Norm:
        """The next layer normalisation."""
        var gamma = self.vector(width)
        return Norm(gamma, self.vector(width))

    def linear[storage: DType](mut self, inputs: Int, outputs: Int) -> Linear[storage]:
        """The next linear layer: its weights in panels, then its bias."""
        var weight = Matrix[storage](self.place, inputs, outputs)
        weight.data = self.place.slice(0, weight.bytes())
        self.place = self.place.offset(weight.bytes())
        return Linear[storage](weight, self.vector(outputs))
