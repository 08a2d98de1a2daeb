"""The end of a step: rules, log-softmax, and the continuations of every item.

What the rules and the draw are is told in `rules.mojo` and `candidates.mojo`. Here a block has a
row of logits: it finds the row's best continuations one after another. Then a block has an item:
each of its rows' continuations counts those that come before it, which is its place.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import exp
from std.memory import bitcast

from ..candidates import gumbel, hashed
from ..rules import BANNED
from ..tensors import Floats, Ints, floats, ints
from .softmax import THREADS, log_sum
from .team import FOLDS, Reduction, blocks_on_cpu, shared, step

comptime LAST = Int32.MAX
"""The place of no continuation."""


struct Draw(ImplicitlyCopyable):
    """How the continuations of a row are chosen. Rows of several requests may be side by side, so
    each has its own, and knows its number among the rows of its request: chance is the same
    whatever else is in the step."""

    var watched: Int
    """The id whose probability before the rules is wanted, or -1."""
    var topk: Int
    """Sample among so many of an item's best; 0: among all, 1: take the best."""
    var seed: UInt32
    var row: Int
    """Among the rows of the request."""
    var penalty: Float32
    var temperature: Float32
    """0 takes the best."""

    @always_inline
    def __init__(out self, draws: Ints, factors: Floats, row: Int):
        """Of a row of draws [rows, 4] and factors [rows, 2], in the order of the fields."""
        self.watched = Int(draws[unsafe_offset=4 * row])
        self.topk = Int(draws[unsafe_offset=4 * row + 1])
        self.seed = hashed[1](UInt32(draws[unsafe_offset=4 * row + 2]))
        self.row = Int(draws[unsafe_offset=4 * row + 3])
        self.penalty = factors[unsafe_offset=2 * row]
        self.temperature = factors[unsafe_offset=2 * row + 1]

    @always_inline
    def sampled(self) -> Bool:
        """Whether chance plays a part."""
        return self.temperature > 0 and self.topk != 1

    @always_inline
    def restricted(self, count: Int) -> Bool:
        """Whether it does so among the best only, of `count` continuations."""
        return self.sampled() and 0 < self.topk < count

    @always_inline
    def stream(self, index: Int) -> UInt32:
        """What the noise of a row, or of an item, is made from."""
        return hashed[1](self.seed ^ UInt32(index + 1))


@always_inline
def before(key: Float32, place: Int32, other: Float32, other_place: Int32) -> Bool:
    """Whether a continuation comes before another: a larger key, or an equal one further left."""
    return key > other or (key == other and place < other_place)


@always_inline
def noise(sampled: Bool, temperature: Float32, stream: UInt32, value: Float32, id: Int) -> Float32:
    """What a continuation is ordered by."""
    if not sampled:
        return value
    return value / temperature + gumbel[1](stream, UInt32(id))


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
    wanted: Int,
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


@always_inline
def choose_block(
    item: Int,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    shifts: Floats,
    keys: Floats,
    places: Ints,
    drawn: Floats,
    proposals: Ints,
    vocabulary: Int,
    beams: Int,
    wanted: Int,
    capacity: Int,
):
    """Puts the continuations of an item's rows in order.

    proposals [3, wanted]: ids, rows within the item, and scores as the bits of float32; where
    fewer are left than wanted, the last repeats.
    """
    var found = min(capacity, vocabulary)
    var count = beams * found
    var draw = Draw(draws, factors, item * beams)
    var restricted = draw.restricted(beams * vocabulary)
    var stream = draw.stream(draw.row // beams)
    var left = min(draw.topk, count) if restricted else count
    var own_keys = keys.unsafe_offset(item * beams * capacity)
    var own_places = places.unsafe_offset(item * beams * capacity)
    var own_drawn = drawn.unsafe_offset(item * beams * capacity)
    var own = proposals.unsafe_offset(item * 3 * wanted)

    # Those that sampling is restricted to get their noise, by their order; the others fall out.
    def perturb(thread: Int) {imm}:
        for i in range(thread, count, THREADS):
            var cell = i // found * capacity + i % found
            var key = own_keys[unsafe_offset=cell]
            if restricted:
                var rank = rank_of(own_keys, own_places, cell, found, capacity, beams)
                key = (
                    key / draw.temperature + gumbel[1](stream, UInt32(rank)) if rank
                    < draw.topk else Float32.MIN
                )
            own_drawn[unsafe_offset=cell] = key

    step[THREADS](perturb)

    def place(thread: Int) {imm}:
        for i in range(thread, count, THREADS):
            var cell = i // found * capacity + i % found
            var rank = rank_of(own_drawn, own_places, cell, found, capacity, beams)
            if rank < min(left, wanted):
                var last = wanted if rank == min(left, wanted) - 1 else rank + 1
                var choice = Int(own_places[unsafe_offset=cell])
                var beam = choice // vocabulary
                var value = (
                    ruled[unsafe_offset=item * beams * vocabulary + choice]
                    + shifts[unsafe_offset=item * beams + beam]
                )
                for k in range(rank, last):
                    own[unsafe_offset=k] = Int32(choice % vocabulary)
                    own[unsafe_offset=wanted + k] = Int32(beam)
                    own[unsafe_offset=2 * wanted + k] = bitcast[DType.int32](value)

    step[THREADS](place)


@always_inline
def rank_of(keys: Floats, places: Ints, cell: Int, found: Int, capacity: Int, rows: Int) -> Int:
    """How many of the `rows` by `found` continuations come before the one in `cell`."""
    var key = keys[unsafe_offset=cell]
    var place = places[unsafe_offset=cell]
    var rank = 0
    for row in range(rows):
        for i in range(row * capacity, row * capacity + found):
            if before(keys[unsafe_offset=i], places[unsafe_offset=i], key, place):
                rank += 1
    return rank


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
    wanted: Int64,
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
        Int(wanted),
        Int(capacity),
        Int(banned_count),
        Int(penalized_count),
    )


