"""The end of a step: logits, the rules, and the continuations of every item.

Logits are made, ruled and summed up part by part by the same threads while they are in the cache;
what leaves are a few candidates.
"""

from std.math import ceildiv, exp
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, ManagedTensorSlice, OutputTensor
from max.gpu.host import DeviceContext

from .candidates import Best, Sampling, write
from ..embedding import TASK_COLUMNS, vocabulary_task
from ..panels import Matrix, Rows
from ..threads import Member, Phases, together
from ...common.rules import Rules, ban
from ..strips import Strips
from ...common.rules import TEXT, TIMESTAMPS, UNRULED
from ..log_softmax import Tallies
from ...common.views import Floats, Ints, first, floats, ints, numbers


struct Choice[storage: DType](Movable):
    """Candidates `wanted` of every item, from states [items * beams, width]."""

    comptime PHASES = 3
    """Of a run."""

    var states: Floats
    var embeddings: Matrix[Self.storage]
    var sampling: Sampling
    var items: Int
    var beams: Int
    var wanted: Int
    var logits: Floats
    """After a run: after the rules."""
    var watched: Floats
    var capacity: Int
    """Of the best that are kept of a row."""
    var shifts: Floats
    var counts: Ints
    var keys: Floats
    var places: Ints
    var tallies: Tallies

    def __init__(
        out self,
        states: Floats,
        embeddings: Matrix[Self.storage],
        sampling: Sampling,
        items: Int,
        beams: Int,
        wanted: Int,
        logits: Floats,
        watched: Floats,
    ):
        var rows = items * beams
        var parts = ceildiv(embeddings.columns, TASK_COLUMNS)
        self.states = states
        self.embeddings = embeddings
        self.sampling = sampling
        self.items = items
        self.beams = beams
        self.wanted = wanted
        self.logits = logits
        self.watched = watched
        var restricted = sampling.restricted(beams * embeddings.columns)
        self.capacity = sampling.topk if restricted else wanted
        self.shifts = unsafe_alloc[Float32](rows)
        self.counts = unsafe_alloc[Int32](rows)
        self.keys = unsafe_alloc[Float32](rows * self.capacity)
        self.places = unsafe_alloc[Int32](rows * self.capacity)
        self.tallies = Tallies(
            unsafe_alloc[Float32](Tallies.floats(rows, parts)),
            unsafe_alloc[Float32](Tallies.floats(rows, parts)),
            parts,
        )

    def __deinit__(deinit self):
        self.shifts.unsafe_free()
        self.counts.unsafe_free()
        self.keys.unsafe_free()
        self.places.unsafe_free()
        self.tallies.tops.unsafe_free()
        self.tallies.sums.unsafe_free()

    def run(
        self,
        mut member: Member,
        rules: Rules,
        scores: Floats,
        ids: Ints,
        origins: Ints,
        values: Floats,
    ):
        """A thread's part: ids, origins and values [items, wanted], by scores [rows] so far."""
        var beams = self.beams
        var wanted = self.wanted
        var capacity = self.capacity
        var rows = self.items * beams
        var width = self.embeddings.depth
        var vocabulary = self.embeddings.columns
        var tallies = self.tallies
        var logits = self.logits
        var watched = self.watched
        var stamps = min(rules.first_timestamp, vocabulary)
        var watching = rules.watched_id >= 0
        var strips = Strips[Self.storage](rows, width)
        strips.prepare(Rows(self.states, width, rows), 0, rows, width)

        def project(task: Int) {imm}:
            var low = task * TASK_COLUMNS
            var high = min(vocabulary, low + TASK_COLUMNS)
            var middle = min(max(low, stamps), high)
            if watching or not rules.ban_all(rows, low, high):
                vocabulary_task(strips, self.embeddings, task, logits)
            if watching:
                for row in range(rows):
                    var line = logits.unsafe_offset(row * vocabulary)
                    tallies.of(row, UNRULED).note(task, line.unsafe_offset(low), high - low)
                    if low <= rules.watched_id < high:
                        watched[unsafe_offset=row] = line[unsafe_offset=rules.watched_id]
            rules.apply(logits, rows, vocabulary, low, high)
            for row in range(rows):
                var line = logits.unsafe_offset(row * vocabulary)
                tallies.of(row, TEXT).note(task, line.unsafe_offset(low), middle - low)
                tallies.of(row, TIMESTAMPS).note(task, line.unsafe_offset(middle), high - middle)

        member.run(tallies.parts, project)

        def survey(row: Int) {imm}:
            var line = logits.unsafe_offset(row * vocabulary)
            var probability = Float32(0)
            if watching:
                var total = tallies.of(row, UNRULED).log_sum_exp()
                probability = exp(watched[unsafe_offset=row] - total)
            watched[unsafe_offset=row] = probability
            var text = tallies.of(row, TEXT)
            if rules.checks[unsafe_offset=row] != 0:
                if tallies.of(row, TIMESTAMPS).log_sum_exp() > text.top():
                    ban(line, 0, stamps)
                    text.forget()
            var shift = scores[unsafe_offset=row] - tallies.ruled(row).log_sum_exp()
            var best = Best(
                self.keys.unsafe_offset(row * capacity),
                self.places.unsafe_offset(row * capacity),
                capacity,
            )
            self.sampling.survey(line, vocabulary, tallies, shift, row, beams, best)
            self.shifts[unsafe_offset=row] = shift
            self.counts[unsafe_offset=row] = Int32(best.count)

        member.run(rows, survey)
        var own_keys = unsafe_alloc[Float32](capacity + wanted)
        var own_places = unsafe_alloc[Int32](capacity + wanted)

        def merge(item: Int) {imm}:
            var best = Best(own_keys, own_places, capacity)
            for row in range(item * beams, (item + 1) * beams):
                for i in range(Int(self.counts[unsafe_offset=row])):
                    var place = row * capacity + i
                    best.offer(
                        self.keys[unsafe_offset=place], Int(self.places[unsafe_offset=place])
                    )
            if self.sampling.restricted(beams * vocabulary):
                var drawn = Best(
                    own_keys.unsafe_offset(capacity), own_places.unsafe_offset(capacity), wanted
                )
                self.sampling.draw(best, item, drawn)
                best = drawn
            write(
                best,
                wanted,
                logits.unsafe_offset(item * beams * vocabulary),
                self.shifts.unsafe_offset(item * beams),
                vocabulary,
                ids.unsafe_offset(item * wanted),
                origins.unsafe_offset(item * wanted),
                values.unsafe_offset(item * wanted),
            )

        member.run(self.items, merge)
        own_keys.unsafe_free()
        own_places.unsafe_free()


