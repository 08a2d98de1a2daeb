"""Serves the page until the process is asked to end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ..cli.inputs import SAMPLE
from ..comparison.choices import Choice
from .recording import Limits
from .runs import Workshop

PAGE = Path(__file__).parent


def serve(
    models: Sequence[str],
    choices: Mapping[str, Choice],
    limits: Limits,
    loading: Mapping[str, Any],
    host: str,
    port: int | None,
    share: bool = False,
) -> None:
    """Serve the page; ends with SIGINT or SIGTERM, and its uploads and processes with it.

    Args:
        models: Names or paths that visitors may choose from.
        choices: By label, what they may compare.
        limits: Of their recordings.
        loading: Further arguments of `load_model`.
        host: Address to listen on.
        port: None: the first that is free from 7860 on.
        share: Ask Gradio for a public address, too.

    Raises:
        OSError: The port is taken.
    """
    uploaded = tempfile.mkdtemp(prefix="whisper-max-demo-")
    # Gradio reads these when it is imported, so it is imported after that.
    os.environ["GRADIO_TEMP_DIR"] = uploaded
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio
    from starlette.middleware import Middleware

    from .app import build_page, theme
    from .visitors import Guard, Uploads

    uploads = Uploads()
    workshop = Workshop(limits, loading)
    signal.signal(signal.SIGTERM, _leave)
    try:
        gradio.set_static_paths([SAMPLE])  # served from where it is
        page = build_page(workshop, uploads, models, choices)
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            max_file_size=int(limits.megabytes * 1e6),
            app_kwargs={
                "middleware": [Middleware(Guard, uploads=uploads, public=frozenset({SAMPLE}))]
            },
            theme=theme(),
            css_paths=[PAGE / "page.css"],
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
            show_error=False,
        )
    finally:
        workshop.close()
        shutil.rmtree(uploaded, ignore_errors=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
