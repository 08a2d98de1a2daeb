"""The Wyoming server, asked by the protocol's own client over sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from compat_tests.support.models import model_directory, our_model
from compat_tests.support.recordings import SAMPLING_RATE, load
from compat_tests.test_live import alike, offline
from whisper_max_backend.cli import main

pytest.importorskip("wyoming", reason="wyoming is not installed (the extra wyoming)")

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioStop
from wyoming.client import AsyncTcpClient, AsyncUnixClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.server import AsyncUnixServer

from compat_tests.support.wyoming import ask, chunks, pcm, send, start, until
from whisper_max_backend.adapters import wyoming as adapter
from whisper_max_backend.adapters.wyoming import Service, handlers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 120.0
"""That a client waits for an answer, at most."""


class Served:
    """A server in this process."""

    def __init__(self, path: Path, server: AsyncUnixServer) -> None:
        self._path = path
        self.server = server

    def client(self) -> AsyncUnixClient:
        return AsyncUnixClient(self._path, read_timeout=SECONDS)


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Served]:
    path = folder / "socket"
    server = AsyncUnixServer(path)
    await server.start(handlers(Service(our_model("base"), "base", **options)))
    try:
        yield Served(path, server)
    finally:
        await server.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 300))


def test_words_come_while_audio_is_sent(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as served, served.client() as client:
            audio = list(chunks(pcm(load("jfk"))))
            await send(client, Transcribe(language="en").event(), start(), *audio[:70])
            early = await until(client, TranscriptChunk)
            assert [event.type for event in early] == ["transcript-start", "transcript-chunk"]
            assert TranscriptStart.from_event(early[0]).language == "en"
            await send(client, *audio[70:], AudioStop().event())
            events = early + await until(client, TranscriptStop)
            *parts, whole, stop = events[1:]
            texts = [TranscriptChunk.from_event(event).text for event in parts]
            assert TranscriptStop.is_type(stop.type)
            assert Transcript.from_event(whole).text == "".join(texts) == "".join(texts).strip()
            assert alike("".join(texts), offline("jfk")) > 0.85

    run(test())


def test_what_the_server_tells_of_itself(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as served, served.client() as client:
            await send(client, Describe().event())
            (event,) = await until(client, Info)
            (program,) = Info.from_event(event).asr
            assert program.supports_transcript_streaming
            (model,) = program.models
            assert model.name == "base"
            assert {"en", "fr", "de"} < set(model.languages)

    run(test())


def test_several_requests_on_a_connection(tmp_path: Path) -> None:
    """In languages that are named by a region, by a default, or not at all."""

    async def test() -> None:
        async with serving(tmp_path, language="fr") as served, served.client() as client:
            assert alike(await ask(client, load("jfk"), "en-GB"), offline("jfk")) > 0.85
            french = await ask(client, load("french"))
            assert alike(french, offline("french", language="fr")) > 0.7
            assert await ask(client, load("jfk")[:0]) == ""
            await send(client, AudioStop().event())
            events = await until(client, TranscriptStop)
            assert [event.type for event in events[:-1]] == ["transcript-start", "transcript"]

    run(test())


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 2)])
def test_other_rates(tmp_path: Path, rate: int, channels: int) -> None:
    from av import AudioFrame, AudioResampler

    frame = AudioFrame.from_ndarray(load("jfk")[None], "flt", "mono")
    frame.sample_rate = SAMPLING_RATE
    resampler = AudioResampler("s16", "mono" if channels == 1 else "stereo", rate)
    parts = [part.to_ndarray() for part in resampler.resample(frame) + resampler.resample(None)]
    audio = np.concatenate(parts, axis=1).tobytes()

    async def test() -> None:
        async with serving(tmp_path, language="en") as served, served.client() as client:
            await send(client, *chunks(audio, rate, channels), AudioStop().event())
            *_, whole, _ = await until(client, TranscriptStop)
            assert alike(Transcript.from_event(whole).text, offline("jfk")) > 0.85

    run(test())


def test_a_start_in_the_middle_begins_anew(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, language="en") as served, served.client() as client:
            await send(client, start(), *chunks(pcm(load("austen"))), start())
            await send(client, *chunks(pcm(load("jfk"))), AudioStop().event())
            *_, whole, _ = await until(client, TranscriptStop)
            assert alike(Transcript.from_event(whole).text, offline("jfk")) > 0.85

    run(test())


def line(**event: Any) -> bytes:
    return json.dumps(event).encode() + b"\n"


def audio_line(audio: bytes, **more: Any) -> bytes:
    data = {"rate": 16000, "width": 2, "channels": 1, **more}
    return line(type="audio-chunk", data=data, payload_length=len(audio)) + audio


BAD = {
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "no Wyoming event"),
    "binary": (bytes(range(256)) + b"\n", "no Wyoming event"),
    "a long line": (b"x" * 200_000, "no Wyoming event"),
    "a list": (b"[1, 2]\n", "no Wyoming event"),
    "no type": (line(data={}), "no Wyoming event"),
    "a length that is text": (line(type="audio-chunk", payload_length="9"), "no Wyoming event"),
    "too long": (line(type="audio-chunk", payload_length=1 << 40), "more than 8 MB"),
    "deep": (b"[" * 60_000 + b"\n", "no Wyoming event"),
    "no rate": (line(type="audio-chunk", data={"width": 2, "channels": 1}), "'rate'"),
    "data that is a list": (line(type="audio-chunk", data=[1]), "not complete"),
    "half a sample": (audio_line(b"abc"), "3 bytes"),
    "floats": (audio_line(b"\0\0\xc0\x7f" * 99, width=4), "4 bytes a sample"),
    "no channel": (audio_line(b"\0\0", channels=0), "0 channels"),
    "many channels": (audio_line(b"\0\0" * 99, channels=99), "at most 16 channels"),
    "an odd rate": (audio_line(b"\0\0", rate=3), "3 Hz"),
    "an unknown language": (
        line(type="transcribe", data={"language": "xx"}) + line(type="audio-stop"),
        "language 'xx'",
    ),
}


def test_bad_clients_are_told_and_left_and_others_go_on(tmp_path: Path) -> None:
    async def misbehave(served: Served, content: bytes, words: str) -> None:
        async with served.client() as client:
            assert client._writer is not None
            client._writer.write(content)
            events = await until(client, Error)
            assert events, words
            assert words in Error.from_event(events[-1]).text
            assert await client.read_event() is None, "the connection is closed"

    async def test() -> None:
        async with serving(tmp_path, language="en") as served, served.client() as good:
            audio = list(chunks(pcm(load("jfk"))))
            await send(good, start(), *audio[:50])
            for content, words in BAD.values():
                await misbehave(served, content, words)
            await send(good, *audio[50:], AudioStop().event())
            *_, whole, _ = await until(good, TranscriptStop)
            assert alike(Transcript.from_event(whole).text, offline("jfk")) > 0.85

    run(test())


def test_a_client_that_goes_away(tmp_path: Path) -> None:
    """While its audio is decoded, and in the middle of an event."""

    async def test() -> None:
        async with serving(tmp_path, language="en") as served:
            for rest in (b"", audio_line(b"\0\0" * 100)[:-50], b'{"type": "audio-'):
                async with served.client() as gone:
                    await send(gone, start(), *chunks(pcm(load("austen"))))
                    assert gone._writer is not None
                    gone._writer.write(rest)
            async with served.client() as client:
                assert alike(await ask(client, load("jfk")), offline("jfk")) > 0.85
            while served.server._handlers:  # until `run` has had enough
                await asyncio.sleep(0.01)

    run(test())


def test_a_client_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a request it is left; before one it may wait."""
    monkeypatch.setattr(adapter, "IDLE_SECONDS", 0.5)

    async def test() -> None:
        async with serving(tmp_path, language="en") as served, served.client() as waiting:
            async with served.client() as silent:
                await send(silent, start(), *chunks(pcm(load("jfk")[:8000])))
                *_, error = await until(silent, Error)
                assert "nothing came" in Error.from_event(error).text
                assert await silent.read_event() is None
            assert alike(await ask(waiting, load("jfk")), offline("jfk")) > 0.85

    run(test())


