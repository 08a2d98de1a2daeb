"""The server of `whisper-max demo` over HTTP, as a hostile neighbour would use it."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from compat_tests.demo.serving import kept, running

pytestmark = pytest.mark.slow

pytest.importorskip("gradio", reason="the page needs Gradio: the extra `web`")

FORM = "multipart/form-data; boundary=limit"
FILE = b'--limit\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
END = b"\r\n--limit--\r\n"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def port(temporary: Path) -> Iterator[int]:
    """Of a server that takes 1 MB."""
    with running(temporary, "--max-upload-mb", "1") as (_, number):
        yield number


def ask(
    port: int, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = HTTPConnection("localhost", port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def upload(port: int, content: bytes, **headers: str) -> tuple[int, str, dict[str, str]]:
    body = FILE + content + END
    return ask(port, "POST", "/gradio_api/upload", body, content_type=FORM, **headers)


def test_an_upload_is_kept_for_its_sender(port: int, temporary: Path) -> None:
    status, body, headers = upload(port, b"sound")
    assert status == 200
    (path,) = json.loads(body)
    assert kept(temporary) == [Path(path)]
    cookie = headers["set-cookie"].partition(";")[0]
    assert ask(port, "GET", f"/gradio_api/file={path}", cookie=cookie)[:2] == (200, "sound")
    assert ask(port, "GET", f"/gradio_api/file={path}")[0] == 404


def test_there_are_no_deep_links(port: int, temporary: Path) -> None:
    before = kept(temporary)
    join = json.dumps({"data": [], "fn_index": 0, "session_hash": "page"})
    said = {"content_type": "application/json"}
    assert ask(port, "POST", "/gradio_api/queue/join", join, **said)[0] == 200
    status, text, _ = ask(port, "GET", "/gradio_api/deep_link?session_hash=page")
    assert (status, text) == (404, "There is no such page.")
    assert kept(temporary) == before


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}], ids=str
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/gradio_api/queue/data?session_hash=page"),
        ("GET", "/gradio_api/heartbeat/page"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/upload"),
    ],
)
def test_strangers_are_refused(
    port: int, temporary: Path, method: str, path: str, headers: dict[str, str]
) -> None:
    before = kept(temporary)
    body = FILE + b"sound" + END if method == "POST" else None
    status, text, _ = ask(port, method, path, body, content_type=FORM, **headers)
    assert status == 403
    assert "evil.example" in text
    assert kept(temporary) == before


def test_a_stranger_s_websocket_is_refused(port: int) -> None:
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
    headers = {**upgrade, "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==", "host": "evil.example"}
    assert ask(port, "GET", "/gradio_api/queue/join", **headers)[0] == 403


def test_what_is_too_large_is_refused_before_it_comes(port: int, temporary: Path) -> None:
    """Only the header of the request is sent."""
    before = kept(temporary)
    for length, status in (("content-length: 2000000", 413), ("transfer-encoding: chunked", 411)):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(
                f"POST /gradio_api/upload HTTP/1.1\r\nhost: localhost:{port}\r\n"
                f"content-type: {FORM}\r\n{length}\r\n\r\n".encode()
            )
            assert int(connection.recv(1000).split()[1]) == status
    assert kept(temporary) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=str)
def test_nothing_outlives_the_server(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as (process, port):
        assert upload(port, b"sound")[0] == 200
        process.send_signal(number)
        process.wait(30)
    assert not list(tmp_path.glob("whisper-max-demo-*"))


def test_what_a_killed_server_leaves_goes_with_the_next(tmp_path: Path) -> None:
    with running(tmp_path) as (process, port):
        assert upload(port, b"sound")[0] == 200
        process.kill()
        process.wait(30)
    assert len(kept(tmp_path)) == 1
    with running(tmp_path):
        assert not kept(tmp_path)
    assert not list(tmp_path.glob("whisper-max-demo-*"))


def test_a_name_of_a_reverse_proxy(tmp_path: Path) -> None:
    with running(tmp_path, "--allow-host", "demo.example") as (_, port):
        headers = {"host": "demo.example", "origin": "https://demo.example"}
        assert upload(port, b"sound", **headers)[0] == 200
        assert upload(port, b"sound", host="evil.example")[0] == 403
