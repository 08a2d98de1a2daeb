"""`whisper-max compare`, as people run it: real backends in processes of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.models import model_directory, our_transcription, reference_transcription
from compat_tests.support.recordings import audio_file

pytestmark = pytest.mark.slow
COMMAND = "from whisper_max_backend.cli import main; main()"
SAMPLE = str(audio_file("jfk.flac"))


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, "compare", "--model", str(model_directory("tiny.en"))]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600)


def text_of(transcription: Any) -> str:
    return "".join(segment.text for segment in transcription.segments).strip()


def test_both_backends_on_the_sample(tmp_path: Path) -> None:
    page, kept = tmp_path / "report.html", tmp_path / "report.json"
    options = ("-b", "ctranslate2:float32", "-b", "max:float32", "--temperature", "0")
    output = ("--json", str(kept), "--html", str(page), "--rounds", "2")
    result = compare(SAMPLE, *options, *output)
    assert result.returncode == 0, result.stderr
    assert "max · float32" in result.stdout
    (recording,) = json.loads(kept.read_text())["recordings"]
    stock, ours = recording["sides"]
    expected = reference_transcription("tiny.en", "jfk", temperature=0.0)
    assert stock["text"] == text_of(expected)
    assert ours["text"] == text_of(our_transcription("tiny.en", "jfk", temperature=0.0))
    assert stock["speed_up"] == 1
    for side in (stock, ours):
        assert side["problem"] is None
        assert len(side["seconds"]) == len(side["first_text_seconds"]) == 2
        assert side["real_time_factor"] == pytest.approx(
            sum(side["seconds"]) / 2 / recording["seconds"]
        )
        assert side["start_seconds"] > 0
        assert side["peak_memory"] > 50e6, "a process with the model takes more than that"
        assert side["cpu"] > 0
    assert ours["word_error_rate"] == 0
    written = page.read_text()
    assert "<svg" in written
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", written), "it needs nothing else"
    assert expected.segments[0].text.split()[-1] in written


def test_a_transcript_and_a_side_that_fails(tmp_path: Path) -> None:
    transcript = tmp_path / "talk.txt"
    transcript.write_text("and so my fellow martians")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    result = compare(
        *(SAMPLE, str(broken), "--transcript", str(transcript), "--transcript", str(transcript)),
        *("-b", "max:float32", "--rounds", "1", "--json", "-"),
    )
    assert result.returncode == 1
    assert f"{broken}: " in result.stderr
    (recording,) = json.loads(result.stdout)["recordings"]
    (side,) = recording["sides"]
    assert side["word_error_rate"] > 1, "most words are not in the transcript"
    assert any("martians" in one["reference"] for one in side["differences"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-b", "nobody"), "There is no backend 'nobody'"),
        (("-b", "max:int3"), "has no 'max:int3' here"),
        (("--transcript", SAMPLE, "--transcript", SAMPLE), "1 recordings and 2 transcripts"),
    ],
)
def test_what_cannot_be_compared(arguments: tuple[str, ...], message: str) -> None:
    result = compare(SAMPLE, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_does_not_exist(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, "compare", SAMPLE, "-b", "max:float32"]
    result = subprocess.run(
        [*command, "--model", str(tmp_path), "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert "model" in result.stdout
    assert "Traceback" not in result.stdout
