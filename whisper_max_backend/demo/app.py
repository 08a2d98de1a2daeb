"""The page: what is on it, and what its events do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from faster_whisper.tokenizer import _LANGUAGE_CODES

from ..assets import SAMPLE
from ..comparison.choices import Choice, first_selection
from . import live_tab, plots, rendering
from .decoding import SAMPLING_RATE
from .history import Record, records_of
from .recording import Limits, RefusedRecording, describe_duration, read_samples
from .runs import Run, Workshop
from .sessions import Sessions
from .speakers import Speakers
from .turns import LineFullError
from .uploads import Uploads

MOST_SIDES = len(plots.COLOURS)
_LONGEST_HISTORY = 100  # records
_REFRESH_SECONDS = 0.4
_REDRAW_SECONDS = 2.0  # plots keep a browser busy, perhaps on the processor that is measured
_STOP_SECONDS = 5

_LEAD = """# Whisper, side by side
One recording, several backends, on this machine. They run **one after another** and never at the
same time, each in a process of its own with the model loaded before the clock starts, so that the
figures are fair. The backend chosen first is the one that the others are compared with."""
_PRIVACY = """Recordings stay on this machine, and are deleted when another is chosen or the page is
closed, and an hour after they came in any case. Nobody else sees them, or the texts."""


class _Handlers:
    """What the page's events do."""

    def __init__(
        self,
        workshop: Workshop,
        sessions: Sessions,
        choices: Mapping[str, Choice],
        speakers: Speakers | None,
    ) -> None:
        self._workshop = workshop
        self._sessions = sessions
        self._choices = choices
        self._speakers = speakers

    def choose(self, recording: str | None, request: gr.Request) -> str:
        """A recording was chosen, or taken away: look at it at once."""
        path = Path(recording) if recording else None
        self._sessions.choose(request, path)
        if path is None:
            return rendering.status("Choose a recording, then press Compare.")
        try:
            with self._sessions.open(request, path) as file:
                seconds = len(read_samples(file, self._workshop.limits)) / SAMPLING_RATE
        except RefusedRecording as error:
            return rendering.status(str(error), "bad")
        return rendering.status(f"{path.name}, {describe_duration(seconds)}: press Compare.")

    def compare(
        self,
        recording: str | None,
        model: str,
        labels: list[str],
        language: str,
        beam_size: int,
        vad_filter: bool,
        records: list[Record],
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Run a comparison, and show it as it goes."""
        session = self._sessions.of(request)
        if session.run is not None:
            session.run.stop()
        began = time.monotonic()
        options = {
            "language": None if language == "detect" else language,
            "beam_size": beam_size,
            "vad_filter": vad_filter,
        }
        try:
            if not recording:
                raise RefusedRecording("There is no recording yet: choose one, or the sample.")
            if len(labels) < 2:
                raise RefusedRecording("Choose at least two backends to compare.")
            choices = [self._choices[label] for label in labels]
            path = Path(recording)
            file = self._sessions.open(request, path)
            session.run = run = Run(self._workshop, path.name, file, model, choices, options)
        except (RefusedRecording, LineFullError) as error:
            yield _view(rendering.status(str(error), "bad"))
            return
        redraw = began
        while not run.wait(_REFRESH_SECONDS):
            drawn = None
            if time.monotonic() >= redraw:
                drawn, redraw = plots.draw(run), time.monotonic() + _REDRAW_SECONDS
            yield _view(rendering.run_status(run), run, drawn)
        disturbed = self._speakers is not None and self._speakers.last_heard > began
        status = rendering.run_status(run, disturbed)
        kept = [*records, *records_of(run)][-_LONGEST_HISTORY:]
        yield _view(status, run, plots.draw(run), kept)

    def stop(self, request: gr.Request) -> None:
        """End the comparison of this page."""
        run = self._sessions.of(request).run
        if run is not None:
            run.stop()
            run.wait(_STOP_SECONDS)

    def close(self, request: gr.Request) -> None:
        """The page was closed or loaded anew."""
        self._sessions.close(request)


def build_page(
    workshop: Workshop,
    uploads: Uploads,
    models: Sequence[str],
    choices: Mapping[str, Choice],
    speakers: Speakers | None,
) -> gr.Blocks:
    """The page, not yet served.

    Args:
        workshop: Runs the comparisons.
        uploads: Knows whose a recording is.
        models: Names or paths that visitors may choose from.
        choices: By label, what they may compare.
        speakers: Of them, who speak; None: nobody may.
    """
    sessions = Sessions(uploads)
    handlers = _Handlers(workshop, sessions, choices, speakers)
    page: gr.Blocks
    with gr.Blocks(title="Whisper, side by side", analytics_enabled=False) as page:
        with gr.Tab("Compare"):
            _build_comparison(handlers, workshop.limits, models, choices)
        if speakers is not None:
            with gr.Tab("Live", elem_id="live"):
                live_tab.build(speakers, sessions)
        page.unload(handlers.close)
    return page


def _build_comparison(
    handlers: _Handlers, limits: Limits, models: Sequence[str], choices: Mapping[str, Choice]
) -> None:
    gr.Markdown(_LEAD, elem_classes="lead")
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            recording = gr.Audio(
                label=f"Recording, up to {limits.minutes:g} min and {limits.megabytes:g} MB",
                sources=["upload", "microphone"],
                type="filepath",
                elem_id="recording",
                editable=False,
                buttons=[],
            )
            sample = gr.Button("Use the sample: 11 s of speech", size="sm", elem_id="sample")
        with gr.Column(scale=4, min_width=300):
            sides = gr.Dropdown(
                list(choices),
                value=first_selection(choices),
                multiselect=True,
                max_choices=MOST_SIDES,
                label="Backends and precisions",
                info="Two or more; the first is the one compared with.",
                elem_id="choices",
            )
            model = gr.Dropdown(
                list(models), value=models[0], label="Model", visible=len(models) > 1
            )
            with gr.Accordion("Options", open=False):
                language = gr.Dropdown(
                    ["detect", *sorted(_LANGUAGE_CODES)],
                    value="detect",
                    label="Language",
                )
                beam_size = gr.Slider(1, 10, value=5, step=1, label="Beam size")
                vad_filter = gr.Checkbox(False, label="Leave out what is no speech (VAD)")
            with gr.Row():
                compare = gr.Button("Compare", variant="primary", elem_id="compare")
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
    status = gr.HTML(rendering.status("Choose a recording, then press Compare."), elem_id="status")
    texts = gr.HTML(elem_id="sides", apply_default_css=False)
    drawn = plots.build()
    records = gr.State([])
    gr.Markdown("### History")
    history = gr.HTML(rendering.history([]), elem_id="history", apply_default_css=False)
    gr.Markdown(_PRIVACY, elem_classes="hint")

    # Gradio waits with one event for another only where told to: the line is the workshop's.
    quiet: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_limit": None,
        "api_visibility": "private",
    }
    sample.click(lambda: str(SAMPLE), outputs=recording, **quiet)
    recording.change(handlers.choose, recording, status, **quiet)
    compare.click(
        handlers.compare,
        [recording, model, sides, language, beam_size, vad_filter, records],
        [status, texts, *drawn, compare, stop, records, history],
        **quiet,
    )
    stop.click(handlers.stop, **quiet)


def theme() -> gr.Theme:
    """Gradio's own, with fonts that every machine has."""
    return gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )


def _view(
    status: str,
    run: Run | None = None,
    drawn: list[Any] | None = None,
    records: list[Record] | None = None,
) -> list[Any]:
    """What the event `compare` shows: the run, its plots if drawn, and at its end the history."""
    busy = run is not None and records is None
    return [
        status,
        rendering.sides(run) if run else gr.skip(),
        *(drawn or [gr.skip()] * plots.COUNT),
        gr.Button(interactive=not busy),
        gr.Button(interactive=busy),
        gr.skip() if records is None else records,
        gr.skip() if records is None else rendering.history(records),
    ]
