"""Applies the rules, normalises, and finds each item's best or sampled candidates.

Logits are made, ruled and summed up part by part by the same threads while they are in the cache;
what leaves are a few candidates.
"""

from std.math import ceildiv, exp

import extensibility
from extensibility import InputTensor, ManagedTensorSlice, OutputTensor
from max.gpu.host import DeviceContext

from ...common.rules import Rules, ban
from ...common.rules import TEXT, TIMESTAMPS, UNRULED
from ...common.views import FloatView, IntView, View, first
from ..embedding import TASK_COLUMNS, Embeddings, vocabulary_task
from ..log_sum_exp import LogSumExps
from ..strips import Strips
from ..threads import Phases, Worker, together
from .top_k import Sampling, TopK, write


struct Choice[storage: DType](Movable):
    """Candidates `wanted` of every item, from states [items * beams, width]."""

    comptime PHASES = 3
    """Of a run."""

    var states: FloatView
    var embeddings: Embeddings[Self.storage]
    var sampling: Sampling
    var items: Int
    var beams: Int
    var wanted: Int
    var request_rows: Int
    """See `Strips`."""
    var logits: FloatView
    """After a run: after the rules."""
    var watched: FloatView
    var capacity: Int
    """Of the best that are kept of a row."""
    var shifts: FloatView
    var counts: IntView
    var keys: FloatView
    var places: IntView
    var log_sums: LogSumExps

    def __init__(
        out self,
        states: FloatView,
        embeddings: Embeddings[Self.storage],
        sampling: Sampling,
        items: Int,
        beams: Int,
        wanted: Int,
        request_rows: Int,
        logits: FloatView,
        watched: FloatView,
    ):
        var rows = items * beams
        var vocabulary = embeddings.matrix.columns
        var parts = ceildiv(vocabulary, TASK_COLUMNS)
        self.states = states
        self.embeddings = embeddings
        self.sampling = sampling
        self.items = items
        self.beams = beams
        self.wanted = wanted
        self.request_rows = request_rows
        self.logits = logits
        self.watched = watched
        var restricted = sampling.restricted(beams * vocabulary)
        self.capacity = sampling.topk if restricted else wanted
        self.shifts = FloatView.allocate(rows)
        self.counts = IntView.allocate(rows)
        self.keys = FloatView.allocate(rows * self.capacity)
        self.places = IntView.allocate(rows * self.capacity)
        self.log_sums = LogSumExps(
            FloatView.allocate(LogSumExps.size(rows, parts)),
            FloatView.allocate(LogSumExps.size(rows, parts)),
            parts,
        )

    def __deinit__(deinit self):
        self.shifts.free()
        self.counts.free()
        self.keys.free()
        self.places.free()
        self.log_sums.tops.free()
        self.log_sums.sums.free()

    def run(
        self,
        mut worker: Worker,
        rules: Rules,
        scores: FloatView,
        ids: IntView,
        origins: IntView,
        values: FloatView,
    ):
        """A thread's part: ids, origins and values [items, wanted], by scores [rows] so far."""
        var beams = self.beams
        var wanted = self.wanted
        var capacity = self.capacity
        var rows = self.items * beams
        var width = self.embeddings.matrix.depth
        var vocabulary = self.embeddings.matrix.columns
        var log_sums = self.log_sums
        var logits = self.logits
        var watched = self.watched
        var stamps = min(rules.first_timestamp, vocabulary)
        var watching = rules.watched_id >= 0
        var strips = Strips[Self.storage](
            rows, width, for_weights=True, request_rows=self.request_rows
        )
        self.embeddings.prepare(strips, self.states, rows)

        def project(task: Int) {imm}:
            var low = task * TASK_COLUMNS
            var high = min(vocabulary, low + TASK_COLUMNS)
            var middle = min(max(low, stamps), high)
            if watching or not rules.ban_all(rows, low, high):
                vocabulary_task(strips, self.embeddings, task, logits)
            if watching:
                for row in range(rows):
                    var line = logits.slice(row * vocabulary, vocabulary)
                    log_sums.of(row, UNRULED).add(task, line.slice(low, high - low), high - low)
                    if low <= rules.watched_id < high:
                        watched[row] = line[rules.watched_id]
            rules.apply(logits, rows, vocabulary, low, high)
            for row in range(rows):
                var line = logits.slice(row * vocabulary, vocabulary)
                log_sums.of(row, TEXT).add(task, line.slice(low, middle - low), middle - low)
                log_sums.of(row, TIMESTAMPS).add(
                    task, line.slice(middle, high - middle), high - middle
                )

        worker.run(log_sums.parts, project)

        def rank(row: Int) {imm}:
            var line = logits.slice(row * vocabulary, vocabulary)
            var probability = Float32(0)
            if watching:
                var total = log_sums.of(row, UNRULED).value()
                probability = exp(watched[row] - total)
            watched[row] = probability
            var text = log_sums.of(row, TEXT)
            if rules.checks[row] != 0:
                if log_sums.of(row, TIMESTAMPS).value() > text.top():
                    ban(line, 0, stamps)
                    text.clear()
            var shift = scores[row] - log_sums.ruled(row).value()
            var best = TopK(
                self.keys.slice(row * capacity, capacity),
                self.places.slice(row * capacity, capacity),
                capacity,
            )
            self.sampling.offer_row(line, vocabulary, log_sums, shift, row, beams, best)
            self.shifts[row] = shift
            self.counts[row] = Int32(best.count)

        worker.run(rows, rank)
        var own_keys = FloatView.allocate(capacity + wanted)
        var own_places = IntView.allocate(capacity + wanted)

        def merge(item: Int) {imm}:
            var best = TopK(own_keys, own_places, capacity)
            for row in range(item * beams, (item + 1) * beams):
                for i in range(Int(self.counts[row])):
                    var place = row * capacity + i
                    best.offer(self.keys[place], Int(self.places[place]))
            if self.sampling.restricted(beams * vocabulary):
                var drawn = TopK(own_keys.offset(capacity), own_places.offset(capacity), wanted)
                self.sampling.draw(best, item, drawn)
                best = drawn
            write(
                best,
                wanted,
                logits.slice(item * beams * vocabulary, beams * vocabulary),
                self.shifts.slice(item * beams, beams),
                vocabulary,
                ids.slice(item * wanted, wanted),
                origins.slice(item * wanted, wanted),
                values.slice(item * wanted, wanted),
            )

        worker.run(self.items, merge)
        own_keys.free()
        own_places.free()


