"""Applies the rules, normalises, and finds each item's best or sampled candidates.

First the parts of every row find their best continuations (`top_k.mojo`). Then a block has an
item: each continuation counts those that come before it, first in its row, then in the item, which
is its rank.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.memory import bitcast

from ...common.gumbel import gumbel
from ...common.views import FloatView, IntView, View
from ..thread_block import each_thread
from ..launch import Kernel, launch
from .sampling_params import Sampling, before
from .top_k import BLOCKS_PER_ROW, NOTHING, RulesKernel, TopKKernel


@fieldwise_init
struct RankKernel(Kernel):
    """Puts the continuations of an item's rows in order.

    candidates [items, 3, wanted]: ids, rows within the item, and scores as the bits of float32;
    where fewer are left than wanted, the last repeats. Numbers that are none (NaN) have no order,
    so ranks are left out; there the id is `NOTHING`.
    """

    comptime threads = 512
    var sampling: IntView
    var factors: FloatView
    var ruled: FloatView
    var shifts: FloatView
    var part_keys: FloatView
    var part_indices: IntView
    var keys: FloatView
    var indices: IntView
    var noisy_keys: FloatView
    var candidates: IntView
    var vocabulary: Int
    var beams: Int
    var wanted: Int
    var capacity: Int

    @always_inline
    def __call__(self, block: Int):
        comptime THREADS = Self.threads
        var found = min(self.capacity, self.vocabulary)
        var count = self.beams * found
        var sampling = Sampling(self.sampling, self.factors, block * self.beams)
        var restricted = sampling.restricted(self.beams * self.vocabulary)
        var stream = sampling.stream(sampling.row // self.beams)
        var left = min(sampling.topk, count) if restricted else count
        var row_size = BLOCKS_PER_ROW * self.capacity
        var part_keys = self.part_keys.slice(block * self.beams * row_size, self.beams * row_size)
        var part_indices = self.part_indices.slice(
            block * self.beams * row_size, self.beams * row_size
        )
        var item_size = self.beams * self.capacity
        var keys = self.keys.slice(block * item_size, item_size)
        var indices = self.indices.slice(block * item_size, item_size)
        var noisy_keys = self.noisy_keys.slice(block * item_size, item_size)
        var own = self.candidates.slice(block * 3 * self.wanted, 3 * self.wanted)

        def clear(thread: Int) {imm}:
            for cell in range(thread, item_size, THREADS):
                keys[cell] = Float32.MIN
                indices[cell] = NOTHING
            for k in range(thread, self.wanted, THREADS):
                own[k] = NOTHING
                own[self.wanted + k] = 0

        each_thread[THREADS](clear)

        # Of a row's parts, the first are the row's own.
        def gather(thread: Int) {imm}:
            for cell in range(thread, self.beams * row_size, THREADS):
                var row = cell // row_size
                var row_keys = part_keys.slice(row * row_size, row_size)
                var row_indices = part_indices.slice(row * row_size, row_size)
                var key = part_keys[cell]
                var index = part_indices[cell]
                var rank = 0
                for first in range(0, row_size, self.capacity):
                    var i = first
                    while (
                        i < first + self.capacity
                        and rank < found
                        and before(row_keys[i], row_indices[i], key, index)
                    ):
                        rank += 1
                        i += 1
                if rank < found and index != NOTHING:
                    keys[row * self.capacity + rank] = key
                    indices[row * self.capacity + rank] = index

        each_thread[THREADS](gather)

        # Those that sampling is restricted to get their noise, by their order; the others fall out.
        def perturb(thread: Int) {imm}:
            for i in range(thread, count, THREADS):
                var cell = i // found * self.capacity + i % found
                var key = keys[cell]
                if restricted:
                    var rank = rank_of(keys, indices, cell, found, self.capacity, self.beams)
                    key = (
                        key / sampling.temperature + gumbel[1](stream, UInt32(rank)) if rank
                        < sampling.topk else Float32.MIN
                    )
                noisy_keys[cell] = key

        each_thread[THREADS](perturb)

        def place(thread: Int) {imm}:
            for i in range(thread, count, THREADS):
                var cell = i // found * self.capacity + i % found
                var rank = rank_of(noisy_keys, indices, cell, found, self.capacity, self.beams)
                if rank < min(left, self.wanted) and indices[cell] != NOTHING:
                    var last = self.wanted if rank == min(left, self.wanted) - 1 else rank + 1
                    var choice = Int(indices[cell])
                    var beam = choice // self.vocabulary
                    var value = (
                        self.ruled[block * self.beams * self.vocabulary + choice]
                        + self.shifts[block * self.beams + beam]
                    )
                    for k in range(rank, last):
                        own[k] = Int32(choice % self.vocabulary)
                        own[self.wanted + k] = Int32(beam)
                        own[2 * self.wanted + k] = bitcast[DType.int32](value)

        each_thread[THREADS](place)


@always_inline
def rank_of(
    keys: FloatView, indices: IntView, cell: Int, found: Int, capacity: Int, rows: Int
) -> Int:
    """How many of the `rows` by `found` continuations come before the one in `cell`."""
    var key = keys[cell]
    var index = indices[cell]
    var rank = 0
    for row in range(rows):
        for i in range(row * capacity, row * capacity + found):
            if before(keys[i], indices[i], key, index):
                rank += 1
    return rank


@extensibility.register("whisper.gpu.choose")
struct Choose:
    """The end of a step, from logits [items, beams, vocabulary]; rows are items * beams.

    scores [rows] so far; ranges [rows, 4], banned and penalized [rows, ...] padded with -1, checks
    [rows] as `Rules` has them; first_timestamp [1]; sampling_integers [rows, 4] and sampling_floats
    [rows, 2] as `Sampling` has them. candidates [items, 3, wanted] int32: ids, rows within the
    item, and scores as bits; watched [rows]; ruled: the logits after the rules; shifts [rows],
    partial_sums [rows, KINDS * BLOCKS_PER_ROW * 2], part_keys and part_indices
    [rows, BLOCKS_PER_ROW * capacity], keys, indices, noisy_keys [rows, capacity] are room to work
    in: capacity is what is looked at of each row, as much as is wanted or, where sampling is
    restricted to more, that.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        candidates: OutputTensor[dtype=DType.int32, rank=3, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        ruled: OutputTensor[dtype=DType.float32, rank=3, ...],
        shifts: OutputTensor[dtype=DType.float32, rank=1, ...],
        partial_sums: OutputTensor[dtype=DType.float32, rank=2, ...],
        part_keys: OutputTensor[dtype=DType.float32, rank=2, ...],
        part_indices: OutputTensor[dtype=DType.int32, rank=2, ...],
        keys: OutputTensor[dtype=DType.float32, rank=2, ...],
        indices: OutputTensor[dtype=DType.int32, rank=2, ...],
        noisy_keys: OutputTensor[dtype=DType.float32, rank=2, ...],
        logits: InputTensor[dtype=DType.float32, rank=3, ...],
        scores: InputTensor[dtype=DType.float32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int32, rank=2, ...],
        banned: InputTensor[dtype=DType.int32, rank=2, ...],
        penalized: InputTensor[dtype=DType.int32, rank=2, ...],
        checks: InputTensor[dtype=DType.int32, rank=1, ...],
        first_timestamp: InputTensor[dtype=DType.int32, rank=1, ...],
        sampling_integers: InputTensor[dtype=DType.int32, rank=2, ...],
        sampling_floats: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var items = logits.dim_size(0)
        var beams = logits.dim_size(1)
        var vocabulary = logits.dim_size(2)
        var capacity = keys.dim_size(1)
        var apply_rules = RulesKernel(
            View(logits),
            View(ranges),
            View(banned),
            View(penalized),
            View(first_timestamp),
            View(sampling_integers),
            View(sampling_floats),
            View(ruled),
            View(partial_sums),
            vocabulary,
            banned.dim_size(1),
            penalized.dim_size(1),
        )
        launch[target](apply_rules, items * beams * BLOCKS_PER_ROW, ctx)
        var find_best = TopKKernel(
            View(logits),
            View(scores),
            View(checks),
            View(first_timestamp),
            View(sampling_integers),
            View(sampling_floats),
            View(ruled),
            View(partial_sums),
            View(watched),
            View(shifts),
            View(part_keys),
            View(part_indices),
            vocabulary,
            beams,
            capacity,
        )
        launch[target](find_best, items * beams * BLOCKS_PER_ROW, ctx)
        var rank = RankKernel(
            View(sampling_integers),
            View(sampling_floats),
            View(ruled),
            View(shifts),
            View(part_keys),
            View(part_indices),
            View(keys),
            View(indices),
            View(noisy_keys),
            View(candidates),
            vocabulary,
            beams,
            candidates.dim_size(2),
            capacity,
        )
        launch[target](rank, items, ctx)
