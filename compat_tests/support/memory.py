"""How much memory this process has, as Linux tells."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")


def memory(key: str) -> int:
    """A figure of this process in /proc/self/status, in bytes."""
    match = re.search(rf"^{key}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024
