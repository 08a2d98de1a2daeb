"""Plugins: the manager, and what is asked of it. The built-in ones have no privilege.

``WHISPER_MAX_PLUGINS``, a list of entry-point names separated by commas, limits the installed
plugins to those (none if empty).
"""

from __future__ import annotations

import functools
import logging
import os
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Any

import pluggy
from faster_whisper import download_model

from . import hookspecs, resolvers
from .hookspecs import Backend, Transcriber

GROUP = "whisper_max_backend"
ALLOWED = "WHISPER_MAX_PLUGINS"
BACKENDS = {
    "max": "whisper_max_backend.backends.max_backend",
    "ctranslate2": "whisper_max_backend.backends.ctranslate2_backend",
    "openai-whisper": "whisper_max_backend.backends.openai_whisper_backend",
}
"""The built-in ones' modules, imported when plugins are loaded: they import this module."""
CORPUS = "whisper_max_backend.corpus.built_in"
"""The module of what `whisper-max corpus` reads and writes."""

_log = logging.getLogger("whisper_max_backend")


class PluginError(RuntimeError):
    """An installed plugin cannot be used."""


@functools.cache
def manager() -> pluggy.PluginManager:
    """The manager with every plugin, made on first use.

    Raises:
        PluginError: A plugin cannot be loaded, implements a hook that does not exist, or is named
            in ``WHISPER_MAX_PLUGINS`` and not installed.
    """
    plugins = pluggy.PluginManager(GROUP)
    plugins.add_hookspecs(hookspecs)
    for name, module in {**BACKENDS, "corpus": CORPUS}.items():
        plugins.register(import_module(module), name)
    for resolver in (
        resolvers.HubResolver(),
        resolvers.PackageResolver(),
        resolvers.PathResolver(),
    ):
        plugins.register(resolver, resolver.name)
    _load_installed(plugins)
    return plugins


def _load_installed(plugins: pluggy.PluginManager) -> None:
    installed = {point.name for point in entry_points(group=GROUP)}
    allowed = os.environ.get(ALLOWED)
    if allowed is not None:
        wanted = {name for name in map(str.strip, allowed.split(",")) if name}
        if missing := wanted - installed:
            raise PluginError(f"{ALLOWED} names plugins that are not installed: {sorted(missing)}")
        installed = wanted
    for name in sorted(installed):
        try:
            plugins.load_setuptools_entrypoints(GROUP, name)
            plugins.check_pending()
        except Exception as error:  # whatever a stranger's import may raise
            raise PluginError(
                f"The plugin '{name}' cannot be used ({type(error).__name__}: {error}): upgrade or "
                f"uninstall it, or leave it out of {ALLOWED}"
            ) from error


def describe_plugins() -> list[dict[str, Any]]:
    """Name, version, origin and hooks of every plugin."""
    plugins = manager()
    distributions = {
        id(plugin): distribution for plugin, distribution in plugins.list_plugin_distinfo()
    }
    own = version("whisper-max-backend")
    described = []
    for name, plugin in plugins.list_name_plugin():
        distribution = distributions.get(id(plugin))
        described.append(
            {
                "name": name,
                "version": distribution.version if distribution else own,
                "distribution": (
                    distribution.project_name if distribution else "whisper-max-backend"
                ),
                "hooks": sorted(caller.name for caller in plugins.get_hookcallers(plugin) or ()),
            }
        )
    return sorted(described, key=lambda plugin: str(plugin["name"]))


def backends() -> dict[str, Backend]:
    """Every registered backend by name, highest priority first.

    Raises:
        PluginError: Two backends have one name.
    """
    found: dict[str, Backend] = registered("backend", manager().hook.register_backends)
    return dict(sorted(found.items(), key=lambda item: (-item[1].priority, item[0])))


def registered(kind: str, hook: Any) -> dict[str, Any]:
    """What the plugins register by a hook, by name, in the order in which they do.

    Raises:
        PluginError: Two have one name.
    """
    found: dict[str, Any] = {}

    def register(one: Any) -> None:
        if one.name in found:
            raise PluginError(
                f"Two plugins register a {kind} named '{one.name}': uninstall one of them, "
                f"or leave it out of {ALLOWED}"
            )
        found[one.name] = one

    hook(register=register)
    return found


def resolve_model(name: str, local_files_only: bool = False, **hub_options: Any) -> str:
    """The local path of a model.

    Args:
        name: What the user wrote.
        local_files_only: Fetch nothing.
        hub_options: Further arguments of ``faster_whisper.download_model``. If one is set, a name
            that is no path means the hub's model, and no other plugin is asked.

    Raises:
        ValueError: No plugin knows the name.
        OSError: The hub does not answer, or has no such model.
    """
    path: str | None
    if any(value is not None for value in hub_options.values()) and not os.path.exists(name):
        path = download_model(name, local_files_only=local_files_only, **hub_options)
    else:
        path = manager().hook.resolve_model(name=name, local_files_only=local_files_only)
    if path is None:
        raise ValueError(f"There is no model '{name}'")
    return path


def load_model(
    model: str,
    backend: str = "auto",
    device: str = "auto",
    compute_type: str = "default",
    **kwargs: Any,
) -> Transcriber:
    """Load a model with the best backend, or with one by name.

    Args:
        model: Name or path.
        backend: A backend's name, or "auto" for the usable one of the highest priority that has
            the device and the compute type. A warning says why a better one is passed over.
        device: "cpu", "cuda" or "auto".
        compute_type: As for ``faster_whisper.WhisperModel``.
        kwargs: Further arguments of ``faster_whisper.WhisperModel``.

    Returns:
        An object whose ``transcribe(audio, **options)`` gives segments and an info.

    Raises:
        ValueError: There is no such backend or model, or no backend for the request.
        RuntimeError: The backend named is not usable on this machine.
    """
    found = backends()
    if backend != "auto":
        if backend not in found:
            raise ValueError(
                f"There is no backend '{backend}' (there are: auto, {', '.join(found)})"
            )
        availability = found[backend].probe()
        if not availability.usable:
            raise RuntimeError(f"The backend '{backend}' is not usable: {availability.reason}")
        return found[backend].load(model, device, compute_type, **kwargs)
    passed_over: dict[str, str] = {}
    for candidate in found.values():
        availability = candidate.probe()
        if availability.runs(device, compute_type):
            for name, reason in passed_over.items():
                _tell_passed_over(name, reason, candidate.name)
            return candidate.load(model, device, compute_type, **kwargs)
        if availability.reason:
            passed_over[candidate.name] = availability.reason
    devices = {name for candidate in found.values() for name in candidate.probe().devices}
    if device not in ("auto", *devices):
        there = ", ".join(sorted(devices))
        raise ValueError(f"No backend has a device '{device}' here (there are: {there})")
    raise ValueError(
        f"No backend runs compute type '{compute_type}' on device '{device}' here: "
        "`whisper-max backends` lists what each runs"
    )


@functools.cache
def _tell_passed_over(name: str, reason: str, taken: str) -> None:
    _log.warning("the backend '%s' is used, not '%s' (%s)", taken, name, reason)
