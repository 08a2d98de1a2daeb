"""What `whisper-max demo` makes of a visitor's file, which another process decodes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from faster_whisper import decode_audio

from compat_tests.support.recordings import audio_file
from whisper_max_backend.demo import decoding
from whisper_max_backend.demo.recording import (
    Limits,
    RefusedRecording,
    describe_duration,
    read_samples,
)

MINUTE = Limits(minutes=1, megabytes=50)
# What Linux says of a process's own largest memory includes that of the one that started it, except
# in its status file.
MEMORY_OF_READING = """
import json, pathlib, resource, sys
from whisper_max_backend.demo.recording import Limits, RefusedRecording, read_samples
try:
    with open(sys.argv[1], "rb") as file:
        said = len(read_samples(file, Limits(1, 50)))
except RefusedRecording as error:
    said = str(error)
server, decoder = (
    resource.getrusage(whose).ru_maxrss
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
)
if sys.platform == "linux":
    server = int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(json.dumps([said, server, decoder]))
"""


def read(path: Path, limits: Limits = MINUTE) -> np.ndarray:
    with path.open("rb") as file:
        return read_samples(file, limits)


def encode(path: Path, codec: str, rate: int, layout: str) -> Path:
    """Two seconds of noise."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        convert = av.AudioResampler(stream.codec_context.format.name, layout, rate)
        noise = np.random.default_rng(0).normal(
            0, 3000, (1, 2 * rate * len(stream.layout.channels))
        )
        frame = av.AudioFrame.from_ndarray(noise.astype(np.int16), "s16", layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for converted in convert.resample(frame):
            converted.pts = None
            fifo.write(converted)
        for piece in fifo.read_many(stream.codec_context.frame_size or 1024):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    "file",
    [
        "alice.opus",
        "command.flac",
        "a.m4a aac 44100 stereo",
        "a.mp3 libmp3lame 44100 stereo",
        "a.wav pcm_s24le 22050 5.1",
        "a.webm libopus 48000 mono",
        "a.wav pcm_u8 8000 mono",
    ],
)
def test_samples_are_the_reference_s(tmp_path: Path, file: str) -> None:
    name, *form = file.split()
    path = encode(tmp_path / name, form[0], int(form[1]), form[2]) if form else audio_file(name)
    np.testing.assert_array_equal(read(path), decode_audio(str(path)))


def test_what_comes_before_damage_is_read(tmp_path: Path) -> None:
    content = bytearray(audio_file("command.flac").read_bytes())
    content[len(content) // 2 :][:2000] = bytes(2000)
    damaged = tmp_path / "damaged.flac"
    damaged.write_bytes(content)
    np.testing.assert_array_equal(read(damaged), decode_audio(str(damaged)))


def test_the_server_opens_no_file(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(av, "open")
    assert len(read(wav)) == 2 * 16_000


def test_a_recording_as_long_as_the_limit(wav: Path) -> None:
    limits = Limits(minutes=2 / 60, megabytes=1)
    with wav.open("rb") as file:
        first, again = (read_samples(file, limits) for _ in range(2))
    assert len(first) == len(again) == 2 * 16_000


def test_a_longer_one_is_refused_with_a_remedy(wav: Path) -> None:
    with pytest.raises(RefusedRecording, match="at most 1.0 s.*cut it"):
        read(wav, Limits(minutes=1 / 60, megabytes=1))


def test_its_header_may_say_what_it_likes(wav: Path) -> None:
    """The length of a WAV file's data, 4 bytes at 40, does not hide what follows."""
    content = bytearray(wav.read_bytes())
    content[40:44] = bytes(4)
    wav.write_bytes(content)
    with pytest.raises(RefusedRecording):
        read(wav, Limits(minutes=1 / 60, megabytes=1))


@pytest.fixture
def hour(tmp_path: Path) -> Path:
    """An hour of silence of which neither the header nor a packet tells how long it is."""
    path = tmp_path / "hour.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("alac", rate=8000, layout="mono")
        length = stream.codec_context.frame_size or 4096
        silence = av.AudioFrame.from_ndarray(np.zeros((1, length), np.int16), "s16p", "mono")
        silence.sample_rate = 8000
        content = b"".join(map(bytes, stream.encode(silence)))
        assert content
        for _ in range(3600 * 8000 // length):
            packet = av.Packet(content)
            packet.stream = stream
            packet.pts = packet.dts = packet.duration = 0
            container.mux(packet)
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        assert sum(packet.duration or 0 for packet in packets) == 0
    return path


def test_a_file_that_hides_its_length_takes_no_memory(hour: Path) -> None:
    """Decoding stops at the limit."""
    command = [sys.executable, "-c", MEMORY_OF_READING, str(hour)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
    said, server, decoder = json.loads(done.stdout)
    assert "at most 1 min are taken" in str(said)
    megabyte = 1_000_000 if sys.platform == "darwin" else 1000
    assert server / megabyte < 250
    assert decoder / megabyte < 250


def test_a_low_sampling_rate_becomes_no_flood(tmp_path: Path) -> None:
    """5 kB at a sample a second are 83 minutes, which would be 320 MB."""
    path = tmp_path / "slow.wav"
    form = struct.pack("<IHHIIHH", 16, 1, 1, 1, 1, 1, 8)
    data = b"data" + struct.pack("<I", 5000) + bytes([128]) * 5000
    path.write_bytes(b"RIFF" + struct.pack("<I", 28 + len(data)) + b"WAVEfmt " + form + data)
    with pytest.raises(RefusedRecording, match="at most 1 min"):
        read(path)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("ffconcat version 1.0\nfile {}\n", "list.ffconcat"),
        (
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
            "list.m3u8",
        ),
    ],
)
def test_a_playlist_opens_nothing(wav: Path, content: str, name: str) -> None:
    """Neither another visitor's recording nor an address in the server's own net."""
    path = wav.with_name(name)
    path.write_text(content.format(wav.name))
    with pytest.raises(RefusedRecording, match="cannot be read"):
        read(path)


def test_what_is_no_recording_is_refused(wav: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"this is no sound" * 100)
    with pytest.raises(RefusedRecording, match="cannot be read as audio"):
        read(noise)
    noise.write_bytes(wav.read_bytes()[:44])
    with pytest.raises(RefusedRecording):
        read(noise)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's memory")
def test_a_decoder_that_asks_for_too_much_is_refused(
    wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is limited, so that one that is tricked into more fails alone."""
    hungry = "-c", f"import {decoding.__name__} as d; d._limit_resources(60); bytes(1 << 30)"
    run = subprocess.run

    def run_hungry(command: list[str], **options: object) -> object:
        return run([sys.executable, *hungry], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run_hungry)
    with pytest.raises(RefusedRecording, match="decoder failed"):
        read(wav)


def test_a_decoder_that_hangs_is_refused(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "patience", lambda most_seconds: 0.0)
    with pytest.raises(RefusedRecording, match="takes too long"):
        read(wav)


@pytest.mark.parametrize(
    ("seconds", "words"), [(11, "11.0 s"), (60, "1 min"), (125.4, "2 min 5 s"), (3599.9, "60 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert describe_duration(seconds) == words
