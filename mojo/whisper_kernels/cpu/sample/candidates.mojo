"""The best or sampled continuations of a step, over all beams of an item.

Best: the largest `score + log_softmax(logits)`. Sampled: the same values divided
by the temperature and perturbed with Gumbel noise, whose largest are a draw
without replacement from the softmax (Kool et al., 2019); the noise is a hash of
(seed, row, id), so that a step can be repeated.
"""

from ..embedding import TASK_COLUMNS
from ...common.gumbel import gumbel, hashed
from ...common.simd import F32, LANES
from ...common.rules import TEXT, TIMESTAMPS
from ..log_softmax import Tallies
from ...common.views import Floats, Ints


struct Best(ImplicitlyCopyable):
    """The largest keys seen so far, in falling order; equal keys keep their order."""

    var keys: Floats
    var places: Ints
    var capacity: Int
    var count: Int

    def __init__(out self, keys: Floats, places: Ints, capacity: Int):
        """None yet, in memory of the caller's for `capacity`."""
        self.keys = keys
        self.places = places
        self.capacity = capacity
        self.count = 0

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


struct Sampling(ImplicitlyCopyable):
    """How continuations are chosen."""

    var temperature: Float32
    """0 takes the best."""
    var topk: Int
    """Sample among so many of an item's best; 0: among all, 1: take the best."""
    var seed: UInt32

    def __init__(out self, temperature: Float32, topk: Int, seed: UInt32):
        self.temperature = temperature
        self.topk = topk
        # Mixed, so that the rows of one seed do not share the noise of the next seed's.
        self.seed = hashed[1](seed)

    def sampled(self) -> Bool:
        """Whether chance plays a part."""
        return self.temperature > 0 and self.topk != 1

    def restricted(self, count: Int) -> Bool:
        """Whether it does so among the best only, of `count` continuations."""
        return self.sampled() and 0 < self.topk < count

    def survey(
        self,
        logits: Floats,
        vocabulary: Int,
        tallies: Tallies,
        shift: Float32,
        row: Int,
        beams: Int,
        mut best: Best,
    ):
        """Offers the continuations of one row; a place counts through an item's beams."""
        var place = row % beams * vocabulary
        if self.sampled() and not self.restricted(beams * vocabulary):
            var stream = hashed[1](self.seed ^ UInt32(row + 1))
            scan_sampled(logits, vocabulary, shift, self.temperature, stream, place, best)
        else:
            var text = tallies.of(row, TEXT)
            var timestamps = tallies.of(row, TIMESTAMPS)
            for part in range(tallies.parts):
                var top = max(text.tops[unsafe_offset=part], timestamps.tops[unsafe_offset=part])
                if best.admits(top + shift):
                    var low = part * TASK_COLUMNS
                    var count = min(TASK_COLUMNS, vocabulary - low)
                    scan(logits.unsafe_offset(low), count, shift, place + low, best)

    def draw(self, best: Best, item: Int, mut drawn: Best):
        """Offers an item's best with noise."""
        var stream = hashed[1](self.seed ^ UInt32(item + 1))
        for i in range(best.count):
            var key = best.keys[unsafe_offset=i] / self.temperature
            drawn.offer(key + gumbel[1](stream, UInt32(i)), Int(best.places[unsafe_offset=i]))


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
