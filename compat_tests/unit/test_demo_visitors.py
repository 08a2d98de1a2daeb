"""Who may do what on the page of `whisper-max demo`: visitors, their files, and strangers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from whisper_max_backend.assets import SAMPLE
from whisper_max_backend.demo.addresses import Addresses
from whisper_max_backend.demo.recording import RefusedRecording
from whisper_max_backend.demo.sessions import Sessions
from whisper_max_backend.demo.uploads import FILES_OF_A_VISITOR, Uploads
from whisper_max_backend.demo.visitors import COOKIE, Guard

LARGEST = 1000  # bytes of a file
PORT = 7860
UPLOAD = "/gradio_api/upload"
BOUNDARY = "limit"


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path, LARGEST)


def form(content: bytes = b"sound", name: str = "a.wav", files: int = 1) -> bytes:
    part = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    ).encode()
    return (part + content + b"\r\n") * files + f"--{BOUNDARY}--\r\n".encode()


async def ask(
    uploads: Uploads,
    path: str = UPLOAD,
    body: bytes = b"",
    *,
    visitor: str | None = "alice",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    pieces: list[Any] | None = None,
    kind: str = "http",
) -> tuple[int, bytes, dict[bytes, bytes]]:
    """What the guard, before an application that answers everything with 200, answers.

    Args:
        pieces: Messages that come in; an exception among them is raised. Default: the body.
    """
    sent: list[Any] = []
    coming = pieces if pieces is not None else [{"type": "http.request", "body": body}]

    async def everything(scope: Any, receive: Any, send: Any) -> None:
        got = await receive() if method == "POST" else {}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": got.get("body", b"")})

    async def receive() -> Any:
        message = coming.pop(0) if coming else {"type": "http.disconnect"}
        if isinstance(message, Exception):
            raise message
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    known = {"cookie": f"{COOKIE}={visitor}"} if visitor else {}
    said = {
        "host": f"localhost:{PORT}",
        "content-length": str(len(body)),
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        **known,
        **(headers or {}),
    }
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": b"",
        "server": ("127.0.0.1", PORT),
        "headers": [(name.encode(), value.encode()) for name, value in said.items() if value],
    }
    guard = Guard(everything, Addresses("127.0.0.1"), uploads, frozenset({SAMPLE}))
    await guard(scope, receive, send)
    if not sent:
        return 0, b"", {}
    if sent[0]["type"] == "websocket.close":
        return 403, b"", {}
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


def answer(*arguments: Any, **options: Any) -> tuple[int, str]:
    status, body, _ = asyncio.run(ask(*arguments, **options))
    return status, body.decode()


def upload(uploads: Uploads, visitor: str = "alice", **options: Any) -> Path:
    status, body = answer(uploads, body=form(**options), visitor=visitor)
    assert status == 200, body
    (path,) = json.loads(body)
    return Path(path)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# Visitors, their pages and their uploads


class Request:
    """What is used of Gradio's."""

    def __init__(self, page: str, visitor: str) -> None:
        self.session_hash = page
        self.cookies = {COOKIE: visitor}


def test_a_recording_is_its_sender_s(uploads: Uploads) -> None:
    path = upload(uploads, content=b"alice's")
    sessions: Any = Sessions(uploads)
    with sessions.open(Request("a", "alice"), path) as file:
        assert file.read() == b"alice's"
    for stranger in ("bob", ""):
        with pytest.raises(RefusedRecording, match="no longer here"):
            sessions.open(Request("b", stranger), path)
    sessions.open(Request("b", "bob"), SAMPLE).close()


def test_a_recording_goes_with_the_choice_of_another_or_the_page(uploads: Uploads) -> None:
    sessions: Any = Sessions(uploads)
    page = Request("a", "alice")
    path = upload(uploads)
    sessions.choose(page, path)
    sessions.choose(page, path)
    assert path.exists()
    sessions.choose(page, SAMPLE)
    assert not path.exists()
    assert SAMPLE.exists()
    sessions.close(page)
    assert SAMPLE.exists()


def test_closing_a_page_stops_its_comparison_alone(uploads: Uploads) -> None:
    class Comparison:
        stopped = False

        def stop(self) -> None:
            self.stopped = True

    sessions: Any = Sessions(uploads)
    runs = {name: Comparison() for name in "ab"}
    for name, run in runs.items():
        sessions.of(Request(name, "alice")).run = run
    path = upload(uploads)
    sessions.choose(Request("a", "alice"), path)
    sessions.close(Request("a", "alice"))
    assert runs["a"].stopped
    assert not runs["b"].stopped
    assert not path.exists()
    assert sessions.of(Request("a", "alice")).run is None


def test_the_same_file_of_two_is_two_files(uploads: Uploads) -> None:
    of_alice, of_bob = upload(uploads, "alice"), upload(uploads, "bob")
    assert not uploads.sent_by("alice", of_bob)
    uploads.discard("alice", of_bob)
    uploads.discard("alice", of_alice)
    assert not of_alice.exists()
    assert of_bob.exists()


@pytest.mark.parametrize(
    ("visitor", "asked", "status"),
    [
        ("alice", "{upload}", 200),
        ("bob", "{upload}", 404),
        (None, "{upload}", 404),
        ("alice", "{upload}/../../secret.txt", 404),
        ("bob", "/etc/passwd", 404),
        (None, "{sample}", 200),
    ],
)
@pytest.mark.parametrize("prefix", ["/gradio_api/file=", "/file=", "/file/"])
def test_files_are_served_to_their_senders(
    uploads: Uploads, visitor: str | None, asked: str, status: int, prefix: str
) -> None:
    path = prefix + asked.format(upload=upload(uploads), sample=SAMPLE)
    given, _, headers = asyncio.run(ask(uploads, path, visitor=visitor, method="GET"))
    assert given == status
    assert (COOKIE.encode() in headers.get(b"set-cookie", b"")) == (visitor is None)


