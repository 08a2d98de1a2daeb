"""The end of a step: rules, log-softmax, and the continuations of every item.

First the parts of every row find their best continuations (`top_k.mojo`). Then a block has an
item: each continuation counts those that come before it, first in its row, then in the item, which
is its place.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.memory import bitcast

from ...common.gumbel import gumbel
from ...common.views import Floats, Ints, floats, ints
from .draw import Draw, before
from ..softmax import THREADS
from .top_k import LAST, PARTS, rule_block, rule_kernel, survey_block, survey_kernel
from .top_k import THREADS as SURVEY_THREADS
from ..block import blocks_on_cpu, step


@always_inline
def choose_block(
    item: Int,
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    shifts: Floats,
    part_keys: Floats,
    part_places: Ints,
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
    comptime parts = PARTS
    var all_keys = part_keys.unsafe_offset(item * beams * parts * capacity)
    var all_places = part_places.unsafe_offset(item * beams * parts * capacity)
    var own_keys = keys.unsafe_offset(item * beams * capacity)
    var own_places = places.unsafe_offset(item * beams * capacity)
    var own_drawn = drawn.unsafe_offset(item * beams * capacity)
    var own = proposals.unsafe_offset(item * 3 * wanted)

    # Of a row's parts, the first are the row's own.
    def gather(thread: Int) {imm}:
        for cell in range(thread, beams * parts * capacity, THREADS):
            var row = cell // (parts * capacity)
            var row_keys = all_keys.unsafe_offset(row * parts * capacity)
            var row_places = all_places.unsafe_offset(row * parts * capacity)
            var key = all_keys[unsafe_offset=cell]
            var place = all_places[unsafe_offset=cell]
            var rank = 0
            for first in range(0, parts * capacity, capacity):
                var i = first
                while i < first + capacity and rank < found and before(
                    row_keys[unsafe_offset=i], row_places[unsafe_offset=i], key, place
                ):
                    rank += 1
                    i += 1
            if rank < found and place != LAST:
                own_keys[unsafe_offset=row * capacity + rank] = key
                own_places[unsafe_offset=row * capacity + rank] = place

    step[THREADS](gather)

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


def choose_kernel(
    draws: Ints,
    factors: Floats,
    ruled: Floats,
    shifts: Floats,
    part_keys: Floats,
    part_places: Ints,
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
        part_keys,
        part_places,
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
    tallies [rows, KINDS * PARTS * 2], part_keys and part_places [rows, PARTS * capacity], keys,
    places, drawn [rows, capacity] are room to work in: capacity is what is looked at of each row,
    the candidates or, where sampling is restricted to more, those.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        proposals: OutputTensor[dtype=DType.int32, rank=3, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        ruled: OutputTensor[dtype=DType.float32, rank=3, ...],
        shifts: OutputTensor[dtype=DType.float32, rank=1, ...],
        tallies: OutputTensor[dtype=DType.float32, rank=2, ...],
        part_keys: OutputTensor[dtype=DType.float32, rank=2, ...],
        part_places: OutputTensor[dtype=DType.int32, rank=2, ...],
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
            var tallies_at = floats(tallies)
            var watched_at = floats(watched)
            var shifts_at = floats(shifts)
            var part_keys_at = floats(part_keys)
            var part_places_at = ints(part_places)
            var keys_at = floats(keys)
            var places_at = ints(places)
            var drawn_at = floats(drawn)
            var proposals_at = ints(proposals)

            def rule(block: Int) {imm}:
                rule_block(
                    block,
                    raw_at,
                    ranges_at,
                    banned_at,
                    penalized_at,
                    timestamps_at,
                    draws_at,
                    factors_at,
                    ruled_at,
                    tallies_at,
                    vocabulary,
                    banned_count,
                    penalized_count,
                )

            blocks_on_cpu(items * beams * PARTS, rule)

            def survey(block: Int) {imm}:
                survey_block(
                    block,
                    raw_at,
                    scores_at,
                    checks_at,
                    timestamps_at,
                    draws_at,
                    factors_at,
                    ruled_at,
                    tallies_at,
                    watched_at,
                    shifts_at,
                    part_keys_at,
                    part_places_at,
                    vocabulary,
                    beams,
                    capacity,
                )

            blocks_on_cpu(items * beams * PARTS, survey)

            def choose(item: Int) {imm}:
                choose_block(
                    item,
                    draws_at,
                    factors_at,
                    ruled_at,
                    shifts_at,
                    part_keys_at,
                    part_places_at,
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
            ctx.enqueue_function[rule_kernel](
                floats(logits),
                ints(ranges),
                ints(banned),
                ints(penalized),
                ints(timestamps),
                ints(draws),
                floats(factors),
                floats(ruled),
                floats(tallies),
                Int64(vocabulary),
                Int64(banned_count),
                Int64(penalized_count),
                grid_dim=items * beams * PARTS,
                block_dim=SURVEY_THREADS,
            )
            ctx.enqueue_function[survey_kernel](
                floats(logits),
                floats(scores),
                ints(checks),
                ints(timestamps),
                ints(draws),
                floats(factors),
                floats(ruled),
                floats(tallies),
                floats(watched),
                floats(shifts),
                floats(part_keys),
                ints(part_places),
                Int64(vocabulary),
                Int64(beams),
                Int64(capacity),
                grid_dim=items * beams * PARTS,
                block_dim=SURVEY_THREADS,
            )
            ctx.enqueue_function[choose_kernel](
                ints(draws),
                floats(factors),
                floats(ruled),
                floats(shifts),
                floats(part_keys),
                ints(part_places),
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
