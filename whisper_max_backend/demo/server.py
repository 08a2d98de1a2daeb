"""Serves the page until the process is asked to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..assets import SAMPLE
from ..comparison.choices import Choice
from .folder import private_folder
from .recording import Limits
from .runs import Workshop

if TYPE_CHECKING:
    from .speakers import Speakers

PAGE = Path(__file__).parent


def serve(
    models: Sequence[str],
    choices: Mapping[str, Choice],
    limits: Limits,
    loading: Mapping[str, Any],
    host: str,
    port: int | None,
    share: bool = False,
    names: Sequence[str] = (),
) -> None:
    """Serve the page; ends with SIGINT, SIGTERM or SIGHUP, and its uploads and processes with it.

    Args:
        models: Names or paths that visitors may choose from.
        choices: By label, what they may compare.
        limits: Of their recordings.
        loading: Further arguments of `load_model`.
        host: Address to listen on.
        port: None: the first that is free from 7860 on.
        share: Ask Gradio for a public address, too.
        names: Further names of the server, for requests that come through a reverse proxy.

    Raises:
        OSError: The port is taken.
        ValueError: One of the names is none.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with private_folder() as folder:
        # Gradio reads these when it is imported, so it is imported after that.
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        import gradio
        from starlette.middleware import Middleware

        from .addresses import Addresses
        from .app import build_page, theme
        from .uploads import Uploads
        from .visitors import Guard

        addresses = Addresses(host, names)
        largest = int(limits.megabytes * 1e6)
        uploads = Uploads(folder, largest)
        guard = Middleware(Guard, addresses=addresses, uploads=uploads, public=frozenset({SAMPLE}))
        workshop = Workshop(limits, loading)
        gradio.set_static_paths([SAMPLE])  # served from where it is
        speakers = _speakers(models[0], limits, loading)
        page = build_page(workshop, uploads, models, choices, speakers)
        try:
            _, _, public_address = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                max_file_size=largest,
                app_kwargs={"middleware": [guard]},
                theme=theme(),
                css_paths=[PAGE / "page.css"],
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                pwa=False,
                show_error=False,
                prevent_thread_lock=True,
            )
            if public_address:
                addresses.allow(urlsplit(public_address).hostname or "")
            page.block_thread()
        finally:
            page.close(verbose=False)
            workshop.close()
            if speakers is not None:
                speakers.close()


def _speakers(model: str, limits: Limits, loading: Mapping[str, Any]) -> Speakers | None:
    from .speakers import SpeakerLimits, Speakers

    if limits.speakers == 0:
        return None

    def load() -> Any:
        from .. import WhisperModel

        return WhisperModel(model, device="cpu", compute_type="auto", **loading)

    return Speakers(load, SpeakerLimits(limits.speakers, 60 * limits.minutes))


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
