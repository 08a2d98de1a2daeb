"""Who may use a device: one thread executes, and nobody else is there while it captures."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from max.driver import Device

from ...system.unpatched_threads import Condition, new_lock


@dataclass(frozen=True)
class DeviceLocks:
    """Locks of one device, for all models on it.

    Attributes:
        turn: Held by the thread that executes steps and windows of several requests.
        beside: Held by whoever uses the device without the turn, as for features and copies, and
            while an execution is captured: what is done meanwhile would be captured as well, or
            end the capture.
    """

    turn: Condition = field(default_factory=Condition)
    beside: threading.Lock = field(default_factory=new_lock)


_lock = new_lock()
_locks: dict[tuple[str, int], DeviceLocks] = {}


def locks_of(device: Device) -> DeviceLocks:
    """The locks of a device, the same for every object that stands for it."""
    with _lock:
        return _locks.setdefault((device.label, device.id), DeviceLocks())
