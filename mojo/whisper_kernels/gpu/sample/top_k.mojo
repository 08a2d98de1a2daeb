"""The rules and the log-softmax of a step, and the best continuations of every row.

The vocabulary of a row is shared out among BLOCKS_PER_ROW blocks, twice. First each applies the
rules to its part, and makes the partial log-sum-exp of what is left; then each knows those of the
whole row, and finds the top k of its part. What the rules are is told in `rules.mojo`.
"""

from std.math import ceildiv, exp

from ...common.rules import BANNED
from ...common.rules import KINDS, TEXT, TIMESTAMPS, UNRULED
from ...common.views import FloatView, IntView
from ..thread_block import LAST_THREADS, each_thread, shared
from ..launch import Kernel
from ..log_sum_exp import LogSumExp
from .sampling_params import Sampling, before, key_of

comptime BLOCKS_PER_ROW = 16
comptime NOTHING = Int32.MAX
"""The index of no continuation."""


struct VocabularyPart(ImplicitlyCopyable):
    """The ids `[begin, end)` of a row."""

    var row: Int
    var index: Int
    var begin: Int
    var end: Int

    @always_inline
    def __init__(out self, block: Int, vocabulary: Int):
        var size = ceildiv(vocabulary, BLOCKS_PER_ROW)
        self.row = block // BLOCKS_PER_ROW
        self.index = block % BLOCKS_PER_ROW
        self.begin = min(vocabulary, self.index * size)
        self.end = min(vocabulary, self.begin + size)

    @always_inline
    def has(self, id: Int) -> Bool:
        """Whether an id is in it."""
        return self.begin <= id < self.end


