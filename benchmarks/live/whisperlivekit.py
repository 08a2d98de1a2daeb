"""WhisperLiveKit as a side: its own program on stock faster-whisper, with a Python of its own.

PyTorch comes with it, so it has an environment of its own; `INSTALL` makes it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.new_process import SCRIPTS
from benchmarks.record import ROOT, SCRATCH
from whisper_max_backend.live import LiveWord, Update

NAME = "WhisperLiveKit"
PYTHON = SCRATCH / "whisperlivekit" / "bin" / "python"
"""Where it is looked for."""
_ENVIRONMENT = PYTHON.parents[1].relative_to(ROOT)
INSTALL = (
    f"python -m venv {_ENVIRONMENT} && "
    f"{_ENVIRONMENT}/bin/pip install whisperlivekit==0.2.26 faster-whisper==1.2.1"
)
_END = b"0\n"


class PeerFailed(RuntimeError):
    """It could not load the model, chose another precision, or has ended."""


def why_absent() -> str:
    """Why it cannot run here, with the remedy; "" if it can."""
    return "" if PYTHON.exists() else f"not installed: {INSTALL}"


@contextlib.contextmanager
def opened(
    folder: str, compute_type: str, language: str, chunk: float, detection: bool
) -> Iterator[WhisperLiveKit]:
    """One stream in a process of its own.

    Args:
        folder: Of a model that CTranslate2 reads.
        compute_type: That it must choose, which it does by itself.
        language: That is spoken.
        chunk: Seconds of audio in a message.
        detection: Whether it looks for voices itself, as it does by default.

    Raises:
        PeerFailed: It could not load the model, which standard error says more of, or has chosen
            another precision.
    """
    script = str(SCRIPTS / "live_with_whisperlivekit.py")
    arguments = [folder, language, str(chunk), str(int(detection))]
    with subprocess.Popen(
        [str(PYTHON), "-E", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            live = WhisperLiveKit(process)
            if not live.compute_type.startswith(compute_type):
                raise PeerFailed(f"it chooses {live.compute_type}, and {compute_type} is measured")
            yield live
        finally:
            process.kill()


class WhisperLiveKit:
    """A stream, with the methods of `Live`.

    Attributes:
        compute_type: Of its model, by CTranslate2's name.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._cpu_seconds = 0.0
        self.compute_type: str = self._answer()

    def push(self, samples: np.ndarray) -> Update:
        piece = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        self._stdin.write(b"%d\n" % len(piece) + piece)
        return self._update()

    def finish(self) -> Update:
        self._stdin.write(_END)
        return self._update()

    def cpu_seconds(self) -> float:
        return self._cpu_seconds

    def _update(self) -> Update:
        self._stdin.flush()
        told = self._answer()
        self._cpu_seconds = told["cpu_seconds"]
        tentative = [LiveWord(word, 0.0, 0.0, 0.0) for word in told["tentative"].split()]
        return Update([LiveWord(*word) for word in told["committed"]], tentative)

    def _answer(self) -> Any:
        line = self._stdout.readline()
        if not line:
            raise PeerFailed("WhisperLiveKit has ended; what it said is on standard error")
        return json.loads(line)
