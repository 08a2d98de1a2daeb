"""Attention of the decoder: a few queries over many keys, read once for all of the queries.

A block takes a head, up to `group` queries that share their keys, and a part of the keys. Where
the keys are split among blocks, a second kernel puts the parts together.
"""

from std.math import ceildiv, exp, fma, sqrt

from ..common.views import Floats, Ints, Numbers
from .block import load, shared, step

comptime THREADS = 128
comptime TILE = THREADS
"""Keys that a block works on at a time."""
comptime PIECE = 8
"""Neighbouring numbers that a thread loads at once."""
comptime MOST = 16
"""Threads that a query's scores are shared out among, at most."""
comptime LEAST = Float32.MIN_FINITE
comptime EXTRA = 2
"""What is kept of a part beside the weighted values: the largest score, the sum of weights."""


trait Keys:
    """Where the keys and values of one head are, and which of them a query may see."""

    comptime dtype: DType

    def key(self, index: Int) -> Numbers[Self.dtype]:
        """The key at a position."""
        ...

    def value(self, index: Int) -> Numbers[Self.dtype]:
        """The value at a position."""
        ...

    def visible(self, query: Int) -> Int:
        """How many keys a query sees."""
        ...


@fieldwise_init
struct History[T: DType](ImplicitlyCopyable, Keys):
    """A row's own past: up to `position` in the cache, from there on the new tokens themselves.

    The cache row that holds a position of the history is named by `origins`.
    """

    comptime dtype = Self.T
    var cache: Numbers[Self.T]
    """The head's keys in the layer's cache [slots, context, width]; the values follow."""
    var plane: Int
    """Distance of the values from the keys."""
    var context: Int
    var width: Int
    var origins: Ints
    var position: Int
    var fresh: Numbers[Self.T]
    """The head's keys in the row's new queries, keys and values [tokens, 3 * width]."""

    @always_inline
    def key(self, index: Int) -> Numbers[Self.T]:
        var new = self.fresh.unsafe_offset((index - self.position) * 3 * self.width)
        return new if index >= self.position else self._cell(index)

    @always_inline
    def value(self, index: Int) -> Numbers[Self.T]:
        var new = self.fresh.unsafe_offset((index - self.position) * 3 * self.width + self.width)
        return new if index >= self.position else self._cell(index).unsafe_offset(self.plane)

    @always_inline
    def visible(self, query: Int) -> Int:
        return self.position + query + 1

    @always_inline
    def _cell(self, index: Int) -> Numbers[Self.T]:
        """Of any position, so that no branch makes the origins of several wait for each other."""
        var row = Int(self.origins[unsafe_offset=index])
        return self.cache.unsafe_offset((row * self.context + index) * self.width)


@fieldwise_init
struct Window[T: DType](ImplicitlyCopyable, Keys):
    """An encoded window: keys and values side by side, [frames, 2 * width]."""

    comptime dtype = Self.T
    var memory: Numbers[Self.T]
    var width: Int
    var frames: Int

    @always_inline
    def key(self, index: Int) -> Numbers[Self.T]:
        return self.memory.unsafe_offset(index * 2 * self.width)

    @always_inline
    def value(self, index: Int) -> Numbers[Self.T]:
        return self.memory.unsafe_offset(index * 2 * self.width + self.width)

    @always_inline
    def visible(self, query: Int) -> Int:
        return self.frames


