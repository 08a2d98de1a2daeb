"""What every test runs under."""

from __future__ import annotations

import os

import pytest

# Plugins that happen to be installed have no say in the tests; those of the tests set this anew.
os.environ["WHISPER_MAX_PLUGINS"] = ""
# Nothing is asked of the Hugging Face hub: the tests stub it.
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from whisper_max_backend.engine.devices import gpu_count

    if gpu_count() == 0:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no accelerator"))
