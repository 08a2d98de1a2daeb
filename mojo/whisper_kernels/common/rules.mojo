"""What the decoding rules do to the logits of one step.

Source: the logits processors of CTranslate2 (`decoding_utils.cc` and
ApplyTimestampRules in `models/whisper.cc`). Which ids are concerned is decided
outside; here they are applied, in the reference's order.
"""

from .views import Floats, Ints

comptime BANNED = Float32.MIN_FINITE

comptime TEXT = 0
comptime TIMESTAMPS = 1
"""After the text, in the vocabulary and here."""
comptime UNRULED = 2
comptime KINDS = 3


def ban(row: Floats, low: Int, high: Int):
    """Bans the ids `[low, high)`."""
    for id in range(low, high):
        row[unsafe_offset=id] = BANNED


def penalize(
    row: Floats, previous: Ints, count: Int, penalty: Float32, low: Int, high: Int
):
    """Divides positive logits of distinct earlier ids by `penalty`, multiplies negative ones."""
    for i in range(count):
        var id = Int(previous[unsafe_offset=i])
        if low <= id < high:
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

    def ban_all(self, rows: Int, low: Int, high: Int) -> Bool:
        """Whether one of its ranges bans the ids `[low, high)` in every row, as all text is where
        a timestamp has to follow."""
        for index in range(rows):
            var bounds = self.ranges.unsafe_offset(4 * index)
            var banned = False
            for i in range(0, 4, 2):
                var first = Int(bounds[unsafe_offset=i])
                var last = Int(bounds[unsafe_offset=i + 1])
                banned = banned or (first <= low and high <= last)
            if not banned:
                return False
        return True

    def apply(self, logits: Floats, rows: Int, vocabulary: Int, low: Int, high: Int):
        """Applies them to the logits `[low, high)` of all rows, but for the check of timestamps."""
        for index in range(rows):
            penalize(
                logits.unsafe_offset(index * vocabulary),
                self.penalized.unsafe_offset(index * self.penalized_count),
                self.penalized_count,
                self.penalty,
                low,
                high,
            )
        for i in range(self.suppressed_count):
            var id = Int(self.suppressed[unsafe_offset=i])
            if low <= id < high:
                for index in range(rows):
                    logits[unsafe_offset=index * vocabulary + id] = BANNED
        for index in range(rows):
            var row = logits.unsafe_offset(index * vocabulary)
            for i in range(self.banned_count):
                var id = Int(self.banned[unsafe_offset=index * self.banned_count + i])
                if low <= id < high:
                    row[unsafe_offset=id] = BANNED
            for i in range(2):
                var bounds = self.ranges.unsafe_offset(4 * index + 2 * i)
                ban(
                    row,
                    max(low, Int(bounds[unsafe_offset=0])),
                    min(high, Int(bounds[unsafe_offset=1])),
                )
