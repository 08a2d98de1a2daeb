"""The best or sampled continuations of a step, over all beams of an item.

TopK: the largest `score + log_softmax(logits)`. Sampled: the same values divided
by the temperature and perturbed with Gumbel noise, whose largest are a draw
without replacement from the softmax (Kool et al., 2019); the noise is a hash of
(seed, row, id), so that a step can be repeated.
"""

from ...common.gumbel import gumbel, hashed
from ...common.rules import TEXT, TIMESTAMPS
from ...common.simd import F32, LANES
from ...common.views import FloatView, IntView
from ..embedding import TASK_COLUMNS
from ..log_sum_exp import LogSumExps


struct TopK(ImplicitlyCopyable):
    """The largest keys seen so far, in falling order; equal keys keep their order."""

    var keys: FloatView
    var places: IntView
    var capacity: Int
    var count: Int

    def __init__(out self, keys: FloatView, places: IntView, capacity: Int):
        """None yet, in memory of the caller's for `capacity`."""
        self.keys = keys
        self.places = places
        self.capacity = capacity
        self.count = 0

    @always_inline
    def admits(self, key: Float32) -> Bool:
        """Whether `offer` would keep this key."""
        return self.count < self.capacity or key > self.keys[self.count - 1]

    def offer(mut self, key: Float32, place: Int):
        """Keeps (key, place) if it is among the largest."""
        if not self.admits(key):
            return
        if self.count < self.capacity:
            self.count += 1
        var i = self.count - 1
        while i > 0 and self.keys[i - 1] < key:
            self.keys[i] = self.keys[i - 1]
            self.places[i] = self.places[i - 1]
            i -= 1
        self.keys[i] = key
        self.places[i] = Int32(place)


def scan(logits: FloatView, count: Int, shift: Float32, first_place: Int, mut best: TopK):
    """Offers `logits + shift` of one row."""
    var whole = count // LANES * LANES
    for k in range(0, whole, LANES):
        var values = logits.load[LANES](k) + shift
        if best.admits(values.reduce_max()):
            comptime for lane in range(LANES):
                best.offer(values[lane], first_place + k + lane)
    for k in range(whole, count):
        best.offer(logits[k] + shift, first_place + k)


def scan_sampled(
    logits: FloatView,
    count: Int,
    shift: Float32,
    temperature: Float32,
    stream: UInt32,
    first_place: Int,
    mut best: TopK,
):
    """Offers `(logits + shift) / temperature + noise` of one row."""
    var whole = count // LANES * LANES
    var lanes = SIMD[DType.uint32, LANES](0)
    comptime for lane in range(LANES):
        lanes[lane] = UInt32(lane)
    for k in range(0, whole, LANES):
        var values = logits.load[LANES](k) + shift
        var keys = values / temperature + gumbel(stream, lanes + UInt32(k))
        if best.admits(keys.reduce_max()):
            comptime for lane in range(LANES):
                best.offer(keys[lane], first_place + k + lane)
    for k in range(whole, count):
        var key = (logits[k] + shift) / temperature
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

    def offer_row(
        self,
        logits: FloatView,
        vocabulary: Int,
        log_sums: LogSumExps,
        shift: Float32,
        row: Int,
        beams: Int,
        mut best: TopK,
    ):
        """Offers the continuations of one row; a place counts through an item's beams."""
        var place = row % beams * vocabulary
        if self.sampled() and not self.restricted(beams * vocabulary):
            var stream = hashed[1](self.seed ^ UInt32(row + 1))
            scan_sampled(logits, vocabulary, shift, self.temperature, stream, place, best)
        else:
            var text = log_sums.of(row, TEXT)
            var timestamps = log_sums.of(row, TIMESTAMPS)
            for part in range(log_sums.parts):
                var top = max(text.tops[part], timestamps.tops[part])
                if best.admits(top + shift):
                    var low = part * TASK_COLUMNS
                    var count = min(TASK_COLUMNS, vocabulary - low)
                    scan(logits.slice(low, count), count, shift, place + low, best)

    def draw(self, best: TopK, item: Int, mut drawn: TopK):
        """Offers an item's best with noise."""
        var stream = hashed[1](self.seed ^ UInt32(item + 1))
        for i in range(best.count):
            var key = best.keys[i] / self.temperature
            drawn.offer(key + gumbel[1](stream, UInt32(i)), Int(best.places[i]))


def write(
    best: TopK,
    wanted: Int,
    logits: FloatView,
    shifts: FloatView,
    vocabulary: Int,
    ids: IntView,
    origins: IntView,
    values: FloatView,
):
    """Splits places into beam and id; where fewer are left than wanted, the last repeats."""
    for i in range(wanted):
        var place = Int(best.places[min(i, best.count - 1)])
        var beam = place // vocabulary
        ids[i] = Int32(place % vocabulary)
        origins[i] = Int32(beam)
        values[i] = logits[place] + shifts[beam]
