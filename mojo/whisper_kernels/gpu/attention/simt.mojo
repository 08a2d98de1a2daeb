"""Attention of the decoder by threads, each of which works alone between barriers.

NVIDIA's GPUs multiply the half types with their tensor cores instead (`mma.mojo`).
"""

from std.math import ceildiv, exp, fma, sqrt

from ...common.views import FloatView, View
from ..thread_block import each_thread, load_float, shared
from .keys_values import LOWEST, STATISTICS, KeysValues

comptime SIMT_THREADS = 128
comptime KEYS_PER_TILE = SIMT_THREADS
"""Keys that a block works on at a time: one a thread."""
comptime VECTOR = 8
"""Neighbouring numbers that a thread loads at once."""
comptime MAX_THREADS_PER_QUERY = 16
"""That a query's scores are shared out among."""


@always_inline
def attend_by_threads[
    K: KeysValues, //, group: Int, head_size: Int, split: Bool
](
    keys: K,
    queries: View[K.dtype],
    stride: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    output: View[K.dtype],
    output_stride: Int,
    sums_of_split: Optional[FloatView],
    split_stride: Int,
):
    """As `attend`, by `SIMT_THREADS`."""
    comptime THREADS = SIMT_THREADS
    comptime per_query = min(MAX_THREADS_PER_QUERY, THREADS // group)
    comptime vectors = head_size // VECTOR
    comptime shares = THREADS // vectors
    comptime own_keys = KEYS_PER_TILE // shares
    comptime size = group * head_size
    var asked = shared[size]()
    var scores = shared[group * KEYS_PER_TILE]()
    var peaks = shared[group * per_query]()
    var totals = shared[group * per_query]()
    var largest = shared[group]()
    var next_largest = shared[group]()
    var sums = shared[group]()
    var results = shared[shares * size]()
    var scale = 1 / sqrt(Float32(head_size))

    def prepare(thread: Int) {imm}:
        comptime for k in range(ceildiv(size, THREADS * VECTOR)):
            var i = (k * THREADS + thread) * VECTOR
            var query = first + i // head_size
            if i < size:
                var own = SIMD[DType.float32, VECTOR](0)
                if query < last:
                    own = load_float[VECTOR](queries, query * stride + i % head_size) * scale
                asked.store[alignment=16](i, own)
        for i in range(thread * VECTOR, shares * size, THREADS * VECTOR):
            results.store[alignment=16](i, SIMD[DType.float32, VECTOR](0))
        if thread < group:
            largest[thread] = LOWEST
            sums[thread] = 0

    each_thread[THREADS](prepare)
    for tile in range(begin, end, KEYS_PER_TILE):

        def score(thread: Int) {imm}:
            var index = tile + thread
            var found = Array[Float32, group](fill=LOWEST)
            if index < end:
                found = Array[Float32, group](fill=0)
                var key = keys.key(index)
                var values = Array[SIMD[DType.float32, VECTOR], vectors](fill=0)
                comptime for k in range(vectors):
                    values[k] = load_float[VECTOR](key, k * VECTOR)
                comptime for g in range(group):
                    if first + g < last:
                        var sums = SIMD[DType.float32, VECTOR](0)
                        comptime for k in range(vectors):
                            var own = load_float[VECTOR](asked, g * head_size + k * VECTOR)
                            sums = fma(own, values[k], sums)
                        found[g] = sums.reduce_add()
                    if index >= keys.visible(first + g):
                        found[g] = LOWEST
            comptime for g in range(group):
                scores[thread * group + g] = found[g]

        each_thread[THREADS](score)

        def find_peaks(thread: Int) {imm}:
            if thread < group * per_query:
                var peak = LOWEST
                comptime for i in range(KEYS_PER_TILE // per_query):
                    var key = i * per_query + thread // group
                    peak = max(peak, scores[key * group + thread % group])
                peaks[thread] = peak

        each_thread[THREADS](find_peaks)

        def weigh(thread: Int) {imm}:
            if thread < group * per_query:
                var g = thread % group
                var peak = largest[g]
                comptime for i in range(per_query):
                    peak = max(peak, peaks[i * group + g])
                var total = Float32(0)
                comptime for i in range(KEYS_PER_TILE // per_query):
                    var place = (i * per_query + thread // group) * group + g
                    var weight = exp(scores[place] - peak)
                    scores[place] = weight
                    total += weight
                totals[thread] = total
                if thread < group:
                    next_largest[g] = peak

        each_thread[THREADS](weigh)

        # A thread takes one vector of every `shares`-th value. Weights beyond the end are zero.
        def add_values(thread: Int) {imm}:
            var share = thread // vectors
            var d = thread % vectors * VECTOR
            var values = Array[SIMD[DType.float32, VECTOR], own_keys](fill=0)
            comptime for i in range(own_keys):
                var index = tile + i * shares + share
                if index < end:
                    values[i] = load_float[VECTOR](keys.value(index), d)
            comptime for g in range(group):
                if first + g < last:
                    var place = share * size + g * head_size + d
                    var decay = exp(largest[g] - next_largest[g])
                    var sum = load_float[VECTOR](results, place) * decay
                    comptime for i in range(own_keys):
                        var weight = scores[(i * shares + share) * group + g]
                        sum = fma(values[i], SIMD[DType.float32, VECTOR](weight), sum)
                    results.store[alignment=16](place, sum)

        each_thread[THREADS](add_values)

        def move_on(thread: Int) {imm}:
            if thread < group:
                var peak = next_largest[thread]
                var sum = sums[thread] * exp(largest[thread] - peak)
                comptime for i in range(per_query):
                    sum += totals[i * group + thread]
                sums[thread] = sum
                largest[thread] = peak

        each_thread[THREADS](move_on)

    def finish(thread: Int) {imm}:
        for i in range(thread, size, THREADS):
            var g = i // head_size
            var query = first + g
            if query < last:
                var d = i % head_size
                var sum = Float32(0)
                comptime for share in range(shares):
                    sum += results[share * size + i]
                comptime if split:
                    var own = sums_of_split.value().slice(
                        query * split_stride, head_size + STATISTICS
                    )
                    own[d] = sum
                    if d == 0:
                        own[head_size] = largest[g]
                        own[head_size + 1] = sums[g]
                else:
                    output[query * output_stride + d] = (sum / sums[g]).cast[K.dtype]()

    each_thread[THREADS](finish)