def rules_of(
    suppressed: ManagedTensorSlice[dtype=DType.int32, ...],
    ranges: ManagedTensorSlice[dtype=DType.int32, ...],
    banned: ManagedTensorSlice[dtype=DType.int32, ...],
    penalized: ManagedTensorSlice[dtype=DType.int32, ...],
    checks: ManagedTensorSlice[dtype=DType.int32, ...],
    numbers: ManagedTensorSlice[dtype=DType.int32, ...],
    penalty: ManagedTensorSlice[dtype=DType.float32, ...],
) -> Rules:
    """The rules, from the inputs of a graph; see `Choose`."""
    return Rules(
        ints(suppressed),
        suppressed.dim_size(0),
        ints(ranges),
        ints(banned),
        banned.dim_size(1),
        ints(penalized),
        penalized.dim_size(1),
        ints(checks),
        first(numbers),
        Int(ints(numbers)[unsafe_offset=1]),
        floats(penalty)[unsafe_offset=0],
    )


def sampling_of(
    draw: ManagedTensorSlice[dtype=DType.int32, ...],
    temperature: ManagedTensorSlice[dtype=DType.float32, ...],
) -> Sampling:
    """How continuations are chosen, from the inputs of a graph; see `Choose`."""
    return Sampling(
        floats(temperature)[unsafe_offset=0], first(draw), UInt32(ints(draw)[unsafe_offset=1])
    )


@extensibility.register("whisper.choose")
struct Choose:
    """The end of a step, from states [items, beams, width]; rows are items * beams.

    embeddings [bytes] in panels; scores [rows] so far; suppressed [n], ranges [rows, 4], banned
    and penalized [rows, ...], checks [rows] as `Rules` has them; numbers [2]: the first timestamp
    id, and the watched id or -1; penalty [1]; draw [2]: top-k, seed; temperature [1]; `picks`
    [candidates] gives their number; ids and origins [items, candidates] int32, values
    [items, candidates], watched [rows], logits [items, beams, vocabulary] after the rules.
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
        numbers_: InputTensor[dtype=DType.int32, rank=1, ...],
        penalty: InputTensor[dtype=DType.float32, rank=1, ...],
        draw: InputTensor[dtype=DType.int32, rank=1, ...],
        temperature: InputTensor[dtype=DType.float32, rank=1, ...],
        picks: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var choice = Choice[storage](
            floats(states),
            Matrix[storage](numbers(embeddings), states.dim_size(2), logits.dim_size(2)),
            sampling_of(draw, temperature),
            states.dim_size(0),
            states.dim_size(1),
            picks.dim_size(0),
            floats(logits),
            floats(watched),
        )
        var rules = rules_of(suppressed, ranges, banned, penalized, checks, numbers_, penalty)
        var phases = Phases(Choice[storage].PHASES)

        def body(_worker: Int) {imm}:
            var member = Member(phases.counters)
            choice.run(member, rules, floats(scores), ints(ids), ints(origins), floats(values))

        together(first(threads), body)