@always_inline
def attend_block[
    K: Keys, //, group: Int, head_size: Int
](
    keys: K,
    queries: Numbers[K.dtype],
    stride: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    output: Numbers[K.dtype],
    output_stride: Int,
    part: Optional[Floats] = None,
    part_stride: Int = 0,
):
    """Queries `[first, last)`, `stride` apart, over the keys `[begin, end)`.

    Where these are all keys, the result goes to `output`. Otherwise each query's sum of values,
    largest score and sum of weights go to `part`.
    """
    comptime per_query = min(MOST, THREADS // group)
    comptime pieces = head_size // PIECE
    comptime shares = THREADS // pieces
    comptime own_keys = TILE // shares
    comptime size = group * head_size
    var asked = shared[size]()
    var scores = shared[group * TILE]()
    var peaks = shared[group * per_query]()
    var totals = shared[group * per_query]()
    var tops = shared[group]()
    var next_tops = shared[group]()
    var sums = shared[group]()
    var results = shared[shares * size]()
    var scale = 1 / sqrt(Float32(head_size))

    def prepare(thread: Int) {imm}:
        comptime for k in range(ceildiv(size, THREADS * PIECE)):
            var i = (k * THREADS + thread) * PIECE
            var query = first + i // head_size
            if i < size:
                var own = SIMD[DType.float32, PIECE](0)
                if query < last:
                    own = load[PIECE](queries.unsafe_offset(query * stride + i % head_size)) * scale
                asked.unsafe_offset(i).unsafe_store[alignment=16](own)
        for i in range(thread * PIECE, shares * size, THREADS * PIECE):
            results.unsafe_offset(i).unsafe_store[alignment=16](SIMD[DType.float32, PIECE](0))
        if thread < group:
            tops[unsafe_offset=thread] = LEAST
            sums[unsafe_offset=thread] = 0

    step[THREADS](prepare)
    for tile in range(begin, end, TILE):

        def score(thread: Int) {imm}:
            var index = tile + thread
            var found = Array[Float32, group](fill=LEAST)
            if index < end:
                found = Array[Float32, group](fill=0)
                var key = keys.key(index)
                var values = Array[SIMD[DType.float32, PIECE], pieces](fill=0)
                comptime for k in range(pieces):
                    values[k] = load[PIECE](key.unsafe_offset(k * PIECE))
                comptime for g in range(group):
                    if first + g < last:
                        var sums = SIMD[DType.float32, PIECE](0)
                        comptime for k in range(pieces):
                            var own = load[PIECE](asked.unsafe_offset(g * head_size + k * PIECE))
                            sums = fma(own, values[k], sums)
                        found[g] = sums.reduce_add()
                    if index >= keys.visible(first + g):
                        found[g] = LEAST
            comptime for g in range(group):
                scores[unsafe_offset=thread * group + g] = found[g]

        step[THREADS](score)

        def peak(thread: Int) {imm}:
            if thread < group * per_query:
                var top = LEAST
                comptime for i in range(TILE // per_query):
                    var key = i * per_query + thread // group
                    top = max(top, scores[unsafe_offset=key * group + thread % group])
                peaks[unsafe_offset=thread] = top

        step[THREADS](peak)

        def weigh(thread: Int) {imm}:
            if thread < group * per_query:
                var g = thread % group
                var top = tops[unsafe_offset=g]
                comptime for i in range(per_query):
                    top = max(top, peaks[unsafe_offset=i * group + g])
                var total = Float32(0)
                comptime for i in range(TILE // per_query):
                    var place = (i * per_query + thread // group) * group + g
                    var weight = exp(scores[unsafe_offset=place] - top)
                    scores[unsafe_offset=place] = weight
                    total += weight
                totals[unsafe_offset=thread] = total
                if thread < group:
                    next_tops[unsafe_offset=g] = top

        step[THREADS](weigh)

        # A thread takes one piece of every `shares`-th value. Weights beyond the end are zero.
        def gather(thread: Int) {imm}:
            var share = thread // pieces
            var d = thread % pieces * PIECE
            var values = Array[SIMD[DType.float32, PIECE], own_keys](fill=0)
            comptime for i in range(own_keys):
                var index = tile + i * shares + share
                if index < end:
                    values[i] = load[PIECE](keys.value(index).unsafe_offset(d))
            comptime for g in range(group):
                if first + g < last:
                    var place = results.unsafe_offset(share * size + g * head_size + d)
                    var decay = exp(tops[unsafe_offset=g] - next_tops[unsafe_offset=g])
                    var sum = load[PIECE](place) * decay
                    comptime for i in range(own_keys):
                        var weight = scores[unsafe_offset=(i * shares + share) * group + g]
                        sum = fma(values[i], SIMD[DType.float32, PIECE](weight), sum)
                    place.unsafe_store[alignment=16](sum)

        step[THREADS](gather)

        def move_on(thread: Int) {imm}:
            if thread < group:
                var top = next_tops[unsafe_offset=thread]
                var sum = sums[unsafe_offset=thread] * exp(tops[unsafe_offset=thread] - top)
                comptime for i in range(per_query):
                    sum += totals[unsafe_offset=i * group + thread]
                sums[unsafe_offset=thread] = sum
                tops[unsafe_offset=thread] = top

        step[THREADS](move_on)

    def finish(thread: Int) {imm}:
        for i in range(thread, size, THREADS):
            var g = i // head_size
            var query = first + g
            if query < last:
                var d = i % head_size
                var sum = Float32(0)
                comptime for share in range(shares):
                    sum += results[unsafe_offset=share * size + i]
                if not part:
                    output[unsafe_offset=query * output_stride + d] = (
                        sum / sums[unsafe_offset=g]
                    ).cast[K.dtype]()
                else:
                    var own = part.value().unsafe_offset(query * part_stride)
                    own[unsafe_offset=d] = sum
                    if d == 0:
                        own[unsafe_offset=head_size] = tops[unsafe_offset=g]
                        own[unsafe_offset=head_size + 1] = sums[unsafe_offset=g]

    step[THREADS](finish)


@always_inline
def join_parts[
    dtype: DType, head_size: Int, count: Int
](place: Int, parts: Floats, distance: Int, output: Numbers[dtype]):
    """One number of the output from the parts of its query and head, `distance` apart.

    place: the query and head, times head_size, plus the number's index in the head.
    """
    var own = parts.unsafe_offset(place // head_size * (head_size + EXTRA))
    var sums = Array[Float32, count](fill=0)
    var tops = Array[Float32, count](fill=0)
    var totals = Array[Float32, count](fill=0)
    comptime for i in range(count):
        var part = own.unsafe_offset(i * distance)
        sums[i] = part[unsafe_offset=place % head_size]
        tops[i] = part[unsafe_offset=head_size]
        totals[i] = part[unsafe_offset=head_size + 1]
    var top = LEAST
    comptime for i in range(count):
        top = max(top, tops[i])
    var sum = Float32(0)
    var total = Float32(0)
    comptime for i in range(count):
        var weight = exp(tops[i] - top)
        sum += weight * sums[i]
        total += weight * totals[i]
    output[unsafe_offset=place] = (sum / total).cast[dtype]()
