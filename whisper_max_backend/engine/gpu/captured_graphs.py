"""Executions that a device repeats: captured once as a device graph, and replayed.

A graph of many small kernels takes a host longer to start than the device to run. A captured one
is started at once; it reads and writes the very buffers that it was captured with.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..compile.session import LoadedGraph
from ..state.device_locks import locks_of
from .staging import parts, staged

_log = logging.getLogger("whisper_max_backend")

VARIABLE = "WHISPER_MAX_REPLAY"
"""0 never captures and replays anything, 1 tries it on any device."""
MAX_CAPTURED = 24
"""Captured graphs that are kept: each has its results and what is between them on the device."""
MAX_FAILURES = 3
"""Failures in a row after which nothing is captured any more."""

Inputs = Callable[[Mapping[str, Buffer]], list[Buffer]]

# One sequence for all graphs: MAX does not say whether a key is a model's or the device's.
_numbers = itertools.count(1)


class Execution:
    """An execution, which can be repeated with what its inputs hold by then.

    Attributes:
        arrays: What came from the host, on the device.
        results: Of the last time.
    """

    def __init__(
        self,
        arrays: Mapping[str, Buffer],
        results: list[Buffer],
        again: Callable[[], list[Buffer]],
        replayed: bool = False,
    ) -> None:
        self.arrays = arrays
        self.results = results
        self._again = again
        self._replayed = replayed

    def lasting_results(self) -> list[Buffer]:
        """The results, which the next execution leaves alone."""
        return [one.copy() for one in self.results] if self._replayed else self.results

    def repeat(self) -> None:
        """Executes once more; earlier results may be overwritten."""
        self.results = self._again()


@dataclass(eq=False)
class _CapturedGraph:
    """A captured execution, with everything that a replay reads and writes."""

    number: int
    model: LoadedGraph
    kept: tuple[Buffer, ...]
    staging: Buffer
    arrays: Mapping[str, Buffer]
    inputs: list[Buffer]
    outputs: list[Buffer]
    failure: Exception | None = None

    def replay(self) -> list[Buffer]:
        """The results with what is in the inputs."""
        self.model.replay(self.number, *self.inputs)
        return self.outputs

    def replay_or_execute(self) -> list[Buffer]:
        """As `replay`, and where that fails, of an execution; that it failed is remembered."""
        if self.failure is None:
            try:
                return self.replay()
            except Exception as error:
                self.failure = error.with_traceback(None)
        return list(self.model.execute(*self.inputs))


class CapturedGraphs:
    """Executes models, and replays what comes again with the same shapes and buffers.

    An execution is captured when it comes for the second time. A capture is tried at once: the
    launches of a replay are compared with those of an execution, and so are the first results.
    Where any of it fails, as for a passing lack of memory, that execution is captured another
    time. Where it fails again and again, nothing is captured any more, and the log says so.

    Attributes:
        wanted: Whether anything is captured; at first what the environment says, or else whether
            the device is NVIDIA's.
    """

    def __init__(self, device: Device, executed: str, most: int = MAX_CAPTURED) -> None:
        """For what is executed on a device, as the log calls it; keeps `most` captured graphs."""
        self.wanted = os.environ.get(VARIABLE, "1" if device.api == "cuda" else "0") == "1"
        self._device = device
        self._executed = executed
        self._most = most
        self._seen: set[Hashable] = set()
        self._captured: OrderedDict[Hashable, _CapturedGraph] = OrderedDict()
        self._failures = 0

    def execute(
        self,
        model: LoadedGraph,
        kind: Hashable,
        arrays: Mapping[str, np.ndarray],
        kept: tuple[Buffer, ...],
        inputs: Inputs,
    ) -> Execution:
        """Executes a model; its results are to be read, or made lasting, before the next execution.

        Args:
            model: Executing it twice in a row changes nothing.
            kind: What the shapes of its inputs depend on, besides the arrays'.
            arrays: What comes from the host, by name, 32-bit numbers.
            kept: Buffers among the inputs that may be others another time.
            inputs: Of the model in their order, from the arrays on the device.
        """
        fresh = staged(arrays)
        key = (kind, *(array.shape for array in arrays.values()))
        if self.wanted:
            self._forget_unless(kept)
            if key in self._captured:
                replayed = self._replay(key, fresh)
                if replayed is not None:
                    return replayed
            elif key in self._seen:
                return self._capture(model, key, arrays, fresh, kept, inputs)
            if len(self._seen) >= 64 * self._most:  # shapes that never come again
                self._seen.clear()
            self._seen.add(key)
        on_device = parts(Buffer.from_numpy(fresh).to(self._device), arrays)
        return _executed(model, on_device, inputs(on_device))

    def _replay(self, key: Hashable, fresh: np.ndarray) -> Execution | None:
        """Replays; None where that fails or failed last time, and what was captured is gone."""
        captured = self._captured[key]
        self._captured.move_to_end(key)
        failure = captured.failure
        if failure is None:
            try:
                captured.staging.inplace_copy_from(Buffer.from_numpy(fresh))
                results = captured.replay()
                return Execution(
                    captured.arrays, results, captured.replay_or_execute, replayed=True
                )
            except Exception as error:
                failure = error.with_traceback(None)
        del captured
        self._failed(key, failure)
        return None

    def _capture(
        self,
        model: LoadedGraph,
        key: Hashable,
        arrays: Mapping[str, np.ndarray],
        fresh: np.ndarray,
        kept: tuple[Buffer, ...],
        inputs: Inputs,
    ) -> Execution:
        """Executes, and captures what was executed."""
        staging = Buffer(DType.uint8, fresh.shape, self._device)
        staging.inplace_copy_from(Buffer.from_numpy(fresh))
        self._device.synchronize()
        on_device = parts(staging, arrays)
        given = inputs(on_device)
        executed = _executed(model, on_device, given)
        with locks_of(self._device).beside:
            error = self._try_capture(model, key, kept, staging, given, executed)
        if error is not None:
            self._failed(key, error)
            return executed
        self._failures = 0
        if len(self._captured) > self._most:
            self._release(next(iter(self._captured)))
        return executed

    def _try_capture(
        self,
        model: LoadedGraph,
        key: Hashable,
        kept: tuple[Buffer, ...],
        staging: Buffer,
        given: list[Buffer],
        executed: Execution,
    ) -> Exception | None:
        """Captures an execution and replays it, to see whether its first result is the same."""
        expected = executed.results[0].to_numpy().copy()
        number = next(_numbers)
        try:
            outputs = list(model.capture(number, *given))
            self._captured[key] = _CapturedGraph(
                number, model, kept, staging, executed.arrays, given, outputs
            )
            model.debug_verify_replay(number, *given)
            model.replay(number, *given)
            if not np.array_equal(outputs[0].to_numpy(), expected):
                raise RuntimeError("a replay gives other results than an execution")
        except Exception as error:
            return error.with_traceback(None)  # which would keep the results
        return None

    def _failed(self, key: Hashable, error: Exception) -> None:
        """Forgets a capture that failed, and after too many failures all of them."""
        self._seen.discard(key)
        if key in self._captured:
            self._release(key)
        self._failures += 1
        if self._failures < MAX_FAILURES:
            _log.info("%s: not captured now, but another time: %s", self._executed, error)
            return
        self.wanted = False
        self._forget_unless(None)
        _log.warning("%s: device graphs are not used any more: %s", self._executed, error)

    def _forget_unless(self, kept: tuple[Buffer, ...] | None) -> None:
        """Lets go of what was captured with other buffers than these."""
        for key, captured in list(self._captured.items()):
            if kept is None or any(a is not b for a, b in zip(captured.kept, kept, strict=True)):
                self._release(key)

    def _release(self, key: Hashable) -> None:
        captured = self._captured.pop(key)
        model, number = captured.model, captured.number
        del captured  # its results have to be gone first
        model.release_captured_graph(number)


def _executed(model: LoadedGraph, arrays: Mapping[str, Buffer], inputs: list[Buffer]) -> Execution:
    """A plain execution, of inputs that the arrays on the device are among."""

    def execute() -> list[Buffer]:
        return list(model.execute(*inputs))

    return Execution(arrays, execute(), execute)
