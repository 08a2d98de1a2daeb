"""The files that transcripts are written to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from faster_whisper.transcribe import Segment, TranscriptionInfo, Word
from hypothesis import given
from hypothesis import strategies as st

from whisper_max_backend import writers

INFO = TranscriptionInfo("en", 1.0, 4000.0, 4000.0, None, None, None)


def segment(start: float, end: float, text: str, **changes: Any) -> Segment:
    values: dict[str, Any] = {
        **{"id": 1, "seek": 0, "tokens": [1, 2], "avg_logprob": -0.5, "compression_ratio": 1.0},
        **{"no_speech_prob": 0.1, "words": None, "temperature": 0.0},
    }
    return Segment(start=start, end=end, text=text, **{**values, **changes})


SEGMENTS = [segment(0.0, 1.5, " Hello there."), segment(3725.25, 3726.0, " A --> B\tC")]


def test_txt() -> None:
    assert writers.txt(SEGMENTS, INFO) == "Hello there.\nA --> B\tC\n"


def test_srt() -> None:
    assert writers.srt(SEGMENTS, INFO) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n"
        "2\n01:02:05,250 --> 01:02:06,000\nA -> B\tC\n\n"
    )


def test_vtt() -> None:
    assert writers.vtt(SEGMENTS, INFO) == (
        "WEBVTT\n\n"
        "00:00.000 --> 00:01.500\nHello there.\n\n"
        "01:02:05.250 --> 01:02:06.000\nA -> B\tC\n\n"
    )


def test_tsv() -> None:
    assert writers.tsv(SEGMENTS, INFO) == (
        "start\tend\ttext\n0\t1500\tHello there.\n3725250\t3726000\tA --> B C\n"
    )


def test_json() -> None:
    words = [Word(start=0.0, end=1.5, word=" Hé", probability=0.9)]
    text = writers.as_json([segment(0.0, 1.5, " Hé", words=words), SEGMENTS[1]], INFO)
    assert "Hé" in text
    content = json.loads(text)
    assert content["text"] == " Hé A --> B\tC"
    assert content["language"] == "en"
    assert content["segments"][0]["words"] == [
        {"start": 0.0, "end": 1.5, "word": " Hé", "probability": 0.9}
    ]
    assert "words" not in content["segments"][1]
    assert content["segments"][1]["tokens"] == [1, 2]


def test_nothing_was_said() -> None:
    written = {name: writer([], INFO) for name, writer in writers.WRITERS.items()}
    assert written["vtt"] == "WEBVTT\n\n"
    assert written["tsv"] == "start\tend\ttext\n"
    assert json.loads(written["json"])["segments"] == []
    assert written["txt"] == written["srt"] == ""


@given(
    st.lists(
        st.tuples(
            st.floats(0, 36_000),
            st.floats(0, 30),
            st.text(st.characters(exclude_categories=("C", "Z")), min_size=1),
        ),
        max_size=5,
    )
)
def test_subtitles_read_back(lines: list[tuple[float, float, str]]) -> None:
    segments = [segment(start, start + length, f" {text}") for start, length, text in lines]
    blocks = writers.srt(segments, INFO).split("\n\n")[:-1]
    assert len(blocks) == len(segments)
    for block, expected in zip(blocks, segments, strict=True):
        _, times, text = block.split("\n")
        assert "-->" not in text
        assert text == expected.text.strip().replace("-->", "->")
        hours, minutes, seconds, milliseconds = map(int, re.split("[:,]", times.split(" --> ")[0]))
        read = 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
        assert read == pytest.approx(expected.start, abs=0.00051)


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    writers.write(path, "first\n")
    writers.write(path, "zweite Zeile: ü\n")
    assert path.read_bytes() == "zweite Zeile: ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_write_into_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        writers.write(tmp_path / "file" / "a.txt", "text")


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        writers.write(tmp_path / "a.txt", "\ud800")
    assert list(tmp_path.iterdir()) == []
