"""What the decoding rules do to the logits of one step.

Source: the logits processors of CTranslate2 (`decoding_utils.cc` and
ApplyTimestampRules in `models/whisper.cc`). Which ids are concerned is decided
outside; here they are applied, in the reference's order.
"""

from .views import FloatView, IntView

comptime BANNED = Float32.MIN_FINITE

comptime TEXT = 0
comptime TIMESTAMPS = 1
"""After the text, in the vocabulary and here."""
comptime UNRULED = 2
comptime KINDS = 3


def ban(row: FloatView, low: Int, high: Int):
    """Bans the ids `[low, high)`."""
    for id in range(low, high):
        row[id] = BANNED


def penalize(row: FloatView, previous: IntView, count: Int, penalty: Float32, low: Int, high: Int):
    """Divides positive logits of distinct earlier ids by `penalty`, multiplies negative ones."""
    for i in range(count):
        var id = Int(previous[i])
        if low <= id < high:
            var value = row[id]
            row[id] = value * penalty if value < 0 else value / penalty


@fieldwise_init
struct Rules(ImplicitlyCopyable):
    """What the rules say about the rows of a step.

    suppressed [n], banned everywhere; ranges [rows, 4], two half-open ranges of banned ids;
    banned and penalized [rows, ...], padded with -1; checks [rows]: 1 where text is banned if the
    timestamps together are likelier than any text token.
    """

    var suppressed: IntView
    var suppressed_count: Int
    var ranges: IntView
    var banned: IntView
    var banned_count: Int
    var penalized: IntView
    var penalized_count: Int
    var checks: IntView
    var first_timestamp: Int
    var watched_id: Int
    """Whose probability before the rules is wanted, or -1."""
    var penalty: Float32

    def ban_all(self, rows: Int, low: Int, high: Int) -> Bool:
        """Whether one of its ranges bans the ids `[low, high)` in every row, as all text is where
        a timestamp has to follow."""
        for index in range(rows):
            var bounds = self.ranges.slice(4 * index, 4)
            var banned = False
            for i in range(0, 4, 2):
                var first = Int(bounds[i])
                var last = Int(bounds[i + 1])
                banned = banned or (first <= low and high <= last)
            if not banned:
                return False
        return True

    def apply(self, logits: FloatView, rows: Int, vocabulary: Int, low: Int, high: Int):
        """Applies them to the logits `[low, high)` of all rows, but for the check of timestamps."""
        for index in range(rows):
            penalize(
                logits.slice(index * vocabulary, vocabulary),
                self.penalized.slice(index * self.penalized_count, self.penalized_count),
                self.penalized_count,
                self.penalty,
                low,
                high,
            )
        for i in range(self.suppressed_count):
            var id = Int(self.suppressed[i])
            if low <= id < high:
                for index in range(rows):
                    logits[index * vocabulary + id] = BANNED
        for index in range(rows):
            var row = logits.slice(index * vocabulary, vocabulary)
            for i in range(self.banned_count):
                var id = Int(self.banned[index * self.banned_count + i])
                if low <= id < high:
                    row[id] = BANNED
            for i in range(2):
                var bounds = self.ranges.slice(4 * index + 2 * i, 2)
                ban(
                    row,
                    max(low, Int(bounds[0])),
                    min(high, Int(bounds[1])),
                )
