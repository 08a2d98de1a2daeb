"""What a process uses while it works, looked at from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import psutil

_INTERVAL = 0.1  # seconds


@dataclass(frozen=True)
class Sample:
    """One look at a process.

    Attributes:
        seconds: Since the meter began.
        memory: Resident, bytes.
        cpu: Since the look before, 1 for a core at work all the time.
        gpu: Of the busiest GPU, 1 for one at work all the time; None where there is none to ask.
    """

    seconds: float
    memory: int
    cpu: float
    gpu: float | None = None


class Meter:
    """Looks at a process ten times a second as long as the block lasts, and at its end.

    Attributes:
        samples: What was seen so far; may be read while it grows.
    """

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._gpu = _gpu_meter()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._began = time.perf_counter()
        self._before = (self._began, self._busy_seconds())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            while not self._end.wait(_INTERVAL):
                self._look()
            self._look()
        except psutil.Error:  # the process is gone; who waits for it says so
            pass

    def _look(self) -> None:
        now, busy = time.perf_counter(), self._busy_seconds()
        then, busy_then = self._before
        self._before = (now, busy)
        self.samples.append(
            Sample(
                now - self._began,
                self._process.memory_info().rss,
                (busy - busy_then) / (now - then),
                self._gpu(),
            )
        )

    def _busy_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _gpu_meter() -> Callable[[], float | None]:
    """A function that gives the use of the busiest NVIDIA GPU; of nothing where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # neither the package nor a driver has to be there
        devices = []
    if not devices:
        return lambda: None
    return lambda: max(pynvml.nvmlDeviceGetUtilizationRates(one).gpu / 100 for one in devices)
