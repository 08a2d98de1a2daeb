"""What the tests of the page share."""

from __future__ import annotations

import pytest

from compat_tests.demo.browser import REQUIRED
from compat_tests.support.commands import find_command
from compat_tests.support.models import model_directory, subject


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """The models are compiled before a page waits for them: "auto" is that of the tab Live."""
    for compute_type in ("float32", "auto"):
        subject().WhisperModel(str(model_directory("tiny.en")), "cpu", compute_type=compute_type)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    return find_command("chromium", "chromium-browser", package="chromium", required=REQUIRED)
