"""What a search does between two steps, for steps that follow one another without it.

It is what `beam_search` and `greedy_search` do with the candidates of a step as long as no
item is finished, and what its `rules.Timestamps` says about the histories that result; the search
compares and takes the steps that were made for what it wants to know.
"""

from std.memory.alloc import unsafe_alloc

from ..common.rules import Rules
from ..common.views import Floats, Ints


def survivors(ids: Ints, wanted: Int, beams: Int, eot: Int, kept: Ints) -> Int:
    """Which of the candidates `ids [wanted]` live on, one a beam; returns how many beams ended.

    A candidate among the first `beams` that ends is replaced by the next one behind them that
    does not.
    """
    var ended = 0
    var spare = beams
    for beam in range(beams):
        kept[unsafe_offset=beam] = Int32(beam)
        if Int(ids[unsafe_offset=beam]) != eot:
            continue
        ended += 1
        while spare < wanted:
            spare += 1
            if Int(ids[unsafe_offset=spare - 1]) != eot:
                kept[unsafe_offset=beam] = Int32(spare - 1)
                break
    return ended


@fieldwise_init
struct Course(ImplicitlyCopyable):
    """How hypotheses go on and end."""

    var eot: Int
    var timed: Bool
    """Whether the timestamp rule holds."""
    var summed: Bool
    """Whether a score is the sum over all tokens, or of the last one alone."""
    var first_timestamp: Int
    var vocabulary: Int


@fieldwise_init
struct Stamps(ImplicitlyCopyable):
    """What the timestamp rule has to know of a history that has left its prefix."""

    var latest: Int
    """The last timestamp in it, or -1."""
    var is_last: Bool
    """Whether its last token is one."""

    def restrict(self, token: Int, course: Course, ranges: Ints) -> Bool:
        """The rule after this history and a token: up to two ranges of ids that are banned.

        Returns whether text is banned if the timestamps together are likelier than it.
        """
        var first = course.first_timestamp
        if token < first:
            if self.latest >= 0:
                ranges[unsafe_offset=0] = Int32(first)
                ranges[unsafe_offset=1] = Int32(self.latest + 1)
            return True
        if self.is_last:  # a pair is complete
            ranges[unsafe_offset=0] = Int32(first)
            ranges[unsafe_offset=1] = Int32(course.vocabulary)
            return False
        ranges[unsafe_offset=1] = Int32(course.eot)
        if token > first:
            ranges[unsafe_offset=2] = Int32(first)
            ranges[unsafe_offset=3] = Int32(token)
        return True


