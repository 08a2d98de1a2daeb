"""The log-sum-exp of a row of logits, from its parts: each is read while it is in the cache."""

from std.math import log

from ..common.min_max import largest
from ..common.rules import KINDS, TEXT
from ..common.views import FloatView
from .token_probabilities import sum_of_exponentials


@fieldwise_init
struct LogSumExp(ImplicitlyCopyable):
    """The largest value of every part, and the sum of its exponentials below that.

    Sums of parts with maxima of their own add up to the row's (online softmax: Milakov and
    Gimelshein, 2018).
    """

    var tops: FloatView
    var sums: FloatView
    var parts: Int

    def add(self, part: Int, values: FloatView, count: Int):
        """What a part holds; nothing, where `count` is not positive."""
        var top = Float32.MIN_FINITE
        var sum = Float32(0)
        if count > 0:
            top = largest(values, count)
            sum = sum_of_exponentials(values, count, top)
        self.tops[part] = top
        self.sums[part] = sum

    def clear(self):
        """All parts are empty."""
        for part in range(self.parts):
            self.add(part, self.tops, 0)

    def top(self) -> Float32:
        """The largest value of all parts."""
        return largest(self.tops, self.parts)

    def value(self) -> Float32:
        """`log(sum(exp(values)))` of all parts."""
        var top = self.top()
        return top + log(sum_of_exponentials(self.tops, self.parts, top, self.sums))


@fieldwise_init
struct LogSumExps(ImplicitlyCopyable):
    """Three a row: of text and of timestamps after the rules, of all before them."""

    var tops: FloatView
    var sums: FloatView
    var parts: Int

    @staticmethod
    def size(rows: Int, parts: Int) -> Int:
        """The room that `tops` and `sums` need each."""
        return rows * KINDS * parts

    def of(self, row: Int, kind: Int) -> LogSumExp:
        """One of them."""
        return self._from(row, kind, self.parts)

    def ruled(self, row: Int) -> LogSumExp:
        """Text and timestamps."""
        return self._from(row, TEXT, 2 * self.parts)

    def _from(self, row: Int, kind: Int, parts: Int) -> LogSumExp:
        var place = (row * KINDS + kind) * self.parts
        return LogSumExp(self.tops.slice(place, parts), self.sums.slice(place, parts), parts)
