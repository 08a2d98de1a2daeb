"""`log(sum(exp(values)))` of values that come one by one, or in parts that are merged.

Source: online softmax (Milakov and Gimelshein, 2018).
"""

from std.math import exp, log

from ..common.views import FloatView


struct LogSumExp(ImplicitlyCopyable):
    """The largest value, and the sum of the exponentials of all below it."""

    var largest: Float32
    var sum: Float32

    @always_inline
    def __init__(out self):
        """Of no values."""
        self.largest = Float32.MIN_FINITE
        self.sum = 0

    @always_inline
    def __init__(out self, pairs: FloatView, index: Int):
        """What `write` put there."""
        self.largest = pairs[2 * index]
        self.sum = pairs[2 * index + 1]

    @always_inline
    def write(self, pairs: FloatView, index: Int):
        """Into the pair of numbers at `index`."""
        pairs[2 * index] = self.largest
        pairs[2 * index + 1] = self.sum

    @always_inline
    def add(mut self, value: Float32):
        """Another value."""
        if value > self.largest:
            self.sum = self.sum * exp(self.largest - value) + 1
            self.largest = value
        else:
            self.sum += exp(value - self.largest)

    @always_inline
    def merge(mut self, other: Self):
        """The values of another."""
        if other.largest > self.largest:
            self.sum = self.sum * exp(self.largest - other.largest) + other.sum
            self.largest = other.largest
        else:
            self.sum += other.sum * exp(other.largest - self.largest)

    @always_inline
    def log(self) -> Float32:
        """`log(sum(exp(values)))`."""
        return self.largest + log(self.sum)
