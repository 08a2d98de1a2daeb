"""The rules and the log-softmax of a step, and the best continuations of every row.

A row is shared out among PARTS blocks, twice. First each applies the rules to its part and tallies
what is left; then each knows the tallies of the whole row, and finds its part's best continuations.
What the rules are is told in `rules.mojo`.
"""

from max.gpu import block_idx
from std.math import ceildiv, exp

from ...common.rules import BANNED
from ...common.rules import KINDS, TEXT, TIMESTAMPS, UNRULED
from ...common.views import Floats, Ints
from .draw import Draw, before, noise
from ..log_sum_exp import LogSum
from ..block import FOLDS, shared, step

comptime PARTS = 16
comptime THREADS = 256
comptime LAST = Int32.MAX
"""The place of no continuation."""


@fieldwise_init
struct Part(ImplicitlyCopyable):
    """The ids `[begin, end)` of a row."""

    var row: Int
    var index: Int
    var begin: Int
    var end: Int

    @always_inline
    def __init__(out self, block: Int, vocabulary: Int):
        var size = ceildiv(vocabulary, PARTS)
        self.row = block // PARTS
        self.index = block % PARTS
        self.begin = min(vocabulary, self.index * size)
        self.end = min(vocabulary, self.begin + size)

    @always_inline
    def has(self, id: Int) -> Bool:
        """Whether an id is in it."""
        return self.begin <= id < self.end


