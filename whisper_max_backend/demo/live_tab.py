"""The tab Live: words while the visitor speaks."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from faster_whisper.tokenizer import _LANGUAGE_CODES

from . import plots, rendering
from .sessions import Sessions, visitor_of
from .speakers import NoRoomError, Speaker, Speakers

_LEAD = """# Whisper, live
Speak, and read along. Words in the usual type stay as they are; those in grey may still change."""
_PRIVACY = """What you say is transcribed on this machine, and not kept. The words are gone when
the page is closed. Nobody else sees them."""
_BEGIN = "Press Start, allow the microphone, and speak."
_MICROPHONE = """
<div class="microphone">
  <button class="start">Start</button>
  <button class="stop" disabled>Stop</button>
  <button class="clear">Clear</button>
  <meter aria-label="Level of the microphone" min="0" max="1" value="0"></meter>
</div>
<p class="problem" role="alert"></p>
"""


class Handlers:
    """What the tab's events do."""

    def __init__(self, speakers: Speakers, sessions: Sessions) -> None:
        self._speakers = speakers
        self._sessions = sessions

    def hear(self, language: str, piece: gr.EventData, request: gr.Request) -> list[Any]:
        """Take a piece of sound from the microphone, and show the words so far.

        `piece` has `number`, `samples`, `rate`, `first` and `last`: see microphone.js. The answer
        to the microphone says whether the piece was taken, and whether more may follow.
        """
        answer = {"number": getattr(piece, "number", 0), "taken": True, "goes_on": False}
        page = self._sessions.of(request)
        visitor = visitor_of(request) or str(request.session_hash)
        try:
            if getattr(piece, "first", False):
                spoken = None if language == "detect" else language
                page.speaker = self._speakers.open(visitor, spoken)
        except NoRoomError as error:
            return [answer, rendering.status(str(error), "bad"), gr.skip(), gr.skip()]
        speaker = page.speaker
        if speaker is None or speaker.visitor != visitor:
            return [answer, rendering.status(_BEGIN, "bad"), gr.skip(), gr.skip()]
        try:
            answer["taken"] = speaker.hear(*_sound(piece), last=bool(getattr(piece, "last", False)))
        except ValueError as error:
            speaker.problem = f"A piece of sound was left out: {error}."
        answer["goes_on"] = speaker.state != "ended"
        return [answer, *_view(speaker)]

    def clear(self, request: gr.Request) -> list[Any]:
        """Forget the words so far; who speaks may go on."""
        speaker = self._sessions.of(request).speaker
        if speaker is None:
            return [rendering.status(_BEGIN), rendering.live(None), plots.draw_delays([])]
        speaker.clear()
        return _view(speaker)


def build(speakers: Speakers, sessions: Sessions) -> None:
    """Fill the tab."""
    handlers = Handlers(speakers, sessions)
    gr.Markdown(_LEAD, elem_classes="lead")
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            language = gr.Dropdown(
                ["detect", *sorted(_LANGUAGE_CODES)],
                value="detect",
                label="Language",
                info="A change counts from the next Start.",
            )
            microphone = gr.HTML(
                html_template=_MICROPHONE,
                js_on_load=(Path(__file__).parent / "microphone.js").read_text(),
                elem_id="microphone",
                apply_default_css=False,
            )
            status = gr.HTML(rendering.status(_BEGIN), elem_id="live-status")
        with gr.Column(scale=5, min_width=280):
            words = gr.HTML(rendering.live(None), elem_id="words", apply_default_css=False)
            delays = plots.build_delays()
    gr.Markdown(_PRIVACY, elem_classes="hint")
    quiet: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_limit": None,
        "api_visibility": "private",
        "trigger_mode": "multiple",  # an answer is there before its event is over
    }
    microphone.hear(handlers.hear, language, [microphone, status, words, delays], **quiet)
    microphone.clear(handlers.clear, None, [status, words, delays], **quiet)


def _sound(piece: gr.EventData) -> tuple[np.ndarray, int]:
    """The samples of a piece, int16 ``[samples]``, and how many a second has.

    Raises:
        ValueError: There are none.
    """
    try:
        return np.frombuffer(base64.b64decode(piece.samples, validate=True), "<i2"), int(piece.rate)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError("it is no sound of the page's microphone") from error


def _view(speaker: Speaker) -> list[Any]:
    return [_status(speaker), rendering.live(speaker), plots.draw_delays(speaker.delays)]


def _status(speaker: Speaker) -> str:
    if speaker.state == "loading":
        return rendering.status(
            "Loading the model (a first time may compile for a minute) …", "busy"
        )
    if speaker.state == "ended":
        return rendering.status(speaker.reason or "Done.", "bad" if speaker.reason else "good")
    heard = f"{speaker.seconds:.0f} s heard, {speaker.behind:.1f} s behind"
    if speaker.state == "ending":
        return rendering.status(f"{heard}: the last words come …", "busy")
    return rendering.status(f"{heard}.", "good")
