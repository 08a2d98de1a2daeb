"""The bar of the command `transcribe`."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faster_whisper.transcribe import Segment

from compat_tests.support.parrot import Parrot
from whisper_max_backend.cli import main
from whisper_max_backend.cli.inputs import expand

transcribe_module = sys.modules[main.commands["transcribe"].callback.__module__]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, output = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        with transcribe_module._progress("a [b].wav") as show:
            show(total=10.0)
            print("a segment")
            show(completed=5.0)
        with transcribe_module._progress("silence.wav") as show:
            show(total=0.0)
            show(completed=0.0)
    assert "a [b].wav" in errors.getvalue()
    assert "50%" in errors.getvalue()
    assert output.getvalue() == "a segment\n", "what goes to a file is not drawn over"


def test_no_progress_elsewhere() -> None:
    errors = io.StringIO()
    with (
        contextlib.redirect_stderr(errors),
        transcribe_module._progress("a.wav") as show,
    ):
        show(total=10.0, completed=5.0)
    assert errors.getvalue() == ""


class TellingParrot(Parrot):
    """Tells how far it is."""

    def transcribe(self, audio: str, *, progress: Any = None, **options: Any) -> Any:
        segments, info = super().transcribe(audio, **options)

        def told() -> Iterator[Segment]:
            progress(0.25)
            yield from segments

        return told(), info


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (TellingParrot(), [{"total": 4.0}, {"completed": 0.25}]),
        (Parrot(), [{"total": 4.0}, {"completed": 1.5}, {"completed": 3.5}]),
    ],
)
def test_progress_of_a_model(
    model: Parrot, expected: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the model itself if it tells, else from its segments."""
    shown: list[dict[str, float]] = []
    bar = contextlib.nullcontext(lambda **given: shown.append(given))
    monkeypatch.setattr(transcribe_module, "_progress", lambda name: bar)
    (tmp_path / "a.wav").touch()
    inputs = list(expand([str(tmp_path / "a.wav")]))
    assert transcribe_module._transcribe_all(model, inputs, {}, (), Path(), True) == []
    assert shown == expected
