"""What Ray reads of the environment when it is imported, so this module does not import it."""

from __future__ import annotations

import os
import secrets

LOCAL = "local"


def prepare(address: str) -> None:
    """Set the variables of Ray before it is imported.

    Its usage statistics are off. A Ray that is started here is for this process alone: it listens
    on the loopback interface only, and asks for a token that nobody else has.

    Args:
        address: "local", or that of a cluster, whose own variables count.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        # As on those systems: without it, Ray listens on all interfaces, whatever its address is.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Ray's own is 15, at which whatever else runs on this machine comes before the work.
        os.environ.setdefault("RAY_worker_niceness", "0")
