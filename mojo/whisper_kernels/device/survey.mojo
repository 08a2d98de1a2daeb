"""The rules and the log-softmax of a step: a block finds the best continuations of its row.

What the rules are is told in `rules.mojo`.
"""

from max.gpu import block_idx
from std.math import exp

from ..rules import BANNED
from ..tensors import Floats, Ints
from .draw import Draw, before, noise
from .softmax import THREADS, log_sum
from .team import FOLDS, Reduction, shared, step

comptime LAST = Int32.MAX
"""The place of no continuation."""


@always_inline
def survey_block(
    row: Int,
    raw: Floats,
    scores: Floats,
    ranges: Ints,
    banned: Ints,
    penalized: Ints,
    checks: Ints,
    timestamps: Ints,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    watched: Floats,
    shifts: Floats,
    keys: Floats,
    places: Ints,
    vocabulary: Int,
    beams: Int,
    capacity: Int,
    banned_count: Int,
    penalized_count: Int,
):
    """Applies the rules to a row, and finds its best continuations in falling order."""
    var source = raw.unsafe_offset(row * vocabulary)
    var line = ruled.unsafe_offset(row * vocabulary)
    var reduction = Reduction[THREADS]()

    def copy(thread: Int) {imm}:
        for k in range(thread, vocabulary, THREADS):
            line[unsafe_offset=k] = source[unsafe_offset=k]

    step[THREADS](copy)
    var draw = Draw(draws, factors, row)
    var watched_id = draw.watched
    var probability = Float32(0)
    if watched_id >= 0:
        probability = exp(
            source[unsafe_offset=watched_id] - log_sum(reduction, source, vocabulary)
        )

    def penalize(thread: Int) {imm}:
        if thread == 0:
            watched[unsafe_offset=row] = probability
        for i in range(thread, penalized_count, THREADS):
            var id = Int(penalized[unsafe_offset=row * penalized_count + i])
            if id >= 0:
                var value = line[unsafe_offset=id]
                line[unsafe_offset=id] = (
                    value * draw.penalty if value < 0 else value / draw.penalty
                )

    step[THREADS](penalize)

    def ban(thread: Int) {imm}:
        for i in range(thread, banned_count, THREADS):
            var id = Int(banned[unsafe_offset=row * banned_count + i])
            if id >= 0:
                line[unsafe_offset=id] = BANNED
        for i in range(2):
            var bounds = ranges.unsafe_offset(4 * row + 2 * i)
            for k in range(
                Int(bounds[unsafe_offset=0]) + thread, Int(bounds[unsafe_offset=1]), THREADS
            ):
                line[unsafe_offset=k] = BANNED

    step[THREADS](ban)
    if checks[unsafe_offset=row] != 0:
        var start = Int(timestamps[unsafe_offset=0])
        var together = log_sum(reduction, line.unsafe_offset(start), vocabulary - start)

        def text_top(thread: Int) {imm} -> Float32:
            var top = Float32.MIN_FINITE
            for k in range(thread, start, THREADS):
                top = max(top, line[unsafe_offset=k])
            return top

        if together > reduction.maximum(text_top):

            def ban_text(thread: Int) {imm}:
                for k in range(thread, start, THREADS):
                    line[unsafe_offset=k] = BANNED

            step[THREADS](ban_text)
    var shift = scores[unsafe_offset=row] - log_sum(reduction, line, vocabulary)
    var sampled = draw.sampled() and not draw.restricted(beams * vocabulary)
    var stream = draw.stream(draw.row)
    var part_keys = shared[THREADS]()
    var part_places = shared[THREADS, DType.int32]()
    var best_keys = shared[FOLDS]()
    var best_places = shared[FOLDS, DType.int32]()
    var last_key = Float32.MAX
    var last_place = Int32(-1)
    for index in range(min(capacity, vocabulary)):

        def look(thread: Int) {imm}:
            var key = Float32.MIN
            var place = LAST
            for k in range(thread, vocabulary, THREADS):
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
                for i in range(thread, THREADS, FOLDS):
                    var other = part_keys[unsafe_offset=i]
                    if before(other, part_places[unsafe_offset=i], key, place):
                        key = other
                        place = part_places[unsafe_offset=i]
                best_keys[unsafe_offset=thread] = key
                best_places[unsafe_offset=thread] = place

        step[THREADS](fold)
        var key = Float32.MIN
        var place = LAST
        for i in range(FOLDS):
            var other = best_keys[unsafe_offset=i]
            if before(other, best_places[unsafe_offset=i], key, place):
                key = other
                place = best_places[unsafe_offset=i]
        last_key = key
        last_place = place

        def keep(thread: Int) {imm}:
            if thread == 0:
                keys[unsafe_offset=row * capacity + index] = last_key
                places[unsafe_offset=row * capacity + index] = (
                    Int32(row % beams * vocabulary) + last_place
                )

        step[THREADS](keep)

    def tell_shift(thread: Int) {imm}:
        if thread == 0:
            shifts[unsafe_offset=row] = shift

    step[THREADS](tell_shift)


def survey_kernel(
    raw: Floats,
    scores: Floats,
    ranges: Ints,
    banned: Ints,
    penalized: Ints,
    checks: Ints,
    timestamps: Ints,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    watched: Floats,
    shifts: Floats,
    keys: Floats,
    places: Ints,
    vocabulary: Int64,
    beams: Int64,
    capacity: Int64,
    banned_count: Int64,
    penalized_count: Int64,
):
    """One block of the grid."""
    survey_block(
        Int(block_idx.x),
        raw,
        scores,
        ranges,
        banned,
        penalized,
        checks,
        timestamps,
        draws,
        factors,
        ruled,
        watched,
        shifts,
        keys,
        places,
        Int(vocabulary),
        Int(beams),
        Int(capacity),
        Int(banned_count),
        Int(penalized_count),
    )
