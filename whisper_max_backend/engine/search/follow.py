"""Greedy search that follows live speech: it ends where the audio does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Search
from .protocol import State


@dataclass(frozen=True)
class FollowedToken:
    """A token, and where it was spoken.

    Attributes:
        id: Of the token.
        frame: Encoder frame, of 20 ms, that the decoder attended to when it chose the token.
        score: Log-probability.
    """

    id: int
    frame: int
    score: float


@dataclass(frozen=True)
class Followed:
    """What was said as far as the audio goes.

    Attributes:
        tokens: In their order.
        ended: Whether the text came to its end, rather than the audio.
    """

    tokens: list[FollowedToken]
    ended: bool


class FollowingSearch(Search[State]):
    """The best token at every step, as long as it hangs on audio that is there already.

    Source: AlignAtt (Papi et al. 2023, arXiv 2305.11408): what a token attends to tells whether
    more audio could change it.
    """

    def follow(self) -> Followed:
        """The tokens of the only item."""
        assert self.attention is not None
        forced = self._feed_forced(self.options.max_length)
        history = self.prefixes[0][:forced]
        token = self._last_forced(forced)[0]
        found: list[FollowedToken] = []
        nothing = np.zeros(1, np.float32)
        for _ in range(forced, self.options.max_length):
            proposed = self._step([token], nothing, [history], [0], beams=1, candidates=1)
            assert proposed.attended is not None
            token, frame = int(proposed.tokens[0, 0]), int(proposed.attended[0])
            if token == self.eot:
                return Followed(found, ended=True)
            if frame >= self.attention.until:
                break
            found.append(FollowedToken(token, frame, float(proposed.scores[0, 0])))
            history.append(token)
        return Followed(found, ended=False)
