"""MAX's telemetry, off unless the user asks for it.

MAX reads the setting when it is imported, so this module is imported before anything of ``max``.
On a machine without a network the telemetry client can delay every start by many seconds.
"""

from __future__ import annotations

import os

VARIABLE = "MODULAR_TELEMETRY_ENABLED"


def disable_by_default() -> None:
    """Turn MAX's telemetry off; a value the user has set stays."""
    os.environ.setdefault(VARIABLE, "0")
