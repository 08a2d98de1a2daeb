"""The log-softmax of a row of logits, from its parts: each is seen while it is in the cache."""

from std.math import log

from ..common.extremes import largest
from ..common.rules import KINDS, TEXT
from .softmax import sum_of_exponentials
from ..common.views import Floats


@fieldwise_init
struct Tally(ImplicitlyCopyable):
    """The largest value of every part, and the sum of its exponentials below that.

    Sums of parts with maxima of their own add up to the row's (online softmax: Milakov and
    Gimelshein, 2018).
    """

    var tops: Floats
    var sums: Floats
    var parts: Int

    def note(self, part: Int, values: Floats, count: Int):
        """What a part holds; nothing, where `count` is not positive."""
        var top = Float32.MIN_FINITE
        var sum = Float32(0)
        if count > 0:
            top = largest(values, count)
            sum = sum_of_exponentials(values, count, top)
        self.tops[unsafe_offset=part] = top
        self.sums[unsafe_offset=part] = sum

    def forget(self):
        """All parts are empty."""
        for part in range(self.parts):
            self.note(part, self.tops, 0)

    def top(self) -> Float32:
        """The largest value of all parts."""
        return largest(self.tops, self.parts)

    def log_sum_exp(self) -> Float32:
        """`log(sum(exp(values)))` of all parts."""
        var top = self.top()
        return top + log(sum_of_exponentials(self.tops, self.parts, top, self.sums))




@fieldwise_init
struct Tallies(ImplicitlyCopyable):
    """Three tallies a row: of text and of timestamps after the rules, of all before them."""

    var tops: Floats
    var sums: Floats
    var parts: Int

    @staticmethod
    def floats(rows: Int, parts: Int) -> Int:
        """The room that `tops` and `sums` need each."""
        return rows * KINDS * parts

    def of(self, row: Int, kind: Int) -> Tally:
        """One tally."""
        return self._from(row, kind, self.parts)

    def ruled(self, row: Int) -> Tally:
        """Text and timestamps."""
        return self._from(row, TEXT, 2 * self.parts)

    def _from(self, row: Int, kind: Int, parts: Int) -> Tally:
        var place = (row * KINDS + kind) * self.parts
        return Tally(self.tops.unsafe_offset(place), self.sums.unsafe_offset(place), parts)
