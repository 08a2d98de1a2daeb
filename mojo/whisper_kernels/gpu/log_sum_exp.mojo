"""`log(sum(exp(values)))` of values that come one by one, or in parts that are put together.

Source: online softmax (Milakov and Gimelshein, 2018).
"""

from std.math import exp, log

from ..common.views import Floats


struct LogSum(ImplicitlyCopyable):
    """The largest value, and the sum of the exponentials of all below it."""

    var top: Float32
    var sum: Float32

    @always_inline
    def __init__(out self):
        """Of no values."""
        self.top = Float32.MIN_FINITE
        self.sum = 0

    @always_inline
    def __init__(out self, place: Floats, index: Int):
        """What `write` put there."""
        self.top = place[unsafe_offset=2 * index]
        self.sum = place[unsafe_offset=2 * index + 1]

    @always_inline
    def write(self, place: Floats, index: Int):
        """Into the pair of numbers at `index`."""
        place[unsafe_offset=2 * index] = self.top
        place[unsafe_offset=2 * index + 1] = self.sum

    @always_inline
    def add(mut self, value: Float32):
        """Another value."""
        if value > self.top:
            self.sum = self.sum * exp(self.top - value) + 1
            self.top = value
        else:
            self.sum += exp(value - self.top)

    @always_inline
    def join(mut self, other: Self):
        """The values of another."""
        if other.top > self.top:
            self.sum = self.sum * exp(self.top - other.top) + other.sum
            self.top = other.top
        else:
            self.sum += other.sum * exp(other.top - self.top)

    @always_inline
    def log(self) -> Float32:
        """`log(sum(exp(values)))`."""
        return self.top + log(self.sum)
