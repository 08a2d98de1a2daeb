"""What several of the fast tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat_tests.support.decoding_case import DecodingCase, load_case
from compat_tests.support.recordings import SAMPLING_RATE, load, write_wav


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """Two seconds of speech."""
    path = tmp_path / "speech.wav"
    write_wav(path, load("jfk")[: 2 * SAMPLING_RATE])
    return path


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> DecodingCase:
    """A miniature under both decodings."""
    return load_case(tmp_path_factory.mktemp("miniature"), 0)
