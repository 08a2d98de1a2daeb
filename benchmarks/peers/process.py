"""A peer in a process of its own: its threads and libraries are nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.peers import Model, Peer
from benchmarks.speech import speech

_LAST_SECONDS = 2


class PeerFailed(RuntimeError):
    """It could not load the model, or transcribe."""


@dataclass(frozen=True)
class Heard:
    """A transcription; `seconds` are what the peer needed, without the way to its process."""

    text: str
    seconds: float


class PeerProcess:
    """A peer with a model loaded.

    Raises:
        PeerFailed: With the peer's own message.
    """

    def __init__(self, peer: Peer, model: Model) -> None:
        # A fork would share what the parent's libraries have set up.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, peer, model), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def transcribe(self, recording: str, beams: int) -> Heard:
        """A recording by its name, which the process decodes itself and not in its time."""
        self._connection.send((recording, beams))
        heard: Heard = self._answer()
        return heard

    def end(self) -> None:
        """End the process."""
        self._connection.close()  # which it takes for its end
        self._process.join(_LAST_SECONDS)
        self._process.kill()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise PeerFailed("its process has ended; what it said is on standard error") from None
        if isinstance(answer, str):
            self.end()
            raise PeerFailed(answer)
        return answer


def _serve(connection: Connection, peer: Peer, model: Model) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        transcribe = peer.load(model)
        connection.send(None)
        while True:
            recording, beams = connection.recv()
            samples = speech(recording).copy()  # nobody trips over a read-only array
            started = time.perf_counter()
            text = transcribe(samples, beams)
            connection.send(Heard(text, time.perf_counter() - started))
    except (EOFError, BrokenPipeError):
        pass  # the parent is done
    except Exception as error:  # a stranger's program may raise anything
        connection.send(f"{type(error).__name__}: {error}")
