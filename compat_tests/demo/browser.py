"""Starts the Chromium that a visitor of `whisper-max demo` has."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import BrowserContext, Playwright, expect

REQUIRED = os.environ.get("WHISPER_MAX_BROWSER_TESTS") == "required"
SCREENSHOT = os.environ.get("WHISPER_MAX_SCREENSHOT")  # where to leave a picture of the page
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
SECONDS = 1000  # in playwright's milliseconds
_PATIENCE = 120 * SECONDS  # a busy machine is slow to show its results
expect.set_options(timeout=_PATIENCE)


def browser(
    playwright: Playwright, chromium: str, profile: Path, height: int, *flags: str
) -> BrowserContext:
    """A browser that has nothing in common with others, on a screen of `height` pixels."""
    context = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=chromium,
        headless=True,
        args=[*_FLAGS, *flags],
        viewport={"width": 1180, "height": height},
    )
    context.set_default_timeout(_PATIENCE)
    return context
