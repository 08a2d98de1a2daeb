"""Packed weights that stay in the cache folder, so that the next load maps them.

Packing a large model takes seconds and needs its memory twice. A mapped file costs nothing until
its pages are touched, and processes that map the same one share them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import struct
import time
from functools import partial
from pathlib import Path

import numpy as np
from max.driver import Buffer

from ...system.size_variables import gigabytes
from ...system.unpatched_threads import start_thread
from ..checkpoint.load import Checkpoint
from ..checkpoint.weight_dtypes import Storage
from ..compile import cache
from ..compile.artifacts import source_digests
from ..compile.cpu_target import describe_cpu_target
from .weights import PackedWeights, packed_weights

VARIABLE = "WHISPER_MAX_WEIGHTS_GB"
"""How many gigabytes (10^9 bytes) of packed weights the cache folder keeps; 0 keeps none."""
_MOST_GB = 10.0
_SETTLED_SECONDS = 2.0
"""A file that has changed so recently may change again without a new time."""
_GROUPS = tuple(field.name for field in dataclasses.fields(PackedWeights))
_SIZES = struct.Struct(f"<{len(_GROUPS)}Q")
_ENGINE = Path(__file__).parents[1]

_log = logging.getLogger("whisper_max_backend")


def kept_weights(checkpoint: Checkpoint, storage: Storage, threads: int) -> PackedWeights:
    """As `packed_weights`, from the cache folder if an earlier load has left them there.

    What is packed now is kept for the next load, by a thread of its own. Weights that came from
    memory, or from files that have just been written, are not kept.
    """
    most = gigabytes(VARIABLE, _MOST_GB)
    name = _name(checkpoint, storage) if most else None
    if name is None:
        return packed_weights(checkpoint, storage, threads)
    found = _mapped(name)
    if found is None:
        found = packed_weights(checkpoint, storage, threads)
        with contextlib.suppress(RuntimeError):  # the interpreter's end has no more threads
            start_thread(partial(_keep, name, found, most))
    return found


def _name(checkpoint: Checkpoint, storage: Storage) -> str | None:
    """The file of a model's packed weights; None where they cannot be told from others'."""
    states = checkpoint.file_states
    if not states:
        return None
    newest = max(max(state.st_mtime, state.st_ctime) for state in states)
    if time.time() - newest < _SETTLED_SECONDS:
        return None
    parts = [
        storage.name,
        describe_cpu_target(),
        repr(checkpoint.dimensions),
        *source_digests(_ENGINE / "checkpoint", _ENGINE / "cpu"),
    ]
    for state in states:
        numbers = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
        parts.append(repr(numbers))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return f"{cache.WEIGHTS}-{digest}.bin"


def _mapped(name: str) -> PackedWeights | None:
    """None where there are none, or, as is logged, none that can be used."""
    content = cache.mapped(name)
    if content is None:
        return None
    sizes = _SIZES.unpack(content[-_SIZES.size :].tobytes()) if len(content) >= _SIZES.size else ()
    if len(content) != sum(sizes) + _SIZES.size:
        _log.warning("the packed weights %s are damaged; they are packed again", name)
        return None
    ends = np.cumsum(sizes).tolist()
    groups = zip(_GROUPS, sizes, ends, strict=True)
    return PackedWeights(
        **{group: Buffer.from_numpy(content[end - size : end]) for group, size, end in groups}
    )


def _keep(name: str, weights: PackedWeights, most: int) -> None:
    groups = [memoryview(getattr(weights, group).to_numpy()) for group in _GROUPS]
    sizes = [group.nbytes for group in groups]
    if sum(sizes) > most:
        return
    try:
        cache.keep_parts(name, [*groups, _SIZES.pack(*sizes)])
    except OSError as error:
        _log.info("the packed weights are not kept for the next load: %s", error)
    else:
        cache.limit_weights(most, newest=name)