struct Hypotheses(Movable):
    """The rows of a step, and how they go on: rows are items * beams, item by item."""

    var items: Int
    var beams: Int
    var context: Int
    var positions: Ints
    """[rows], of the first step's tokens."""
    var course: Course
    var tokens: Ints
    """[rows], the last of every row."""
    var scores: Floats
    """[rows]."""
    var ranges: Ints
    """[rows, 4], what the timestamp rule bans."""
    var checks: Ints
    """[rows], where it bans text that timestamps outweigh."""
    var remaining: Ints
    """[items]: how many hypotheses may end before an item is finished."""
    var origins: Ints
    """[2, rows, context]: before and after an advance, in turns."""
    var stamps: Ints
    """[2, rows, 2], likewise."""
    var kept: Ints
    """[beams]."""

    def __init__(
        out self,
        items: Int,
        beams: Int,
        context: Int,
        positions: Ints,
        course: Course,
        remaining: Ints,
        origins: Ints,
        stamps: Ints,
    ):
        """With the histories before the first advance."""
        var rows = items * beams
        self.items = items
        self.beams = beams
        self.context = context
        self.positions = positions
        self.course = course
        self.tokens = unsafe_alloc[Int32](rows)
        self.scores = unsafe_alloc[Float32](rows)
        self.ranges = unsafe_alloc[Int32](4 * rows)
        self.checks = unsafe_alloc[Int32](rows)
        self.remaining = unsafe_alloc[Int32](items)
        self.origins = unsafe_alloc[Int32](2 * rows * context)
        self.stamps = unsafe_alloc[Int32](2 * rows * 2)
        self.kept = unsafe_alloc[Int32](beams)
        copy(origins, self.origins, rows * context)
        copy(stamps, self.stamps, rows * 2)
        copy(remaining, self.remaining, items)

    def __deinit__(deinit self):
        self.tokens.unsafe_free()
        self.scores.unsafe_free()
        self.ranges.unsafe_free()
        self.checks.unsafe_free()
        self.remaining.unsafe_free()
        self.origins.unsafe_free()
        self.stamps.unsafe_free()
        self.kept.unsafe_free()

    def histories(self, step: Int) -> Ints:
        """The origins [rows, context] of a step."""
        return self.origins.unsafe_offset(step % 2 * self.items * self.beams * self.context)

    def rules(self, asked: Rules) -> Rules:
        """Those after an advance: of what can be looked ahead of, only the timestamps' change."""
        var rules = asked
        rules.ranges = self.ranges
        rules.checks = self.checks
        rules.banned_count = 0
        rules.penalized_count = 0
        return rules

    def advance(
        self, step: Int, ids: Ints, sources: Ints, values: Floats, wanted: Int, fed: Ints
    ) -> Bool:
        """From the candidates of a step [items, wanted] to the rows of the next one.

        `sources` are the beams that they continue. `fed [rows, 2]` gets the token that each row
        has now, and the row that it continues. Returns whether all items go on.
        """
        var rows = self.items * self.beams
        var stamps = self.stamps.unsafe_offset(step % 2 * rows * 2)
        var next_stamps = self.stamps.unsafe_offset((step + 1) % 2 * rows * 2)
        var goes_on = True
        for item in range(self.items):
            var place = item * wanted
            var ended = survivors(
                ids.unsafe_offset(place), wanted, self.beams, self.course.eot, self.kept
            )
            self.remaining[unsafe_offset=item] -= Int32(ended)
            goes_on = goes_on and self.remaining[unsafe_offset=item] > 0
            for beam in range(self.beams):
                var row = item * self.beams + beam
                var chosen = place + Int(self.kept[unsafe_offset=beam])
                var parent = item * self.beams + Int(sources[unsafe_offset=chosen])
                var token = Int(ids[unsafe_offset=chosen])
                fed[unsafe_offset=2 * row] = Int32(token)
                fed[unsafe_offset=2 * row + 1] = Int32(parent)
                self.tokens[unsafe_offset=row] = Int32(token)
                self.scores[unsafe_offset=row] = (
                    values[unsafe_offset=chosen] if self.course.summed else 0
                )
                self._follow(step, row, parent)
                self._restrict(
                    row,
                    token,
                    stamps.unsafe_offset(2 * parent),
                    next_stamps.unsafe_offset(2 * row),
                )
        return goes_on

    def _follow(self, step: Int, row: Int, parent: Int):
        """The row's history is its parent's; it goes on writing to the slot that is its own."""
        var before = self.histories(step)
        var after = self.histories(step + 1).unsafe_offset(row * self.context)
        var position = Int(self.positions[unsafe_offset=row]) + step
        copy(before.unsafe_offset(parent * self.context), after, position + 1)
        after[unsafe_offset=position + 1] = before[unsafe_offset=row * self.context + position]

    def _restrict(self, row: Int, token: Int, past: Ints, present: Ints):
        """What the timestamp rule says after the token, and has to know of the history then."""
        var ranges = self.ranges.unsafe_offset(4 * row)
        for i in range(4):
            ranges[unsafe_offset=i] = 0
        self.checks[unsafe_offset=row] = 0
        if not self.course.timed:
            return
        var first = self.course.first_timestamp
        var stamps = Stamps(Int(past[unsafe_offset=0]), past[unsafe_offset=1] != 0)
        if stamps.restrict(token, self.course, ranges):
            self.checks[unsafe_offset=row] = 1
        present[unsafe_offset=0] = Int32(token) if token >= first else past[unsafe_offset=0]
        present[unsafe_offset=1] = Int32(1) if token >= first else Int32(0)


def copy(source: Ints, target: Ints, count: Int):
    """Numbers from one place to another."""
    for i in range(count):
        target[unsafe_offset=i] = source[unsafe_offset=i]