@fieldwise_init
struct RulesKernel(Kernel):
    """Applies the rules to a part, all but the one that needs the sums of the row.

    partial_sums [rows, KINDS, BLOCKS_PER_ROW, 2]: `LogSumExp` of text and timestamps, and, where a
    probability before the rules is wanted, of all before them.
    """

    comptime threads = 256
    var logits: FloatView
    var ranges: IntView
    var banned: IntView
    var penalized: IntView
    var first_timestamp: IntView
    var sampling: IntView
    var factors: FloatView
    var ruled: FloatView
    var partial_sums: FloatView
    var vocabulary: Int
    var banned_count: Int
    var penalized_count: Int

    @always_inline
    def __call__(self, block: Int):
        comptime THREADS = Self.threads
        var part = VocabularyPart(block, self.vocabulary)
        var row = part.row
        var source = self.logits.slice(row * self.vocabulary, self.vocabulary)
        var line = self.ruled.slice(row * self.vocabulary, self.vocabulary)
        var sampling = Sampling(self.sampling, self.factors, row)

        def copy(thread: Int) {imm}:
            for k in range(part.begin + thread, part.end, THREADS):
                line[k] = source[k]

        each_thread[THREADS](copy)

        def penalize(thread: Int) {imm}:
            for i in range(thread, self.penalized_count, THREADS):
                var id = Int(self.penalized[row * self.penalized_count + i])
                if part.has(id):
                    var value = line[id]
                    line[id] = value * sampling.penalty if value < 0 else value / sampling.penalty

        each_thread[THREADS](penalize)

        def ban(thread: Int) {imm}:
            for i in range(thread, self.banned_count, THREADS):
                var id = Int(self.banned[row * self.banned_count + i])
                if part.has(id):
                    line[id] = BANNED
            for i in range(2):
                var low = max(part.begin, Int(self.ranges[4 * row + 2 * i]))
                var high = min(part.end, Int(self.ranges[4 * row + 2 * i + 1]))
                for k in range(low + thread, high, THREADS):
                    line[k] = BANNED

        each_thread[THREADS](ban)
        var own = shared[2 * KINDS * THREADS]()
        var rest = shared[2 * KINDS * LAST_THREADS]()

        def add_up(thread: Int) {imm}:
            var start = Int(self.first_timestamp[0])
            var text = LogSumExp()
            var timestamps = LogSumExp()
            var unruled = LogSumExp()
            for k in range(part.begin + thread, part.end, THREADS):
                if k < start:
                    text.add(line[k])
                else:
                    timestamps.add(line[k])
                if sampling.watched >= 0:
                    unruled.add(source[k])
            text.write(own, TEXT * THREADS + thread)
            timestamps.write(own, TIMESTAMPS * THREADS + thread)
            unruled.write(own, UNRULED * THREADS + thread)

        each_thread[THREADS](add_up)

        def merge(thread: Int) {imm}:
            if thread < KINDS * LAST_THREADS:
                var total = LogSumExp()
                comptime for k in range(THREADS // LAST_THREADS):
                    var i = k * LAST_THREADS + thread % LAST_THREADS
                    total.merge(LogSumExp(own, thread // LAST_THREADS * THREADS + i))
                total.write(rest, thread)

        each_thread[THREADS](merge)

        def write(thread: Int) {imm}:
            if thread < KINDS:
                var total = LogSumExp()
                comptime for i in range(LAST_THREADS):
                    total.merge(LogSumExp(rest, thread * LAST_THREADS + i))
                var place = (row * KINDS + thread) * BLOCKS_PER_ROW + part.index
                total.write(self.partial_sums, place)

        each_thread[THREADS](write)


@always_inline
def merged(partial_sums: FloatView, row: Int, kind: Int) -> LogSumExp:
    """Of a whole row."""
    var total = LogSumExp()
    comptime for i in range(BLOCKS_PER_ROW):
        total.merge(LogSumExp(partial_sums, (row * KINDS + kind) * BLOCKS_PER_ROW + i))
    return total


@fieldwise_init
struct TopKKernel(Kernel):
    """Applies the last rule to a part, and finds its best continuations in falling order.

    keys, indices [rows, BLOCKS_PER_ROW, capacity]: an index is that among all continuations of the
    item; where a part has fewer ids, the rest are NOTHING.
    """

    comptime threads = 256
    var logits: FloatView
    var scores: FloatView
    var checks: IntView
    var first_timestamp: IntView
    var sampling: IntView
    var factors: FloatView
    var ruled: FloatView
    var partial_sums: FloatView
    var watched: FloatView
    var shifts: FloatView
    var keys: FloatView
    var indices: IntView
    var vocabulary: Int
    var beams: Int
    var capacity: Int

    @always_inline
    def __call__(self, block: Int):
        comptime THREADS = Self.threads
        var part = VocabularyPart(block, self.vocabulary)
        var row = part.row
        var line = self.ruled.slice(row * self.vocabulary, self.vocabulary)
        var sampling = Sampling(self.sampling, self.factors, row)
        var total = merged(self.partial_sums, row, TEXT)
        var timestamps = merged(self.partial_sums, row, TIMESTAMPS)
        if self.checks[row] != 0 and timestamps.log() > total.largest:
            var start = Int(self.first_timestamp[0])
            total = LogSumExp()

            def ban_text(thread: Int) {imm}:
                for k in range(part.begin + thread, min(part.end, start), THREADS):
                    line[k] = BANNED

            each_thread[THREADS](ban_text)
        total.merge(timestamps)
        var shift = self.scores[row] - total.log()

        def write(thread: Int) {imm}:
            if thread == 0 and part.index == 0:
                self.shifts[row] = shift
                self.watched[row] = 0
                if sampling.watched >= 0:
                    var value = self.logits[row * self.vocabulary + sampling.watched]
                    var unruled = merged(self.partial_sums, row, UNRULED)
                    self.watched[row] = exp(value - unruled.log())

        each_thread[THREADS](write)
        var sampled = sampling.sampled() and not sampling.restricted(self.beams * self.vocabulary)
        var stream = sampling.stream(sampling.row)
        var thread_keys = shared[THREADS]()
        var thread_indices = shared[THREADS, DType.int32]()
        var rest_keys = shared[LAST_THREADS]()
        var rest_indices = shared[LAST_THREADS, DType.int32]()
        var last_key = Float32.MAX
        var last_index = Int32(-1)
        for rank in range(self.capacity):

            def find(thread: Int) {imm}:
                var key = Float32.MIN
                var index = NOTHING
                for k in range(part.begin + thread, part.end, THREADS):
                    var other = key_of(sampled, sampling.temperature, stream, line[k] + shift, k)
                    if before(last_key, last_index, other, Int32(k)) and before(
                        other, Int32(k), key, index
                    ):
                        key = other
                        index = Int32(k)
                thread_keys[thread] = key
                thread_indices[thread] = index

            each_thread[THREADS](find)

            def reduce(thread: Int) {imm}:
                if thread < LAST_THREADS:
                    var key = Float32.MIN
                    var index = NOTHING
                    comptime for k in range(THREADS // LAST_THREADS):
                        var i = k * LAST_THREADS + thread
                        var other = thread_keys[i]
                        if before(other, thread_indices[i], key, index):
                            key = other
                            index = thread_indices[i]
                    rest_keys[thread] = key
                    rest_indices[thread] = index

            each_thread[THREADS](reduce)
            var key = Float32.MIN
            var index = NOTHING
            comptime for i in range(LAST_THREADS):
                var other = rest_keys[i]
                if before(other, rest_indices[i], key, index):
                    key = other
                    index = rest_indices[i]
            last_key = key
            last_index = index

            def keep(thread: Int) {imm}:
                if thread == 0:
                    var choice = last_index
                    if choice != NOTHING:
                        choice += Int32(row % self.beams * self.vocabulary)
                    self.keys[block * self.capacity + rank] = last_key
                    self.indices[block * self.capacity + rank] = choice

            each_thread[THREADS](keep)
