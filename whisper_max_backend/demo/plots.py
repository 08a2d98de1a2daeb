"""The live plots: Gradio's own, drawn in the browser, from tables that grow as a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from .figures import figures_of
from .runs import Run

# Told apart with any colour vision, on white and on black (Okabe and Ito, 2008).
COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
COUNT = 6  # a row and the plots in it
_HEIGHT = 220
_WIDTH = 250
_SIDE = "backend"
_TIME = "seconds"
_HEADROOM = 1.1
_BEHIND = "behind"
_LEAST_DELAY = 2.0  # seconds that the plot shows in any case

_Row = tuple[str | float | None, ...]


def build() -> list[gr.blocks.Block]:
    """A row, hidden as long as there is nothing to draw, and the plots in it: as `draw` fills."""
    with gr.Row(visible=False, elem_id="plots") as row:
        plots = [
            _line("heard", "Audio heard, seconds"),
            _line("memory", "Memory of the process, MB"),
            _line("use", "Use of the processor, %"),
            _bars("RTF", "Real-time factor (lower is better)"),
            _bars("speed-up", "Speed-up over the first"),
        ]
    return [row, *plots]


def _line(name: str, title: str) -> gr.LinePlot:
    return gr.LinePlot(
        x=_TIME,
        y=name,
        color=_SIDE,
        title=title,
        y_title=" ",
        color_title=" ",
        x_lim=[0, None],
        y_lim=[0, None],
        height=_HEIGHT,
        min_width=_WIDTH,
        buttons=[],
    )


def _bars(name: str, title: str) -> gr.BarPlot:
    return gr.BarPlot(
        x=_SIDE,
        y=name,
        color=_SIDE,
        title=title,
        x_title=" ",
        y_title=" ",
        color_title=" ",
        x_axis_labels_visible=False,  # the legend has the names
        y_lim=[0, None],
        height=_HEIGHT,
        min_width=_WIDTH,
        buttons=[],
    )


def build_delays() -> gr.LinePlot:
    """How far behind a live stream is, hidden as long as there is nothing to draw."""
    return gr.LinePlot(
        x=_TIME,
        y=_BEHIND,
        title="Seconds behind",
        x_title="seconds heard",
        y_title=" ",
        x_lim=[0, None],
        y_lim=[0, None],
        height=_HEIGHT,
        buttons=[],
        visible=False,
        elem_id="delays",
    )


def draw_delays(delays: Sequence[tuple[float, float]]) -> gr.LinePlot:
    """How far behind a stream is, in seconds, after so many seconds of it."""
    table = pd.DataFrame(delays, columns=[_TIME, _BEHIND], dtype=float)
    most = max((behind for _, behind in delays), default=0.0)
    return gr.LinePlot(
        table,
        y_lim=[0, max(_LEAST_DELAY, _HEADROOM * most)],
        visible=len(delays) > 1,
    )


def colours(run: Run) -> dict[str, str]:
    """The colour of each side, by label."""
    return dict(zip((side.choice.label for side in run.sides), COLOURS, strict=False))


def draw(run: Run) -> list[Any]:
    """The row and plots of a run, as far as it is."""
    first = run.sides[0]
    heard: list[_Row] = []
    memory: list[_Row] = []
    use: list[_Row] = []
    factors: list[_Row] = []
    speeds: list[_Row] = []
    for side in run.sides:
        label = side.choice.label
        figures = figures_of(side, first, run.duration)
        factors.append((label, figures.real_time_factor))
        speeds.append((label, figures.speed_up))
        heard.append((0.0, 0.0, label))
        heard += [(one.elapsed, one.end, label) for one in side.segments]
        # A plot takes its axes for numbers only if it has rows.
        memory.append((0.0, None, label))
        use.append((0.0, None, label))
        for sample in list(side.meter.samples) if side.meter else ():
            memory.append((sample.seconds, sample.memory / 1e6, label))
            use.append((sample.seconds, sample.cpu * 100, label))
            if sample.gpu is not None:
                use.append((sample.seconds, sample.gpu * 100, f"{label}, GPU"))
    colour = colours(run)
    return [
        gr.Row(visible=True),
        *(
            gr.LinePlot(
                _table(rows, (_TIME, name, _SIDE)), color_map=colour, y_lim=_limits(rows, 1)
            )
            for rows, name in ((heard, "heard"), (memory, "memory"), (use, "use"))
        ),
        *(
            gr.BarPlot(
                _table(rows, (_SIDE, name)),
                color_map=colour,
                sort=list(colour),
                y_lim=_limits(rows, 1),
            )
            for rows, name in ((factors, "RTF"), (speeds, "speed-up"))
        ),
    ]


def _limits(rows: list[_Row], column: int) -> list[float | None]:
    """From zero to a little above the largest value of a column."""
    values = [row[column] for row in rows]
    largest = max((value for value in values if isinstance(value, float)), default=0.0)
    return [0, _HEADROOM * largest if largest > 0 else None]


def _table(rows: list[_Row], columns: tuple[str, ...]) -> pd.DataFrame:
    types = {name: float for name in columns if name != _SIDE}
    return pd.DataFrame(rows, columns=list(columns)).astype(types)
