"""Artifacts that a wheel brings along."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from .artifacts import ArtifactSpec, artifact_name, compiled
from .cache import cache_folder


def put(specs: Iterable[ArtifactSpec], folder: Path) -> None:
    """Puts artifacts into a folder, which is made; what the cache holds is copied.

    Raises:
        RuntimeError: One does not compile, or the cache cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        compiled(**spec)
        name = artifact_name(spec["name"], spec["key"], spec["session"])
        kept = cache_folder() / name
        if not kept.is_file():  # the log says why
            raise RuntimeError(f"{kept} is to be copied, but it could not be kept")
        shutil.copyfile(kept, folder / name)
