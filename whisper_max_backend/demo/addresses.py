"""Which addresses the page has: requests to others, or from pages of others, are refused.

A website can have a visitor's browser send requests to a server on the visitor's own machine
(their Origin tells), or give its own name the address of that machine and so read the answers, too
(their Host tells).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_EVERYWHERE = frozenset({"0.0.0.0", "[::]"})
_AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:/@\s\[\]]+)(?::(?P<port>\d{1,5}))?")


class Addresses:
    """The names that requests may be sent to, and come from.

    Args:
        host: Address that the server listens on: it and the loopback names are the page's, with
            the server's port; on 0.0.0.0 or ::, so is every numeric address.
        others: Further names, with any port: what a reverse proxy is known as.

    Raises:
        ValueError: One of them is no name.
    """

    def __init__(self, host: str, others: Iterable[str] = ()) -> None:
        listening = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._listening = _LOOPBACK | {listening.lower()}
        self._everywhere = listening in _EVERYWHERE
        self._others: set[str] = set()
        for name in others:
            self.allow(name)

    def allow(self, name: str) -> None:
        """Take requests to one more name."""
        found = _AUTHORITY.fullmatch(name.lower())
        if not found or found["port"]:
            raise ValueError(
                f"'{name}' is no name of a host: give it without scheme, port and path, e.g. "
                "whisper.example.org"
            )
        self._others.add(found["name"])

    def refusal(self, scope: Scope) -> str:
        """Why a request (HTTP or WebSocket) is refused; empty: it is not."""
        headers = Headers(scope=scope)
        host = ",".join(headers.getlist("host")).lower()
        port = scope["server"][1]
        if not (self._is_ours(host, 80, port) or self._is_any_number(host)):
            return (
                f"This page is not served as '{host}': open http://localhost:{port}/ on the "
                "machine that serves it, or start it with --allow-host NAME."
            )
        for origin in headers.getlist("origin"):
            scheme, _, sender = origin.lower().partition("://")
            default = {"http": 80, "https": 443}.get(scheme)
            if default is None or not (sender == host or self._is_ours(sender, default, port)):
                return f"This page takes nothing from '{origin}': open the page itself."
        return ""

    def _is_ours(self, authority: str, default_port: int, port: int) -> bool:
        found = _AUTHORITY.fullmatch(authority)
        if not found:
            return False
        asked = int(found["port"] or default_port)
        return found["name"] in self._others or (found["name"] in self._listening and asked == port)

    def _is_any_number(self, authority: str) -> bool:
        """Whether every address is ours and this is one: no name that could be made to mean it."""
        found = _AUTHORITY.fullmatch(authority)
        if not (self._everywhere and found):
            return False
        try:
            ipaddress.ip_address(found["name"].strip("[]"))
        except ValueError:
            return False
        return True
