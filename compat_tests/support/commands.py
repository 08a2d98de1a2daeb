"""Programs of the system that some tests drive."""

from __future__ import annotations

import shutil

import pytest


def find_command(*names: str, package: str, required: bool) -> str:
    """The path of the first of these programs that there is.

    Where there is none the test is skipped, or fails if the program is `required`.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"there is no {names[0]}: install one, e.g. apt-get install {package}"
    if required:
        pytest.fail(reason)
    pytest.skip(reason)