@always_inline
def rule_block(
    block: Int,
    raw: Floats,
    ranges: Ints,
    banned: Ints,
    penalized: Ints,
    timestamps: Ints,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    tallies: Floats,
    vocabulary: Int,
    banned_count: Int,
    penalized_count: Int,
):
    """Applies the rules to a part, all but the one that needs the row's tallies, and tallies it.

    tallies [rows, KINDS, PARTS, 2]: `LogSum` of text and timestamps, and, where a probability
    before the rules is wanted, of all before them.
    """
    var part = Part(block, vocabulary)
    var row = part.row
    var source = raw.unsafe_offset(row * vocabulary)
    var line = ruled.unsafe_offset(row * vocabulary)
    var draw = Draw(draws, factors, row)

    def copy(thread: Int) {imm}:
        for k in range(part.begin + thread, part.end, THREADS):
            line[unsafe_offset=k] = source[unsafe_offset=k]

    step[THREADS](copy)

    def penalize(thread: Int) {imm}:
        for i in range(thread, penalized_count, THREADS):
            var id = Int(penalized[unsafe_offset=row * penalized_count + i])
            if part.has(id):
                var value = line[unsafe_offset=id]
                line[unsafe_offset=id] = (
                    value * draw.penalty if value < 0 else value / draw.penalty
                )

    step[THREADS](penalize)

    def ban(thread: Int) {imm}:
        for i in range(thread, banned_count, THREADS):
            var id = Int(banned[unsafe_offset=row * banned_count + i])
            if part.has(id):
                line[unsafe_offset=id] = BANNED
        for i in range(2):
            var bounds = ranges.unsafe_offset(4 * row + 2 * i)
            var low = max(part.begin, Int(bounds[unsafe_offset=0]))
            for k in range(low + thread, min(part.end, Int(bounds[unsafe_offset=1])), THREADS):
                line[unsafe_offset=k] = BANNED

    step[THREADS](ban)
    var own = shared[2 * KINDS * THREADS]()
    var folded = shared[2 * KINDS * FOLDS]()

    def note(thread: Int) {imm}:
        var start = Int(timestamps[unsafe_offset=0])
        var text = LogSum()
        var stamps = LogSum()
        var unruled = LogSum()
        for k in range(part.begin + thread, part.end, THREADS):
            if k < start:
                text.add(line[unsafe_offset=k])
            else:
                stamps.add(line[unsafe_offset=k])
            if draw.watched >= 0:
                unruled.add(source[unsafe_offset=k])
        text.write(own, TEXT * THREADS + thread)
        stamps.write(own, TIMESTAMPS * THREADS + thread)
        unruled.write(own, UNRULED * THREADS + thread)

    step[THREADS](note)

    def fold(thread: Int) {imm}:
        if thread < KINDS * FOLDS:
            var total = LogSum()
            comptime for k in range(THREADS // FOLDS):
                var i = k * FOLDS + thread % FOLDS
                total.join(LogSum(own, thread // FOLDS * THREADS + i))
            total.write(folded, thread)

    step[THREADS](fold)

    def tell(thread: Int) {imm}:
        if thread < KINDS:
            var total = LogSum()
            comptime for i in range(FOLDS):
                total.join(LogSum(folded, thread * FOLDS + i))
            total.write(tallies, (row * KINDS + thread) * PARTS + part.index)

    step[THREADS](tell)


@always_inline
def tally_of(tallies: Floats, row: Int, kind: Int) -> LogSum:
    """The tally of a whole row."""
    var total = LogSum()
    comptime for i in range(PARTS):
        total.join(LogSum(tallies, (row * KINDS + kind) * PARTS + i))
    return total


@always_inline
def survey_block(
    block: Int,
    raw: Floats,
    scores: Floats,
    checks: Ints,
    timestamps: Ints,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    tallies: Floats,
    watched: Floats,
    shifts: Floats,
    keys: Floats,
    places: Ints,
    vocabulary: Int,
    beams: Int,
    capacity: Int,
):
    """Applies the last rule to a part, and finds its best continuations in falling order.

    keys, places [rows, PARTS, capacity]: where a part has fewer ids, the rest are LAST.
    """
    var part = Part(block, vocabulary)
    var row = part.row
    var line = ruled.unsafe_offset(row * vocabulary)
    var draw = Draw(draws, factors, row)
    var total = tally_of(tallies, row, TEXT)
    var stamps = tally_of(tallies, row, TIMESTAMPS)
    if checks[unsafe_offset=row] != 0 and stamps.log() > total.top:
        var start = Int(timestamps[unsafe_offset=0])
        total = LogSum()

        def ban_text(thread: Int) {imm}:
            for k in range(part.begin + thread, min(part.end, start), THREADS):
                line[unsafe_offset=k] = BANNED

        step[THREADS](ban_text)
    total.join(stamps)
    var shift = scores[unsafe_offset=row] - total.log()

    def tell(thread: Int) {imm}:
        if thread == 0 and part.index == 0:
            shifts[unsafe_offset=row] = shift
            watched[unsafe_offset=row] = 0
            if draw.watched >= 0:
                var value = raw[unsafe_offset=row * vocabulary + draw.watched]
                watched[unsafe_offset=row] = exp(value - tally_of(tallies, row, UNRULED).log())

    step[THREADS](tell)
    var sampled = draw.sampled() and not draw.restricted(beams * vocabulary)
    var stream = draw.stream(draw.row)
    var part_keys = shared[THREADS]()
    var part_places = shared[THREADS, DType.int32]()
    var best_keys = shared[FOLDS]()
    var best_places = shared[FOLDS, DType.int32]()
    var last_key = Float32.MAX
    var last_place = Int32(-1)
    for index in range(capacity):

        def look(thread: Int) {imm}:
            var key = Float32.MIN
            var place = LAST
            for k in range(part.begin + thread, part.end, THREADS):
                var other = noise(sampled, draw.temperature, stream, line[unsafe_offset=k] + shift, k)
                if before(last_key, last_place, other, Int32(k)) and before(
                    other, Int32(k), key, place
                ):
                    key = other
                    place = Int32(k)
            part_keys[unsafe_offset=thread] = key
            part_places[unsafe_offset=thread] = place

        step[THREADS](look)

        def fold(thread: Int) {imm}:
            if thread < FOLDS:
                var key = Float32.MIN
                var place = LAST
                comptime for k in range(THREADS // FOLDS):
                    var i = k * FOLDS + thread
                    var other = part_keys[unsafe_offset=i]
                    if before(other, part_places[unsafe_offset=i], key, place):
                        key = other
                        place = part_places[unsafe_offset=i]
                best_keys[unsafe_offset=thread] = key
                best_places[unsafe_offset=thread] = place

        step[THREADS](fold)
        var key = Float32.MIN
        var place = LAST
        comptime for i in range(FOLDS):
            var other = best_keys[unsafe_offset=i]
            if before(other, best_places[unsafe_offset=i], key, place):
                key = other
                place = best_places[unsafe_offset=i]
        last_key = key
        last_place = place

        def keep(thread: Int) {imm}:
            if thread == 0:
                var choice = last_place
                if choice != LAST:
                    choice += Int32(row % beams * vocabulary)
                keys[unsafe_offset=block * capacity + index] = last_key
                places[unsafe_offset=block * capacity + index] = choice

        step[THREADS](keep)


def rule_kernel(
    raw: Floats,
    ranges: Ints,
    banned: Ints,
    penalized: Ints,
    timestamps: Ints,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    tallies: Floats,
    vocabulary: Int64,
    banned_count: Int64,
    penalized_count: Int64,
):
    """One block of the grid."""
    rule_block(
        Int(block_idx.x),
        raw,
        ranges,
        banned,
        penalized,
        timestamps,
        draws,
        factors,
        ruled,
        tallies,
        Int(vocabulary),
        Int(banned_count),
        Int(penalized_count),
    )


def survey_kernel(
    raw: Floats,
    scores: Floats,
    checks: Ints,
    timestamps: Ints,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    tallies: Floats,
    watched: Floats,
    shifts: Floats,
    keys: Floats,
    places: Ints,
    vocabulary: Int64,
    beams: Int64,
    capacity: Int64,
):
    """One block of the grid."""
    survey_block(
        Int(block_idx.x),
        raw,
        scores,
        checks,
        timestamps,
        draws,
        factors,
        ruled,
        tallies,
        watched,
        shifts,
        keys,
        places,
        Int(vocabulary),
        Int(beams),
        Int(capacity),
    )
