"""The pages that are open: each has a recording, a comparison and live words of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gradio as gr

from ..assets import SAMPLE
from .recording import RefusedRecording
from .runs import Run
from .speakers import Speaker
from .uploads import Uploads
from .visitors import COOKIE


@dataclass
class OpenPage:
    """What an open page has on the server; its history is Gradio's to keep."""

    recording: Path | None = None
    run: Run | None = None
    speaker: Speaker | None = None


class Sessions:
    """By Gradio's random name for a page. The visitor behind a page is known by the cookie."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._open: dict[str, OpenPage] = {}
        self._lock = threading.Lock()

    def of(self, request: gr.Request) -> OpenPage:
        with self._lock:
            return self._open.setdefault(str(request.session_hash), OpenPage())

    def choose(self, request: gr.Request, recording: Path | None) -> None:
        """Take a recording; the one before it is deleted."""
        session = self.of(request)
        before, session.recording = session.recording, recording
        if before is not None and before != recording:
            self._uploads.discard(visitor_of(request), before)

    def open(self, request: gr.Request, recording: Path) -> BinaryIO:
        """A recording that this visitor may use.

        Raises:
            RefusedRecording: It is another's, or is gone.
        """
        if recording == SAMPLE or self._uploads.sent_by(visitor_of(request), recording):
            try:
                return recording.open("rb")
            except OSError:
                pass
        raise RefusedRecording("The recording is no longer here: choose it again.")

    def close(self, request: gr.Request) -> None:
        """The page is closed: nobody waits for its comparison, or needs its recording or words."""
        session = self.of(request)
        if session.run is not None:
            session.run.stop()
        if session.speaker is not None:
            session.speaker.end()
        self.choose(request, None)
        with self._lock:
            self._open.pop(str(request.session_hash), None)


def visitor_of(request: gr.Request) -> str:
    """The browser's cookie; empty if it keeps none."""
    return str(request.cookies.get(COOKIE, ""))
