"""What a decoded file leaves behind is collected, and no more."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.recordings import audio_file
from whisper_max_backend import audio


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Garbage is collected where a test asks for it only."""
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


class Cyclic:
    """Lives until garbage is collected, if it refers to itself."""


@pytest.mark.parametrize("frozen", [False, True])
def test_decoding_collects_what_it_leaves(no_collections: None, frozen: bool) -> None:
    """The reference's collection after a file does not go through all that a program has."""
    cyclic: Any = Cyclic()
    cyclic.itself = cyclic
    seen = weakref.ref(cyclic)
    if frozen:
        gc.freeze()
    del cyclic
    audio.checked_audio(str(audio_file("jfk.flac")), 16000)
    assert seen() is not None
    assert (gc.get_freeze_count() > 0) == frozen
    gc.unfreeze()
    gc.collect()
    assert seen() is None