def choose_kernel(
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    shifts: Floats,
    keys: Floats,
    places: Ints,
    drawn: Floats,
    proposals: Ints,
    vocabulary: Int64,
    beams: Int64,
    wanted: Int64,
    capacity: Int64,
):
    """One block of the grid."""
    choose_block(
        Int(block_idx.x),
        draws,
        factors,
        ruled,
        shifts,
        keys,
        places,
        drawn,
        proposals,
        Int(vocabulary),
        Int(beams),
        Int(wanted),
        Int(capacity),
    )


@extensibility.register("whisper.device.choose")
struct Choose:
    """The end of a step, from logits [items, beams, vocabulary]; rows are items * beams.

    scores [rows] so far; ranges [rows, 4], banned and penalized [rows, ...] padded with -1, checks
    [rows] as `Rules` has them; timestamps [1]: the id where they begin; draws [rows, 4] and factors
    [rows, 2] as `Draw` has them. proposals [items, 3, candidates] int32: ids, rows within the
    item, and scores as bits; watched [rows]; ruled: the logits after the rules; shifts [rows],
    keys, places, drawn [rows, capacity] are room to work in: capacity is what is looked at of each
    row, the candidates or, where sampling is restricted to more, those.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        proposals: OutputTensor[dtype=DType.int32, rank=3, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        ruled: OutputTensor[dtype=DType.float32, rank=3, ...],
        shifts: OutputTensor[dtype=DType.float32, rank=1, ...],
        keys: OutputTensor[dtype=DType.float32, rank=2, ...],
        places: OutputTensor[dtype=DType.int32, rank=2, ...],
        drawn: OutputTensor[dtype=DType.float32, rank=2, ...],
        logits: InputTensor[dtype=DType.float32, rank=3, ...],
        scores: InputTensor[dtype=DType.float32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int32, rank=2, ...],
        banned: InputTensor[dtype=DType.int32, rank=2, ...],
        penalized: InputTensor[dtype=DType.int32, rank=2, ...],
        checks: InputTensor[dtype=DType.int32, rank=1, ...],
        timestamps: InputTensor[dtype=DType.int32, rank=1, ...],
        draws: InputTensor[dtype=DType.int32, rank=2, ...],
        factors: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var items = logits.dim_size(0)
        var beams = logits.dim_size(1)
        var vocabulary = logits.dim_size(2)
        var wanted = proposals.dim_size(2)
        var capacity = keys.dim_size(1)
        var banned_count = banned.dim_size(1)
        var penalized_count = penalized.dim_size(1)
        if items == 0:
            return
        comptime if is_cpu[target]():
            var raw_at = floats(logits)
            var scores_at = floats(scores)
            var ranges_at = ints(ranges)
            var banned_at = ints(banned)
            var penalized_at = ints(penalized)
            var checks_at = ints(checks)
            var timestamps_at = ints(timestamps)
            var draws_at = ints(draws)
            var factors_at = floats(factors)
            var ruled_at = floats(ruled)
            var watched_at = floats(watched)
            var shifts_at = floats(shifts)
            var keys_at = floats(keys)
            var places_at = ints(places)
            var drawn_at = floats(drawn)
            var proposals_at = ints(proposals)

            def survey(row: Int) {imm}:
                survey_block(
                    row,
                    raw_at,
                    scores_at,
                    ranges_at,
                    banned_at,
                    penalized_at,
                    checks_at,
                    timestamps_at,
                    draws_at,
                    factors_at,
                    ruled_at,
                    watched_at,
                    shifts_at,
                    keys_at,
                    places_at,
                    vocabulary,
                    beams,
                    wanted,
                    capacity,
                    banned_count,
                    penalized_count,
                )

            blocks_on_cpu(items * beams, survey)

            def choose(item: Int) {imm}:
                choose_block(
                    item,
                    draws_at,
                    factors_at,
                    ruled_at,
                    shifts_at,
                    keys_at,
                    places_at,
                    drawn_at,
                    proposals_at,
                    vocabulary,
                    beams,
                    wanted,
                    capacity,
                )

            blocks_on_cpu(items, choose)
        else:
            ctx.enqueue_function[survey_kernel](
                floats(logits),
                floats(scores),
                ints(ranges),
                ints(banned),
                ints(penalized),
                ints(checks),
                ints(timestamps),
                ints(draws),
                floats(factors),
                floats(ruled),
                floats(watched),
                floats(shifts),
                floats(keys),
                ints(places),
                Int64(vocabulary),
                Int64(beams),
                Int64(wanted),
                Int64(capacity),
                Int64(banned_count),
                Int64(penalized_count),
                grid_dim=items * beams,
                block_dim=THREADS,
            )
            ctx.enqueue_function[choose_kernel](
                ints(draws),
                floats(factors),
                floats(ruled),
                floats(shifts),
                floats(keys),
                ints(places),
                floats(drawn),
                ints(proposals),
                Int64(vocabulary),
                Int64(beams),
                Int64(wanted),
                Int64(capacity),
                grid_dim=items,
                block_dim=THREADS,
            )
