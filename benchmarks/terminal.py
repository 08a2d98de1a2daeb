"""``python -m benchmarks terminal``: what `whisper-max live` shows in a terminal, as a picture."""

from __future__ import annotations

import io
import re
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from compat_tests.support.models import our_model
from whisper_max_backend.assets import SAMPLE
from whisper_max_backend.audio import checked_audio
from whisper_max_backend.cli.live import Screen
from whisper_max_backend.live import LiveTranscriber
from whisper_max_backend.live.samples import RATE

PICTURE = Path(__file__).parents[1] / "docs" / "live.svg"
_SECONDS = 10.0
_WIDTH = 76  # characters


class _Latest:
    """In the place of a terminal: what it shows now."""

    text = Text()

    def update(self, text: Text) -> None:
        self.text = text


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=_SECONDS,
    show_default=True,
    help="Of the sample, after which the terminal is drawn.",
)
def main(seconds: float) -> None:
    """Transcribe the sample as `whisper-max live sample` does, and draw the terminal."""
    heard = checked_audio(str(SAMPLE), RATE)[: round(seconds * RATE)]
    live = LiveTranscriber(our_model("tiny.en"), language="en")
    terminal = _Latest()
    screen = Screen(terminal)
    for start in range(0, len(heard), RATE // 10):
        piece = heard[start : start + RATE // 10]
        screen.show(live.push(piece), (start + len(piece)) / RATE)
    console = Console(record=True, width=_WIDTH, file=io.StringIO())
    console.print(Text("$ whisper-max live sample", style="bold"))
    console.print(terminal.text)
    picture = console.export_svg(title="whisper-max live", unique_id="whisper-max-live")
    # Rich has fonts fetched from a server of others; the reader's own monospace will do.
    PICTURE.write_text(re.sub(r"@font-face {.*?}\s*", "", picture, flags=re.DOTALL))
    print(f"drawn in {PICTURE}")
