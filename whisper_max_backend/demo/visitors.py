"""Keeps visitors apart: an upload is for the browser that sent it, and does not stay.

Gradio serves an upload to whoever knows its address, for as long as the server lives. The guard
here stands in front of it: each browser gets a random cookie, and an upload is served to the
browsers that sent it. Text and figures never become files.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "whisper_max_visitor"
_FILE = re.compile(r"(?:/gradio_api)?/file[=/](?P<path>.*)", re.DOTALL)
_UPLOAD = "/gradio_api/upload"


@dataclass
class _Upload:
    arrived: float
    visitors: set[str] = field(default_factory=set)


class Uploads:
    """The uploaded files, and which visitors sent each (the same file has one path).

    Args:
        longest_kept: Seconds after which a file is deleted in any case.
    """

    def __init__(self, longest_kept: float = 3600) -> None:
        self._longest_kept = longest_kept
        self._uploads: dict[Path, _Upload] = {}
        self._lock = threading.Lock()

    def add(self, visitor: str, path: Path) -> None:
        """Note who sent a file."""
        now = time.monotonic()
        with self._lock:
            for old, upload in list(self._uploads.items()):
                if now - upload.arrived > self._longest_kept:
                    self._delete(old)
            upload = self._uploads.setdefault(path, _Upload(now))
            upload.arrived = now
            upload.visitors.add(visitor)

    def sent_by(self, visitor: str, path: Path) -> bool:
        with self._lock:
            return path in self._uploads and visitor in self._uploads[path].visitors

    def discard(self, visitor: str, path: Path) -> None:
        """The visitor is done with a file: with the last one it is deleted."""
        with self._lock:
            if path in self._uploads:
                self._uploads[path].visitors.discard(visitor)
                if not self._uploads[path].visitors:
                    self._delete(path)

    def _delete(self, path: Path) -> None:
        del self._uploads[path]
        # Gradio gives each upload a folder of its own.
        shutil.rmtree(path.parent, ignore_errors=True)


class Guard:
    """In front of Gradio's application: gives cookies, and serves a file to its senders alone.

    Args:
        app: The application.
        uploads: Noted from the answers to uploads.
        public: Files that everybody may have.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads, public: frozenset[Path]) -> None:
        self._app = app
        self._uploads = uploads
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = HTTPConnection(scope).cookies.get(COOKIE)
        visitor = known or secrets.token_urlsafe(32)
        asked = _FILE.fullmatch(scope["path"])
        if asked and not self._may_read(visitor, asked["path"]):
            refusal = PlainTextResponse("There is no such file for this visitor.", status_code=404)
            await refusal(scope, receive, send)
            return
        is_upload = scope["method"] == "POST" and scope["path"] == _UPLOAD
        answer = bytearray()
        status = 0

        async def pass_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if known is None:
                    cookie = f"{COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Strict"
                    MutableHeaders(scope=message).append("set-cookie", cookie)
            elif is_upload:
                answer.extend(message.get("body", b""))
                if not message.get("more_body") and status == 200:
                    for path in json.loads(answer):
                        self._uploads.add(visitor, _absolute(path))
            await send(message)

        await self._app(scope, receive, pass_on)

    def _may_read(self, visitor: str, path: str) -> bool:
        absolute = _absolute(path)
        return absolute in self._public or self._uploads.sent_by(visitor, absolute)


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(path))
