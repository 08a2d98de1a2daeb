"""How a search goes on from the candidates of a step, and what its rule for timestamps says then.

It is what `beam_search` and `greedy_search` do as long as no item is finished, and what
`rules.Timestamps` says about the histories that result; the search compares and takes the steps
that were made for what it wants to know.
"""

from .views import IntView


def survivors(ids: IntView, wanted: Int, beams: Int, eot: Int, kept: IntView) -> Int:
    """Which of the candidates `ids [wanted]` live on, one a beam; returns how many beams ended.

    A candidate among the first `beams` that ends is replaced by the next one behind them that
    does not.
    """
    var ended = 0
    var spare = beams
    for beam in range(beams):
        kept[beam] = Int32(beam)
        if Int(ids[beam]) != eot:
            continue
        ended += 1
        while spare < wanted:
            spare += 1
            if Int(ids[spare - 1]) != eot:
                kept[beam] = Int32(spare - 1)
                break
    return ended


@fieldwise_init
struct Lookahead(TrivialRegisterPassable):
    """How hypotheses go on and end."""

    var eot: Int
    var timed: Bool
    """Whether the timestamp rule holds."""
    var summed: Bool
    """Whether a score is the sum over all tokens, or of the last one alone."""
    var first_timestamp: Int
    var vocabulary: Int

    def restrict(self, token: Int, past: IntView, present: IntView, ranges: IntView) -> Bool:
        """What the timestamp rule says after a history that has left its prefix, and a token.

        past [2] is what it has to know of the history: its last timestamp or -1, and 1 where that
        is its last token; present [2] gets the same of the history with the token. ranges [4] get
        up to two ranges of ids that are banned. Returns whether text is banned if the timestamps
        together are likelier than it.
        """
        for i in range(4):
            ranges[i] = 0
        if not self.timed:
            return False
        var first = Int32(self.first_timestamp)
        if token < self.first_timestamp:
            present[0] = past[0]
            present[1] = 0
            if past[0] >= 0:
                ranges[0] = first
                ranges[1] = past[0] + 1
            return True
        present[0] = Int32(token)
        present[1] = 1
        if past[1] != 0:  # a pair is complete
            ranges[0] = first
            ranges[1] = Int32(self.vocabulary)
            return False
        ranges[1] = Int32(self.eot)
        if token > self.first_timestamp:
            ranges[2] = first
            ranges[3] = Int32(token)
        return True
