"""Moves beams from step to step within one call, as the search in Python would."""

from ..common.lookahead import Lookahead, survivors
from ..common.rules import Rules
from ..common.views import FloatView, IntView


struct Hypotheses(Movable):
    """The rows of a step, and how they go on: rows are items * beams, item by item."""

    var items: Int
    var beams: Int
    var context: Int
    var positions: IntView
    """[rows], of the first step's tokens."""
    var lookahead: Lookahead
    var tokens: IntView
    """[rows], the last of every row."""
    var scores: FloatView
    """[rows]."""
    var ranges: IntView
    """[rows, 4], what the timestamp rule bans."""
    var checks: IntView
    """[rows], where it bans text that timestamps outweigh."""
    var remaining: IntView
    """[items]: how many hypotheses may end before an item is finished."""
    var slot_tables: IntView
    """[2, rows, context]: before and after an advance, in turns."""
    var last_timestamps: IntView
    """[2, rows, 2], likewise."""
    var kept: IntView
    """[beams]."""

    def __init__(
        out self,
        items: Int,
        beams: Int,
        context: Int,
        positions: IntView,
        lookahead: Lookahead,
        remaining: IntView,
        slot_table: IntView,
        last_timestamps: IntView,
    ):
        """With the histories before the first advance."""
        var rows = items * beams
        self.items = items
        self.beams = beams
        self.context = context
        self.positions = positions
        self.lookahead = lookahead
        self.tokens = IntView.allocate(rows)
        self.scores = FloatView.allocate(rows)
        self.ranges = IntView.allocate(4 * rows)
        self.checks = IntView.allocate(rows)
        self.remaining = IntView.allocate(items)
        self.slot_tables = IntView.allocate(2 * rows * context)
        self.last_timestamps = IntView.allocate(2 * rows * 2)
        self.kept = IntView.allocate(beams)
        copy(slot_table, self.slot_tables, rows * context)
        copy(last_timestamps, self.last_timestamps, rows * 2)
        copy(remaining, self.remaining, items)

    def __deinit__(deinit self):
        self.tokens.free()
        self.scores.free()
        self.ranges.free()
        self.checks.free()
        self.remaining.free()
        self.slot_tables.free()
        self.last_timestamps.free()
        self.kept.free()

    def slot_table(self, step: Int) -> IntView:
        """The slots [rows, context] of a step."""
        return self.slot_tables.offset(step % 2 * self.items * self.beams * self.context)

    def rules(self, asked: Rules) -> Rules:
        """Those after an advance: of what can be looked ahead of, only the timestamps' change."""
        var rules = asked
        rules.ranges = self.ranges
        rules.checks = self.checks
        rules.banned_count = 0
        rules.penalized_count = 0
        return rules

    def advance(
        self,
        step: Int,
        ids: IntView,
        sources: IntView,
        values: FloatView,
        wanted: Int,
        fed: IntView,
    ) -> Bool:
        """From the candidates of a step [items, wanted] to the rows of the next one.

        `sources` are the beams that they continue. `fed [rows, 2]` gets the token that each row
        has now, and the row that it continues. Returns whether all items go on.
        """
        var rows = self.items * self.beams
        var last_timestamps = self.last_timestamps.offset(step % 2 * rows * 2)
        var next_timestamps = self.last_timestamps.offset((step + 1) % 2 * rows * 2)
        var goes_on = True
        for item in range(self.items):
            var place = item * wanted
            var ended = survivors(
                ids.slice(place, wanted), wanted, self.beams, self.lookahead.eot, self.kept
            )
            self.remaining[item] -= Int32(ended)
            goes_on = goes_on and self.remaining[item] > 0
            for beam in range(self.beams):
                var row = item * self.beams + beam
                var chosen = place + Int(self.kept[beam])
                var parent = item * self.beams + Int(sources[chosen])
                var token = Int(ids[chosen])
                fed[2 * row] = Int32(token)
                fed[2 * row + 1] = Int32(parent)
                self.tokens[row] = Int32(token)
                self.scores[row] = values[chosen] if self.lookahead.summed else 0
                self._follow(step, row, parent)
                var checked = self.lookahead.restrict(
                    token,
                    last_timestamps.slice(2 * parent, 2),
                    next_timestamps.slice(2 * row, 2),
                    self.ranges.slice(4 * row, 4),
                )
                self.checks[row] = Int32(checked)
        return goes_on

    def _follow(self, step: Int, row: Int, parent: Int):
        """The row's history is its parent's; it goes on writing to the slot that is its own."""
        var before = self.slot_table(step)
        var after = self.slot_table(step + 1).offset(row * self.context)
        var position = Int(self.positions[row]) + step
        copy(before.offset(parent * self.context), after, position + 1)
        after[position + 1] = before[row * self.context + position]


def copy(source: IntView, target: IntView, count: Int):
    """Numbers from one place to another."""
    for i in range(count):
        target[i] = source[i]
