"""The environment of Ray in the tests' own process, set before anything imports it.

As `whisper_max_backend.corpus.environment` sets it for commands.
"""

from __future__ import annotations

import os
import secrets

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def variables() -> dict[str, str]:
    """Of Ray, in the environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
