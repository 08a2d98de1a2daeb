"""How a row is sampled, and what its candidates are sorted by: score, or score and noise.

How the noise is made is told in `common/gumbel.mojo`.
"""

from ...common.gumbel import gumbel, hashed
from ...common.views import FloatView, IntView


struct Sampling(ImplicitlyCopyable):
    """How the continuations of a row are chosen. Rows of several requests may be side by side, so
    each has its own, and knows its number among the rows of its request: chance is the same
    whatever else is in the step."""

    var watched: Int
    """The id whose probability before the rules is wanted, or -1."""
    var topk: Int
    """Sample among so many of an item's best; 0: among all, 1: take the best."""
    var seed: UInt32
    var row: Int
    """Among the rows of the request."""
    var penalty: Float32
    var temperature: Float32
    """0 takes the best."""

    @always_inline
    def __init__(out self, sampling: IntView, factors: FloatView, row: Int):
        """Of a row of sampling [rows, 4] and factors [rows, 2], in the order of the fields."""
        self.watched = Int(sampling[4 * row])
        self.topk = Int(sampling[4 * row + 1])
        self.seed = hashed[1](UInt32(sampling[4 * row + 2]))
        self.row = Int(sampling[4 * row + 3])
        self.penalty = factors[2 * row]
        self.temperature = factors[2 * row + 1]

    @always_inline
    def sampled(self) -> Bool:
        """Whether chance plays a part."""
        return self.temperature > 0 and self.topk != 1

    @always_inline
    def restricted(self, count: Int) -> Bool:
        """Whether it does so among the best only, of `count` continuations."""
        return self.sampled() and 0 < self.topk < count

    @always_inline
    def stream(self, index: Int) -> UInt32:
        """What the noise of a row, or of an item, is made from."""
        return hashed[1](self.seed ^ UInt32(index + 1))


@always_inline
def before(key: Float32, index: Int32, other: Float32, other_index: Int32) -> Bool:
    """Whether a continuation comes before another: a larger key, or an equal one further left."""
    return key > other or (key == other and index < other_index)


@always_inline
def key_of(sampled: Bool, temperature: Float32, stream: UInt32, score: Float32, id: Int) -> Float32:
    """What a continuation is ordered by."""
    if not sampled:
        return score
    return score / temperature + gumbel[1](stream, UInt32(id))
