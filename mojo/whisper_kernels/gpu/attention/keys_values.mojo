"""What attention reads: keys and values, wherever they are."""

from ...common.views import View

comptime LOWEST = Float32.MIN_FINITE
"""The score of what is not seen."""
comptime STATISTICS = 2
"""Numbers of a split beside its weighted values: the largest score, the sum of weights."""


trait KeysValues:
    """Where the keys and values of one head are, and which of them a query may see."""

    comptime dtype: DType

    def key(self, index: Int) -> View[Self.dtype]:
        """The key at a position."""
        ...

    def value(self, index: Int) -> View[Self.dtype]:
        """The value at a position."""
        ...

    def visible(self, query: Int) -> Int:
        """How many keys a query sees."""
        ...
