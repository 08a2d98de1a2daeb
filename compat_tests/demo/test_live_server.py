"""The tab Live of `whisper-max demo` over HTTP, with the real model and no browser."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.demo.serving import kept, running
from compat_tests.support.recordings import SAMPLING_RATE, load

pytestmark = pytest.mark.slow

pytest.importorskip("gradio", reason="the page needs Gradio: the extra `web`")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def port(temporary: Path) -> Iterator[int]:
    """Of a server where one visitor may speak."""
    with running(temporary, "--max-speakers", "1") as (_, number):
        yield number


class Page:
    """What a visitor's page asks of the server."""

    def __init__(self, port: int, visitor: str) -> None:
        self._port = port
        self._said = {"cookie": f"whisper_max_visitor={visitor}"}
        self._session = f"page-of-{visitor}"
        self._pieces = 0
        config = json.loads(self._ask("GET", "/config"))
        self._hear = next(
            event["id"]
            for event in config["dependencies"]
            if any(name == "hear" for _, name in event["targets"])
        )
        self._heartbeat = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._heartbeat.sendall(
            f"GET /gradio_api/heartbeat/{self._session} HTTP/1.1\r\n"
            f"host: localhost:{port}\r\ncookie: {self._said['cookie']}\r\n\r\n".encode()
        )
        assert self._heartbeat.recv(1000).startswith(b"HTTP/1.1 200")

    def hear(
        self, samples: np.ndarray, rate: int = SAMPLING_RATE, language: str = "en", **also: Any
    ) -> tuple[dict[str, Any], str, str]:
        """The answers to the microphone, on the status line and in the words.

        What is not taken is sent again, as the page does.
        """
        answers = self._hear_once(samples, rate, language, **also)
        while not answers[0]["taken"]:
            time.sleep(0.1)
            answers = self._hear_once(samples, rate, language, **{**also, "first": False})
        return answers

    def _hear_once(
        self, samples: np.ndarray, rate: int, language: str, **also: Any
    ) -> tuple[dict[str, Any], str, str]:
        self._pieces += 1
        piece = {
            "number": self._pieces,
            "samples": base64.b64encode(samples.tobytes()).decode(),
            "rate": rate,
            "first": self._pieces == 1,
            "last": False,
            **also,
        }
        said = {
            "data": [language],
            "event_data": piece,
            "fn_index": self._hear,
            "session_hash": self._session,
        }
        event = json.loads(self._ask("POST", "/gradio_api/queue/join", said))["event_id"]
        stream = self._ask("GET", f"/gradio_api/queue/data?session_hash={self._session}")
        for line in re.findall(r"^data: (.+)$", stream, re.M):
            message = json.loads(line)
            if message["msg"] == "process_completed" and message["event_id"] == event:
                assert message["success"], message
                answer, status, words, _ = message["output"]["data"]
                assert answer["number"] == self._pieces
                return answer, str(status), str(words)
        raise AssertionError(f"no answer in {stream}")

    def close(self) -> None:
        self._heartbeat.close()

    def _ask(self, method: str, path: str, body: Any = None) -> str:
        connection = HTTPConnection("localhost", self._port, timeout=60)
        try:
            said = {**self._said, "content-type": "application/json"}
            connection.request(method, path, body and json.dumps(body), said)
            answer = connection.getresponse()
            content = answer.read().decode()
            assert answer.status == 200, content
            return content
        finally:
            connection.close()


def integers(samples: np.ndarray) -> np.ndarray:
    return (samples * 32767).astype("<i2")


def text(words: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", words).lower().split())


def test_a_visitor_is_transcribed_and_makes_room(port: int, temporary: Path) -> None:
    from av import AudioFrame, AudioResampler

    frame = AudioFrame.from_ndarray(load("jfk")[None], "flt", "mono")
    frame.sample_rate = SAMPLING_RATE
    resampler = AudioResampler("s16p", "mono", 48_000)
    parts = [part.to_ndarray()[0] for part in resampler.resample(frame) + resampler.resample(None)]
    speech = np.concatenate(parts)

    alice = Page(port, "alice")
    committed = ""
    for start in range(0, len(speech), 24_000):
        answer, _, words = alice.hear(speech[start : start + 24_000], 48_000)
        assert answer["goes_on"]
        (now,) = re.findall(r'class="committed"[^>]*>([^<]*)<', words) or [""]
        assert now.startswith(committed), "committed words stay"
        committed = now
        if start == 240_000:
            answer, status, words = alice.hear(speech[:10], 7)
            assert (answer["goes_on"], "left out" in words) == (True, True)
            bob = Page(port, "bob")
            answer, status, _ = bob.hear(integers(load("jfk")[:8000]))
            assert (answer["goes_on"], "No more than 1" in status) == (False, True)
    nothing = np.zeros(0, "<i2")
    while answer["goes_on"]:
        answer, status, words = alice.hear(nothing, 48_000, last=True)
    assert "Done." in status
    assert "ask what you can do for your country" in text(words)
    assert not kept(temporary)
    alice.close()
    bob.close()


def test_closing_a_page_ends_its_stream(port: int) -> None:
    carol, dave = Page(port, "carol"), Page(port, "dave")
    assert carol.hear(integers(load("jfk")[:16_000]))[0]["goes_on"]
    assert not dave.hear(integers(load("jfk")[:16_000]))[0]["goes_on"]
    carol.close()
    until = time.monotonic() + 15  # before it would be idle for too long
    while not dave.hear(integers(load("jfk")[:16_000]), first=True)[0]["goes_on"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    dave.close()


def test_a_language_that_the_model_does_not_know(port: int) -> None:
    erin = Page(port, "erin")
    until = time.monotonic() + 30
    status = "No more"
    while "No more" in status:  # the page before it is still being closed
        assert time.monotonic() < until
        answer, status, _ = erin.hear(integers(load("jfk")[:16_000]), language="de", first=True)
    while answer["goes_on"]:
        answer, status, _ = erin.hear(np.zeros(0, "<i2"), language="de")
    assert "knows English alone" in status
    erin.close()
