"""Steps that a GPU makes without the host: it makes the inputs of each next one itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.dimensions import Dimensions
from ..compile.session import LoadedGraph
from ..graphs.signature import Signature
from ..search.protocol import Int32Array
from .captured_graphs import Execution
from .graphs.signatures import ADVANCED

_NOTE_UNIT = 16
"""Numbers at whose multiples the notes of steps begin."""

_log = logging.getLogger("whisper_max_backend")


class StepsAhead:
    """Makes steps of a search ahead of it, as `whisper.gpu.advance` says."""

    def __init__(
        self, graph: LoadedGraph, signature: Signature, device: Device, dimensions: Dimensions
    ) -> None:
        """Make steps by the graph ``advance`` of a model."""
        self._graph = graph
        self._signature = signature
        self._device = device
        self._dimensions = dimensions

    def make(self, execution: Execution, steps: int) -> tuple[Int32Array, Int32Array]:
        """Makes the steps after one that was executed.

        Args:
            execution: Of the step.
            steps: How many there are to be with it.

        Returns:
            The candidates of all steps ``[steps, items, 3, candidates]``, and what the rows of the
            step after each are given, ``[steps, rows, 2]``: the token, and the row continued.
        """
        rows = execution.arrays["positions"].shape[0]
        shape = execution.results[0].shape
        count = math.prod(shape)
        room = -(-(count + 2 * rows) // _NOTE_UNIT) * _NOTE_UNIT
        notes = Buffer(DType.int32, (steps * room,), self._device)
        for step in range(steps):
            if step:
                execution.repeat()
            note = notes[step * room : (step + 1) * room]
            self._advance(execution.results[0], note, execution.arrays)
        written = notes.to_numpy().reshape(steps, room)
        fed = written[:, count : count + 2 * rows]
        return written[:, :count].reshape(steps, *shape), fed.reshape(steps, rows, 2)

    def _advance(self, candidates: Buffer, note: Buffer, arrays: Mapping[str, Buffer]) -> None:
        taken = {name: arrays[name] for name in (*ADVANCED, "first_timestamp", "lookahead")}
        inputs = self._signature.ordered(candidates=candidates, note=note, **taken)
        self._graph.execute(*inputs)

    def work(self) -> bool:
        """Whether the device goes on as the search would; logs where it does not.

        It is asked of every device: a wrong step would give a wrong text without any error. Of two
        beams, one ends and is replaced, and the other ends a pair of timestamps.
        """
        d = self._dimensions
        first, end = d.n_vocab - 2, d.n_vocab - 3
        table = np.zeros((2, d.n_text_ctx), np.int32)
        table[:, :2] = [[7, 0], [8, 1]]
        before = {
            "tokens": [[0, 0]],
            "positions": [1, 1],
            "slot_table": table,
            "scores": np.zeros(2, np.float32),
            "ranges": np.ones((2, 4)),
            "checks": [0, 1],
            "last_timestamps": [[-1, 0], [first, 1]],
            "first_timestamp": [first],
            "lookahead": [end, 1, 1],
        }
        scores = np.array([-1, -2, -3, -4], np.float32)
        chosen = [end, first + 1, 5, 6, 0, 1, 1, 0, *scores.view(np.int32).tolist()]
        table = table.copy()
        table[:, :3] = [[8, 1, 0], [8, 1, 1]]
        after = {
            "tokens": [[5, first + 1]],
            "positions": [2, 2],
            "slot_table": table,
            "scores": [-3, -2],
            "ranges": [[first, first + 1, 0, 0], [first, d.n_vocab, 0, 0]],
            "checks": [1, 0],
            "last_timestamps": [[first, 0], [first + 1, 1]],
        }
        note = np.array([*chosen, 5, 1, first + 1, 1], np.int32)
        try:
            arrays = {name: self._buffer(array) for name, array in before.items()}
            written = self._buffer(np.zeros_like(note))
            candidates = self._buffer(np.reshape(chosen, (1, 3, 4)))
            self._advance(candidates, written, arrays)
            pairs = [(arrays[name], array) for name, array in after.items()] + [(written, note)]
            works = all(np.array_equal(found.to_numpy(), array) for found, array in pairs)
            reason = "it goes on otherwise than the search"
        except Exception as error:
            works, reason = False, str(error)
        if not works:
            _log.warning(
                "%s makes no steps ahead (%s), so the search is asked at each one, which is slower",
                self._device,
                reason,
            )
        return works

    def _buffer(self, array: object) -> Buffer:
        """On the device: int32, where it is no float32."""
        numbers = np.array(array)
        if numbers.dtype != np.float32:
            numbers = numbers.astype(np.int32)
        return Buffer.from_numpy(np.ascontiguousarray(numbers)).to(self._device)
