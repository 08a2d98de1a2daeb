"""Keeps visitors apart, and strangers out.

The guard stands in front of Gradio's application. It takes requests to the page's own addresses
alone, and of Gradio's many routes those that the page uses: others would write a visitor's text to
the disk for whoever has its link, or fetch files from elsewhere. Each browser gets a random cookie,
and an upload is served to the browser that sent it. Text and figures never become files.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .addresses import Addresses
from .uploads import RefusedUpload, Uploads

COOKIE = "whisper_max_visitor"
_FILE = re.compile(r"(?:/gradio_api)?/file[=/](?P<path>.*)", re.DOTALL)
_UPLOAD = "/gradio_api/upload"
_PAGE = re.compile(
    r"/|/(?:config|theme\.css|manifest\.json|favicon\.ico|robots\.txt)"
    r"|/(?:assets|static|svelte)/.+"
    r"|/gradio_api/(?:startup-events|app_id|cancel|reset|queue/(?:join|data)|heartbeat/[^/]+)"
)
_LARGEST_MESSAGE = 1_000_000  # bytes of what a page sends, but for uploads


class _Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Guard:
    """In front of Gradio's application.

    Args:
        app: The application.
        addresses: To which and from which requests are taken.
        uploads: Take the files that visitors send.
        public: Files that everybody may have.
    """

    def __init__(
        self, app: ASGIApp, addresses: Addresses, uploads: Uploads, public: frozenset[Path]
    ) -> None:
        self._app = app
        self._addresses = addresses
        self._uploads = uploads
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page uses none
            await WebSocketClose()(scope, receive, send)
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif reason := self._addresses.refusal(scope):
            await PlainTextResponse(reason, 403)(scope, receive, send)
        else:
            await self._answer(Request(scope, receive), send)

    async def _answer(self, request: Request, send: Send) -> None:
        known = request.cookies.get(COOKIE)
        visitor = known or secrets.token_urlsafe(32)

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and known is None:
                cookie = f"{COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Strict"
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        route = request.scope["path"]
        receive = request.receive
        answer: Response | None = None
        try:
            if request.method == "POST" and route == _UPLOAD:
                path = await self._uploads.receive(visitor, request)
                answer = JSONResponse([str(path)])
            elif request.method == "POST" and _PAGE.fullmatch(route):
                receive = await _checked(request)
            else:
                self._check_route(route, visitor)
        except (_Refused, RefusedUpload) as refusal:
            answer = PlainTextResponse(str(refusal), refusal.status)
        except ClientDisconnect:  # nobody waits for an answer
            return
        await (answer or self._app)(request.scope, receive, send_with_cookie)

    def _check_route(self, route: str, visitor: str) -> None:
        asked = _FILE.fullmatch(route)
        if asked:
            path = Path(os.path.abspath(asked["path"]))
            if path not in self._public and not self._uploads.sent_by(visitor, path):
                raise _Refused(404, "There is no such file for this visitor.")
        elif not _PAGE.fullmatch(route):
            raise _Refused(404, "There is no such page.")


async def _checked(request: Request) -> Receive:
    """What the page sent, read and looked at, to be read again."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _LARGEST_MESSAGE:
            raise _Refused(413, "This is more than the page sends.")
    try:
        message = json.loads(content or b"null")
        if _names_an_address(message):
            raise _Refused(403, "A recording has to be uploaded here: no address is fetched.")
        content[:] = json.dumps(message).encode()
    except (ValueError, RecursionError) as error:
        raise _Refused(400, "This is not what the page sends.") from error
    pending: list[Message] = [{"type": "http.request", "body": bytes(content)}]

    async def receive() -> Message:
        return pending.pop() if pending else await request.receive()

    return receive


def _names_an_address(message: Any) -> bool:
    """Whether a file in a page's message is none on the disk, so that Gradio would fetch it."""
    if isinstance(message, dict):
        path = message.get("path")
        if isinstance(path, str) and not os.path.isabs(path):
            return True
        return any(map(_names_an_address, message.values()))
    return isinstance(message, list) and any(map(_names_an_address, message))
