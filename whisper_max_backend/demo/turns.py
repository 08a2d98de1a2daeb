"""One comparison at a time, so that the figures are fair; the other visitors wait in line."""

from __future__ import annotations

import threading


class LineFullError(RuntimeError):
    """Too many are waiting already."""


class Turns:
    """A line of tickets, first come, first served.

    Args:
        longest: How many may be in it, the one whose turn it is included.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._line: list[object] = []
        self._moved = threading.Condition()

    def join(self) -> object:
        """A ticket at the end of the line.

        Raises:
            LineFullError: There is no room.
        """
        ticket = object()
        with self._moved:
            if len(self._line) >= self._longest:
                raise LineFullError(
                    f"{len(self._line)} comparisons wait already: try again in a few minutes."
                )
            self._line.append(ticket)
        return ticket

    def before(self, ticket: object) -> int:
        """How many tickets come first; 0: it is this one's turn, or it has left."""
        with self._moved:
            return self._line.index(ticket) if ticket in self._line else 0

    def wait(self, ticket: object, timeout: float) -> bool:
        """Whether it is the ticket's turn, at once or within `timeout` seconds."""
        with self._moved:
            return self._moved.wait_for(lambda: self._line[0] is ticket, timeout)

    def leave(self, ticket: object) -> None:
        """Make room for the next, before or after one's turn."""
        with self._moved:
            self._line.remove(ticket)
            self._moved.notify_all()