# How much they may send


def test_old_files_go_though_nobody_comes(tmp_path: Path) -> None:
    async def look() -> None:
        uploads = Uploads(tmp_path, LARGEST, longest_kept=0.05)
        status, body, _ = await ask(uploads, body=form())
        assert status == 200
        path = Path(json.loads(body)[0])
        while path.exists():
            await asyncio.sleep(0.01)
        assert not uploads.sent_by("alice", path)

    asyncio.run(asyncio.wait_for(look(), 30))
    assert not list(tmp_path.iterdir())


def test_a_visitor_has_few_files_at_a_time(uploads: Uploads, tmp_path: Path) -> None:
    mine = [upload(uploads) for _ in range(FILES_OF_A_VISITOR)]
    status, reason = answer(uploads, body=form(), pieces=[AssertionError("it is not read")])
    assert (status, "remove one" in reason) == (429, True)
    assert sorted(files(tmp_path)) == sorted(mine)
    upload(uploads, "bob")
    uploads.discard("alice", mine[0])
    upload(uploads)


@pytest.mark.parametrize("size", [1, LARGEST])
def test_all_visitors_have_a_limited_number_and_size(
    uploads: Uploads, tmp_path: Path, size: int
) -> None:
    """Whatever cookies somebody invents."""
    body = form(bytes(size))
    statuses = [answer(uploads, body=body, visitor=str(number))[0] for number in range(120)]
    kept = statuses.count(200)
    assert 10 < kept <= 100
    assert statuses == [200] * kept + [503] * (120 - kept)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 20 * LARGEST


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "20000"}, 413),
        ({"content-length": "9" * 30}, 413),
        ({"content-length": ""}, 411),
        ({"content-length": "-1"}, 411),
        ({"content-length": "", "transfer-encoding": "chunked"}, 411),
        ({"transfer-encoding": "chunked"}, 411),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
    ],
    ids=str,
)
def test_what_cannot_be_taken_is_refused_unread(
    uploads: Uploads, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    pieces = [AssertionError("it is not read")]
    assert answer(uploads, body=form(), headers=headers, pieces=pieces)[0] == status
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(bytes(LARGEST + 1)), 413),
        (form(files=2), 400),
        (form(files=0), 400),
        (b"no form", 400),
        (form().replace(b'name="files"', b'name="other"'), 400),
        (form().replace(b'; filename="a.wav"', b""), 400),
    ],
    ids=["large", "two", "none", "no-form", "other", "field"],
)
def test_of_what_is_refused_nothing_stays(
    uploads: Uploads, tmp_path: Path, body: bytes, status: int
) -> None:
    for _ in range(FILES_OF_A_VISITOR + 1):  # nor is it counted
        assert answer(uploads, body=body)[0] == status
    assert not list(tmp_path.iterdir())


def test_of_a_broken_connection_nothing_stays(uploads: Uploads, tmp_path: Path) -> None:
    for _ in range(FILES_OF_A_VISITOR + 1):
        start = {"type": "http.request", "body": form()[:-20], "more_body": True}
        assert answer(uploads, body=form(), pieces=[start])[0] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "..", "../../out.wav", "/etc/out.wav", ".hidden", "a" * 300])
def test_a_file_stays_in_its_folder(uploads: Uploads, tmp_path: Path, name: str) -> None:
    path = upload(uploads, name=name)
    assert path.parent.parent == tmp_path
    assert not path.name.startswith(".")
    assert path.parent.stat().st_mode & 0o777 == 0o700


# Strangers


@pytest.mark.parametrize("path", ["/", UPLOAD, "/gradio_api/queue/join", "/gradio_api/heartbeat/a"])
@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}], ids=str
)
def test_strangers_are_refused_unread(uploads: Uploads, path: str, headers: dict[str, str]) -> None:
    pieces = [AssertionError("it is not read")]
    status, reason = answer(uploads, path, form(), headers=headers, pieces=pieces)
    assert status == 403
    assert "evil.example" in reason


def test_there_are_no_websockets(uploads: Uploads) -> None:
    assert answer(uploads, "/gradio_api/queue/join", kind="websocket")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/deep_link",
        "/gradio_api/proxy=http://localhost:1/",
        "/gradio_api/run/predict",
        "/gradio_api/call/predict",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/upload/",
        "/gradio_api/heartbeat/a/b",
        "/monitoring/summary",
        "/login",
        "//",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_page_does_not_use_does_not_exist(
    uploads: Uploads, path: str, method: str
) -> None:
    assert answer(uploads, path, method=method)[0] == 404


def test_no_address_is_fetched(uploads: Uploads) -> None:
    """Gradio would download what a page's message names as its recording."""
    recording: Any = {"path": "/tmp/a.wav", "meta": {"_type": "gradio.FileData"}}
    for path, status in (("http://localhost:1/a", 403), ("a.wav", 403), ("/tmp/a.wav", 200)):
        recording["path"] = path
        message = {"data": [1, [recording]], "session_hash": "é"}
        body = json.dumps(message).encode()
        given, said = answer(uploads, "/gradio_api/queue/join", body)
        assert given == status
        assert status != 200 or json.loads(said) == message


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'"' + bytes(10_000_000), 413), (b"{", 400), (b"[" * 100_000, 400), (b"\xff", 400)],
    ids=["large", "open", "deep", "bytes"],
)
def test_messages_that_no_page_sends(uploads: Uploads, body: bytes, status: int) -> None:
    assert answer(uploads, "/gradio_api/queue/join", body)[0] == status
