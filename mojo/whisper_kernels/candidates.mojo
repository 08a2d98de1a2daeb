"""The best or sampled continuations of a step, over all beams of an item.

Best: the largest `score + log_softmax(logits)`. Sampled: the same values divided
by the temperature and perturbed with Gumbel noise, whose largest are a draw
without replacement from the softmax (Kool et al., 2019); the noise is a hash of
(seed, row, id), so that a step can be repeated.
"""

from std.math import log
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .matrix import F32, LANES
from .softmax import log_sum_exp
from .parallel import parallel
from .tensors import Floats, Ints, first, floats, ints


@always_inline
def hashed[width: Int](value: SIMD[DType.uint32, width]) -> SIMD[DType.uint32, width]:
    """A bijective mix of 32 bits (multiply and xor-shift, two rounds)."""
    var x = value
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@always_inline
def gumbel[width: Int](stream: UInt32, ids: SIMD[DType.uint32, width]) -> SIMD[F32, width]:
    """Standard Gumbel noise for ids of one stream."""
    var bits = hashed(hashed(ids ^ stream) + stream)
    # 24 bits, centred in their interval: never 0 or 1.
    var uniform = ((bits >> 8).cast[F32]() + 0.5) * (1.0 / 16777216.0)
    return -log(-log(uniform))


struct Best:
    """The largest keys seen so far, in falling order; equal keys keep their order."""

    var keys: Floats
    var places: Ints
    var capacity: Int
    var count: Int

    def __init__(out self, capacity: Int):
        self.keys = unsafe_alloc[Float32](capacity)
        self.places = unsafe_alloc[Int32](capacity)
        self.capacity = capacity
        self.count = 0

    def __deinit__(deinit self):
        self.keys.unsafe_free()
        self.places.unsafe_free()

    @always_inline
    def admits(self, key: Float32) -> Bool:
        """Whether `offer` would keep this key."""
        return self.count < self.capacity or key > self.keys[unsafe_offset=self.count - 1]

    def offer(mut self, key: Float32, place: Int):
        """Keeps (key, place) if it is among the largest."""
        if not self.admits(key):
            return
        if self.count < self.capacity:
            self.count += 1
        var i = self.count - 1
        while i > 0 and self.keys[unsafe_offset=i - 1] < key:
            self.keys[unsafe_offset=i] = self.keys[unsafe_offset=i - 1]
            self.places[unsafe_offset=i] = self.places[unsafe_offset=i - 1]
            i -= 1
        self.keys[unsafe_offset=i] = key
        self.places[unsafe_offset=i] = Int32(place)


def scan(
    logits: Floats, count: Int, shift: Float32, first_place: Int, mut best: Best
):
    """Offers `logits + shift` of one row."""
    var whole = count // LANES * LANES
    for k in range(0, whole, LANES):
        var values = logits.unsafe_offset(k).unsafe_load[width=LANES]() + shift
        if best.admits(values.reduce_max()):
            comptime for lane in range(LANES):
                best.offer(values[lane], first_place + k + lane)
    for k in range(whole, count):
        best.offer(logits[unsafe_offset=k] + shift, first_place + k)


def scan_sampled(
    logits: Floats,
    count: Int,
    shift: Float32,
    temperature: Float32,
    stream: UInt32,
    first_place: Int,
    mut best: Best,
):
    """Offers `(logits + shift) / temperature + noise` of one row."""
    var whole = count // LANES * LANES
    var lanes = SIMD[DType.uint32, LANES](0)
    comptime for lane in range(LANES):
        lanes[lane] = UInt32(lane)
    for k in range(0, whole, LANES):
        var values = logits.unsafe_offset(k).unsafe_load[width=LANES]() + shift
        var keys = values / temperature + gumbel(stream, lanes + UInt32(k))
        if best.admits(keys.reduce_max()):
            comptime for lane in range(LANES):
                best.offer(keys[lane], first_place + k + lane)
    for k in range(whole, count):
        var key = (logits[unsafe_offset=k] + shift) / temperature
        best.offer(key + gumbel[1](stream, UInt32(k)), first_place + k)


