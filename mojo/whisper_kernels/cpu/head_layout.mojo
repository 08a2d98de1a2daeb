"""How the heads of attention lie in memory between two kernels.

A product makes the columns of all heads at once. They are kept head by head, so that whoever reads
one of them reads on and on; or, as a product writes whole panels, in groups of as many heads as
fill some.
"""

from std.math import ceildiv, gcd

from .panels import PANEL


struct HeadGroups(ImplicitlyCopyable):
    """Rows of several heads as [groups, rows, columns of a group]."""

    var heads: Int
    var head_size: Int
    var rows: Int
    var each: Int
    """Heads of a group."""

    def __init__(out self, heads: Int, head_size: Int, rows: Int):
        self.heads = heads
        self.head_size = head_size
        self.rows = rows
        self.each = min(heads, PANEL // gcd(head_size, PANEL))

    @always_inline
    def count(self) -> Int:
        """Number of groups."""
        return ceildiv(self.heads, self.each)

    @always_inline
    def columns(self) -> Int:
        """Of a group: how far its rows are apart."""
        return self.each * self.head_size

    @always_inline
    def size(self) -> Int:
        """Numbers of all groups."""
        return self.count() * self.rows * self.columns()

    @always_inline
    def last_head(self, group: Int) -> Int:
        """The head that a group ends before."""
        return min(self.heads, (group + 1) * self.each)

    @always_inline
    def first_panel(self, group: Int) -> Int:
        """The panel that a group begins with."""
        return group * self.columns() // PANEL

    @always_inline
    def last_panel(self, group: Int) -> Int:
        """The panel that it ends before."""
        return ceildiv(self.last_head(group) * self.head_size, PANEL)

    @always_inline
    def place(self, head: Int) -> Int:
        """Where a head begins."""
        return head // self.each * self.rows * self.columns() + head % self.each * self.head_size