def test_a_client_that_takes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "IDLE_SECONDS", 0.5)

    async def test() -> None:
        async with serving(tmp_path, language="en") as served:
            greedy = served.client()
            await greedy.connect()
            with pytest.raises(ConnectionError):
                await flood(greedy)
            async with served.client() as client:
                assert alike(await ask(client, load("jfk")), offline("jfk")) > 0.85

    async def flood(client: Any) -> None:
        while True:
            await client.write_event(Describe().event())

    run(test())


def test_clients_at_once(tmp_path: Path) -> None:
    """Each has its own text, and who asks something small does not wait for them."""
    names = ("jfk", "austen", "beckett")

    async def test() -> None:
        async with serving(tmp_path, language="en") as served:

            async def text(name: str) -> str:
                async with served.client() as client:
                    return await ask(client, load(name))

            asked = [asyncio.create_task(text(name)) for name in names]
            async with served.client() as client:
                await send(client, Describe().event())
                assert await until(client, Info)
            assert not any(task.done() for task in asked)
            for name, found in zip(names, await asyncio.gather(*asked), strict=True):
                assert alike(found, offline(name)) > 0.8, found

    run(test())


def test_a_burst_waits_in_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is faster than the model is slowed down, and nothing of it is lost."""
    monkeypatch.setattr(adapter, "MOST_SECONDS_WAITING", 32)
    names = ("austen", "jfk", "beckett", "austen")
    speech = np.concatenate([load(name) for name in names])
    waiting: list[float] = []

    async def test() -> None:
        async with serving(tmp_path, language="en") as served, served.client() as client:
            asked = asyncio.create_task(ask(client, speech))
            while not asked.done():
                for handler in served.server._handlers.values():
                    assert isinstance(handler, adapter.LiveHandler)
                    if handler._stream is not None:
                        waiting.append(handler._stream.waiting)
                await asyncio.sleep(0.01)
            assert alike(await asked, "".join(map(offline, names))) > 0.8

    run(test())
    assert 30 < max(waiting) < 33


def test_a_request_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory is left")

    async def test() -> None:
        async with serving(tmp_path, language="en") as served:
            with monkeypatch.context() as patch:
                patch.setattr("whisper_max_backend.live.LiveTranscriber.push", fail)
                async with served.client() as client:
                    await send(client, start(), *chunks(pcm(load("jfk"))), AudioStop().event())
                    *_, error = await until(client, Error)
                    assert "the request failed: no memory" in Error.from_event(error).text
                    assert await client.read_event() is None
            async with served.client() as client:
                assert alike(await ask(client, load("jfk")), offline("jfk")) > 0.85

    run(test())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_command() -> None:
    port = free_port()
    command = [sys.executable, "-m", "whisper_max_backend", "wyoming", "--language", "en"]
    command += ["--uri", f"tcp://127.0.0.1:{port}", "--model", str(model_directory("tiny.en"))]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)

    async def ask_it() -> str:
        while process.poll() is None:
            try:
                async with AsyncTcpClient("127.0.0.1", port, read_timeout=SECONDS) as client:
                    return await ask(client, load("jfk"), "en")
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)
        raise AssertionError("it has ended")

    try:
        text = asyncio.run(asyncio.wait_for(ask_it(), 300))
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert alike(text, offline("jfk", "tiny.en")) > 0.8
    assert f"listens on tcp://127.0.0.1:{port}" in told
    assert process.returncode == 0, told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--uri", "http://127.0.0.1:1"], "no address"),
        (["--uri", "unix://socket"], "no address"),
        (["--uri", "tcp://127.0.0.1"], "A port must be specified"),
        (["--uri", "tcp://127.0.0.1:99999"], "0-65535"),
        (["--language", "xx"], "'xx'"),
        (["--model", "no/such/model", "--local-files-only"], "no/such/model"),
    ],
)
def test_the_command_refuses(arguments: list[str], words: str) -> None:
    model = ["--model", str(model_directory("tiny.en"))]
    result = CliRunner().invoke(main, ["wyoming", *model, *arguments])
    assert result.exit_code == 1, result.output
    assert words in result.stderr


def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        model = ["--model", str(model_directory("tiny.en"))]
        result = CliRunner().invoke(main, ["wyoming", *model, "--uri", uri])
    assert result.exit_code == 1, result.output
    assert "address already in use" in result.stderr