def pick(
    logits: Floats,
    scores: Floats,
    beams: Int,
    vocabulary: Int,
    wanted: Int,
    temperature: Float32,
    topk: Int,
    seed: UInt32,
    item: Int,
    ids: Ints,
    origins: Ints,
    values: Floats,
):
    """The candidates of one item from logits [beams, vocabulary] and scores [beams]."""
    var shifts = unsafe_alloc[Float32](beams)
    for beam in range(beams):
        shifts[unsafe_offset=beam] = scores[unsafe_offset=beam] - log_sum_exp(
            logits.unsafe_offset(beam * vocabulary), vocabulary
        )
    var sampled = temperature > 0 and topk != 1
    var restricted = sampled and 0 < topk < beams * vocabulary
    var best = Best(topk if restricted else wanted)
    for beam in range(beams):
        var row = logits.unsafe_offset(beam * vocabulary)
        var shift = shifts[unsafe_offset=beam]
        if sampled and not restricted:
            var stream = hashed[1](seed ^ UInt32(item * beams + beam + 1))
            scan_sampled(row, vocabulary, shift, temperature, stream, beam * vocabulary, best)
        else:
            scan(row, vocabulary, shift, beam * vocabulary, best)
    if restricted:
        var drawn = Best(wanted)
        var stream = hashed[1](seed ^ UInt32(item + 1))
        for i in range(best.count):
            var key = best.keys[unsafe_offset=i] / temperature
            drawn.offer(
                key + gumbel[1](stream, UInt32(i)), Int(best.places[unsafe_offset=i])
            )
        write(drawn, wanted, logits, shifts, vocabulary, ids, origins, values)
    else:
        write(best, wanted, logits, shifts, vocabulary, ids, origins, values)
    shifts.unsafe_free()


def write(
    best: Best,
    wanted: Int,
    logits: Floats,
    shifts: Floats,
    vocabulary: Int,
    ids: Ints,
    origins: Ints,
    values: Floats,
):
    """Splits places into beam and id; where fewer are left than wanted, the last repeats."""
    for i in range(wanted):
        var place = Int(best.places[unsafe_offset=min(i, best.count - 1)])
        var beam = place // vocabulary
        ids[unsafe_offset=i] = Int32(place % vocabulary)
        origins[unsafe_offset=i] = Int32(beam)
        values[unsafe_offset=i] = logits[unsafe_offset=place] + shifts[unsafe_offset=beam]


@extensibility.register("whisper.candidates")
struct Candidates:
    """From logits [items, beams, vocabulary] after the rules and scores [items * beams];
    numbers [2] int32: top-k to sample from (0 all, 1 the best), seed;
    temperature [1] (0 takes the best); `picks` [candidates] gives their number;
    ids and origins [items, candidates] int32, values [items, candidates].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        ids: OutputTensor[dtype=DType.int32, rank=2, ...],
        origins: OutputTensor[dtype=DType.int32, rank=2, ...],
        values: OutputTensor[dtype=DType.float32, rank=2, ...],
        logits: InputTensor[dtype=DType.float32, rank=3, ...],
        scores: InputTensor[dtype=DType.float32, rank=1, ...],
        numbers: InputTensor[dtype=DType.int32, rank=1, ...],
        temperature: InputTensor[dtype=DType.float32, rank=1, ...],
        picks: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var beams = logits.dim_size(1)
        var vocabulary = logits.dim_size(2)
        var wanted = picks.dim_size(0)
        var topk = first(numbers)
        # Mixed, so that the rows of one seed do not share the noise of the next seed's.
        var seed = hashed[1](UInt32(ints(numbers)[unsafe_offset=1]))
        var heat = floats(temperature)[unsafe_offset=0]
        var rows = floats(logits)
        var so_far = floats(scores)
        var out_ids = ints(ids)
        var out_origins = ints(origins)
        var out_values = floats(values)

        def task(item: Int) {imm}:
            pick(
                rows.unsafe_offset(item * beams * vocabulary),
                so_far.unsafe_offset(item * beams),
                beams,
                vocabulary,
                wanted,
                heat,
                topk,
                seed,
                item,
                out_ids.unsafe_offset(item * wanted),
                out_origins.unsafe_offset(item * wanted),
                out_values.unsafe_offset(item * wanted),
            )

        parallel(first(threads), logits.dim_size(0), task)