def rules_of(
    suppressed: ManagedTensorSlice[dtype=DType.int32, ...],
    ranges: ManagedTensorSlice[dtype=DType.int32, ...],
    banned: ManagedTensorSlice[dtype=DType.int32, ...],
    penalized: ManagedTensorSlice[dtype=DType.int32, ...],
    checks: ManagedTensorSlice[dtype=DType.int32, ...],
    first_timestamp: ManagedTensorSlice[dtype=DType.int32, ...],
    watched_id: ManagedTensorSlice[dtype=DType.int32, ...],
    penalty: ManagedTensorSlice[dtype=DType.float32, ...],
) -> Rules:
    """The rules, from the inputs of a graph; see `Choose`."""
    return Rules(
        View(suppressed),
        suppressed.dim_size(0),
        View(ranges),
        View(banned),
        banned.dim_size(1),
        View(penalized),
        penalized.dim_size(1),
        View(checks),
        first(first_timestamp),
        first(watched_id),
        View(penalty)[0],
    )


def sampling_of(
    temperature: ManagedTensorSlice[dtype=DType.float32, ...],
    top_k: ManagedTensorSlice[dtype=DType.int32, ...],
    seed: ManagedTensorSlice[dtype=DType.int32, ...],
) -> Sampling:
    """How continuations are chosen, from the inputs of a graph; see `Choose`."""
    return Sampling(View(temperature)[0], first(top_k), UInt32(View(seed)[0]))


@extensibility.register("whisper.choose")
struct Choose:
    """The end of a step, from states [items, beams, width]; rows are items * beams.

    embeddings [bytes] in panels; scores [rows] so far; suppressed [n], ranges [rows, 4], banned
    and penalized [rows, ...], checks [rows], first_timestamp [1], watched_id [1] and penalty [1]
    as `Rules` has them; top_k [1], seed [1] and temperature [1] as `Sampling`; ids and origins
    [items, candidates] int32, values [items, candidates], watched [rows], logits [items, beams,
    vocabulary] after the rules.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType
    ](
        ids: OutputTensor[dtype=DType.int32, rank=2, ...],
        origins: OutputTensor[dtype=DType.int32, rank=2, ...],
        values: OutputTensor[dtype=DType.float32, rank=2, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        logits: OutputTensor[dtype=DType.float32, rank=3, ...],
        states: InputTensor[dtype=DType.float32, rank=3, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        scores: InputTensor[dtype=DType.float32, rank=1, ...],
        suppressed: InputTensor[dtype=DType.int32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int32, rank=2, ...],
        banned: InputTensor[dtype=DType.int32, rank=2, ...],
        penalized: InputTensor[dtype=DType.int32, rank=2, ...],
        checks: InputTensor[dtype=DType.int32, rank=1, ...],
        first_timestamp: InputTensor[dtype=DType.int32, rank=1, ...],
        watched_id: InputTensor[dtype=DType.int32, rank=1, ...],
        penalty: InputTensor[dtype=DType.float32, rank=1, ...],
        top_k: InputTensor[dtype=DType.int32, rank=1, ...],
        seed: InputTensor[dtype=DType.int32, rank=1, ...],
        temperature: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var choice = Choice[storage](
            View(states),
            Embeddings[storage](View(embeddings), states.dim_size(2), logits.dim_size(2)),
            sampling_of(temperature, top_k, seed),
            states.dim_size(0),
            states.dim_size(1),
            ids.dim_size(1),
            states.dim_size(0) * states.dim_size(1),
            View(logits),
            View(watched),
        )
        var rules = rules_of(
            suppressed, ranges, banned, penalized, checks, first_timestamp, watched_id, penalty
        )
        var phases = Phases(Choice[storage].PHASES)

        def body(_thread: Int) {imm}:
            var worker = Worker(phases.counters)
            choice.run(worker, rules, View(scores), View(ids), View(origins), View(values))

        together(first(threads), body)
