"""What the decoding rules do to the logits of one step.

Source: the logits processors of CTranslate2 (`decoding_utils.cc` and
ApplyTimestampRules in `models/whisper.cc`). Which ids are concerned is decided
outside; here they are applied, in the reference's order.
"""

from std.math import exp

from .extremes import largest
from .softmax import log_sum_exp
from .tensors import Floats, Ints

comptime BANNED = Float32.MIN_FINITE


def ban(row: Floats, low: Int, high: Int):
    """Bans the ids `[low, high)`."""
    for id in range(low, high):
        row[unsafe_offset=id] = BANNED


def ban_listed(row: Floats, listed: Ints, count: Int):
    """Bans the ids of a list in which negative entries are padding."""
    for i in range(count):
        var id = Int(listed[unsafe_offset=i])
        if id >= 0:
            row[unsafe_offset=id] = BANNED


def penalize(row: Floats, previous: Ints, count: Int, penalty: Float32):
    """Divides positive logits of distinct earlier ids by `penalty`, multiplies negative ones."""
    for i in range(count):
        var id = Int(previous[unsafe_offset=i])
        if id >= 0:
            var value = row[unsafe_offset=id]
            row[unsafe_offset=id] = value * penalty if value < 0 else value / penalty


@fieldwise_init
struct Rules(ImplicitlyCopyable):
    """What the rules say about the rows of a step.

    suppressed [n], banned everywhere; ranges [rows, 4], two half-open ranges of banned ids;
    banned and penalized [rows, ...], padded with -1; checks [rows]: 1 where text is banned if the
    timestamps together are likelier than any text token.
    """

    var suppressed: Ints
    var suppressed_count: Int
    var ranges: Ints
    var banned: Ints
    var banned_count: Int
    var penalized: Ints
    var penalized_count: Int
    var checks: Ints
    var first_timestamp: Int
    var watched_id: Int
    """Whose probability before the rules is wanted, or -1."""
    var penalty: Float32

    def apply(self, index: Int, row: Floats, vocabulary: Int) -> Float32:
        """Applies them to a row of logits, in place; returns the watched probability, or 0."""
        var probability = Float32(0)
        if self.watched_id >= 0:
            var watched = row[unsafe_offset=self.watched_id]
            probability = exp(watched - log_sum_exp(row, vocabulary))
        penalize(
            row,
            self.penalized.unsafe_offset(index * self.penalized_count),
            self.penalized_count,
            self.penalty,
        )
        ban_listed(row, self.suppressed, self.suppressed_count)
        ban_listed(
            row, self.banned.unsafe_offset(index * self.banned_count), self.banned_count
        )
        for i in range(2):
            var bounds = self.ranges.unsafe_offset(4 * index + 2 * i)
            ban(row, Int(bounds[unsafe_offset=0]), Int(bounds[unsafe_offset=1]))
        if self.checks[unsafe_offset=index] != 0:
            var start = self.first_timestamp
            var timestamps = log_sum_exp(row.unsafe_offset(start), vocabulary - start)
            if timestamps > largest(row, start):
                ban(row, 0, start)
        return probability
