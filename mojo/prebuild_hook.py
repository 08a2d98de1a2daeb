"""Puts compiled graphs into the wheel, so that an installed wheel compiles nothing.

Only where ``WHISPER_MAX_PREBUILD`` asks for it: ``all`` CPUs, or processors as they are named in
``whisper_max_backend/engine/compile/cpu_target.py`` and architectures of GPUs such as ``sm_90``,
separated by commas. ``WHISPER_MAX_PREBUILD_MODELS`` names the models whose graphs GPUs get, of
those in ``whisper_max_backend/engine/checkpoint/dimensions.py``; without it they get all. The
project must then be importable where the wheel is built (``hatchling build``, or without build
isolation).
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "WHISPER_MAX_PREBUILD"
_GPUS = ("sm_", "gfx")
# Of the runtime that loads the artifacts.
_TAG = f"py3-none-manylinux_2_34_{platform.machine()}"


class PrebuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds ``whisper_max_backend/prebuilt`` to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into a temporary folder and have its files included."""
        asked = os.environ.get(VARIABLE, "")
        if not asked or version == "editable":
            return
        sys.path.insert(0, self.root)
        from whisper_max_backend.engine.compile.cpu_target import TARGETS
        from whisper_max_backend.engine.cpu import prebuild as cpu
        from whisper_max_backend.engine.gpu import prebuild as gpu

        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        targets = [
            target for one in asked.split(",") for target in (TARGETS if one == "all" else [one])
        ]
        cpu.prebuild(folder, [target for target in targets if not target.startswith(_GPUS)])
        models = [name for name in os.environ.get(f"{VARIABLE}_MODELS", "").split(",") if name]
        for target in targets:
            if target.startswith(_GPUS):
                gpu.prebuild(folder, target, models)
        build_data["tag"] = _TAG
        build_data["pure_python"] = False
        for path in sorted(folder.iterdir()):
            build_data["force_include"][str(path)] = f"whisper_max_backend/prebuilt/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
