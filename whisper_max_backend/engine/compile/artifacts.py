"""Finds a compiled graph in the wheel or the cache, or compiles and keeps it.

Compiling a graph takes seconds to minutes, loading the compiled artifact milliseconds. Graphs take
their weights as external values, so an artifact depends only on the architecture and is kept on
disk (`cache`). Its file name ends in a digest of everything that went into it, so an artifact is
never stale. A wheel brings artifacts along (``mojo/prebuild_hook.py``), which are trusted as the
package is; those are looked for first.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from max._core import __version__ as max_version

from . import cache
from .cpu_target import LEAST, apply_cpu_target, compiling_for, describe_cpu_target
from .progress import announced
from .scratch_folder import scratch_folder, with_room
from .session import Session, read

if TYPE_CHECKING:
    from max.graph import Graph, Module

_PACKAGE = Path(__file__).parents[2]
_GRAPHS = [_PACKAGE / "engine" / folder for folder in ("graphs", "cpu/graphs", "gpu/graphs")]
_PREBUILT = _PACKAGE / "prebuilt"

_log = logging.getLogger("whisper_max_backend")
_process_lock = threading.RLock()


def kernel_sources() -> Path:
    """The folder of Mojo kernels: inside the package in a wheel, beside it in a checkout."""
    for parent in (_PACKAGE, _PACKAGE.parent):
        folder = parent / "mojo" / "whisper_kernels"
        if (folder / "__init__.mojo").is_file():
            return folder
    raise RuntimeError(
        f"the Mojo kernels are missing beside {_PACKAGE}; reinstall whisper-max-backend"
    )


def kernels_path() -> Path:
    """The kernels, for ``custom_extensions=[kernels_path()]``.

    A source folder given there is translated again for every graph, into one file that all
    processes share. Here it is translated once for each content of the sources, and kept in the
    cache; the path is that of this process's copy. It holds no machine code, so it serves every
    device.

    Raises:
        RuntimeError: The sources do not compile, the Mojo compiler is missing, or no folder can be
            written to.
    """
    with _process_lock:
        return with_room(_kernels)


def _kernels() -> Path:
    # The compiler takes the module's name from the file's.
    package = scratch_folder() / "whisper_kernels.mojoc"
    if not package.is_file():
        sources = kernel_sources()
        name = f"kernels-{_digest(['mojo', max_version, *_contents(sources, '*.mojo')])}.mojoc"
        draft = package.parent / "draft" / package.name
        draft.parent.mkdir(exist_ok=True)
        with cache.making(name):
            content = cache.find(name)
            if content is None:
                _translate(sources, draft)
                cache.keep(name, draft.read_bytes())
            else:
                draft.write_bytes(content)
        os.replace(draft, package)
    return package


def _translate(sources: Path, package: Path) -> None:
    """Translate Mojo sources into a package file."""
    # Where everything is compiled already, the compiler need not be installed.
    from mojo.run import subprocess_run_mojo

    command = ["precompile", str(sources), "-o", str(package)]
    result = subprocess_run_mojo(command, capture_output=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(
            f"the Mojo kernels in {sources} do not compile:\n"
            + result.stderr.decode(errors="replace")
        )


class ArtifactSpec(TypedDict):
    """The arguments of `compiled`."""

    name: str
    build: Callable[[], Graph | Module]
    key: Mapping[str, object]
    session: Session
    about_seconds: float


def compiled(
    name: str,
    build: Callable[[], Graph | Module],
    *,
    key: Mapping[str, object],
    session: Session,
    about_seconds: float = 45,
) -> Any:
    """The compiled form of ``build()``: from the cache, or compiled now and kept there.

    Args:
        name: What is compiled, as the user reads it and as the artifact's file name begins.
        build: Makes the graph, or a module of several graphs; called only if compilation is
            needed. It must depend on nothing but ``key`` and this package's sources.
        key: Everything that ``build`` depends on: dimensions, precision and the like. Values need
            a ``repr`` that tells them apart and is the same in every process.
        session: Compiles for its devices.
        about_seconds: How long compiling usually takes, for the message.

    Returns:
        The artifact, for ``session.init_all``.

    Raises:
        RuntimeError: The graph does not compile.
    """
    apply_cpu_target()
    file = artifact_name(name, key, session)
    found = _prebuilt(file) or _cached(file)
    if found is not None:
        return found
    with _process_lock, cache.making(file):
        found = _cached(file)  # another thread or process may have been first
        if found is not None:
            return found
        target = ", ".join(_architectures(session)) or describe_cpu_target()
        scratch_folder()  # where nothing can be kept, this tells
        with announced(f"{name} for {target}", cache.kept_in(), about_seconds):
            any_host = _serves_any_host(session)
            with compiling_for(LEAST) if any_host else contextlib.nullcontext():
                result = with_room(lambda: _compile(build, session))
        _keep(result, file)
        return result


def _compile(build: Callable[[], Graph | Module], session: Session) -> Any:
    from max.graph import Module

    graph = build()
    # A Graph brings its extensions along; a Module does not, and without them its custom
    # operations do not compile.
    extensions = [kernels_path()] if isinstance(graph, Module) else None
    return session.compile(graph, custom_extensions=extensions)


def artifact_name(name: str, key: Mapping[str, object], session: Session) -> str:
    """The file that `compiled` keeps its result in."""
    digest = _digest(
        [
            name,
            max_version,
            _host(session),
            *_architectures(session),
            *(f"{field}={key[field]!r}" for field in sorted(key)),
            *source_digests(*_GRAPHS),
        ]
    )
    return f"{name}-{digest}.mef"


def source_digests(*folders: Path) -> tuple[str, ...]:
    """A digest of each kernel's source, and of each module in some folders of Python."""
    kernels = _contents(kernel_sources(), "*.mojo")
    return kernels + tuple(line for folder in folders for line in _contents(folder, "*.py"))


def _host(session: Session) -> str:
    """What the host's part is compiled for, as part of a key."""
    if _serves_any_host(session):
        return f"{platform.machine()}/{LEAST}"
    return describe_cpu_target()


def _serves_any_host(session: Session) -> bool:
    """Whether the host's part is compiled for the least processor: beside a GPU it does little."""
    return bool(LEAST and _architectures(session))


def _architectures(session: Session) -> list[str]:
    """Of the devices that are no CPU."""
    # Hopper is sm_90 by its number, and sm_90a with the instructions that MAX uses there.
    return [
        f"{d.api}:{d.architecture_name.removesuffix('a')}" for d in session.devices if not d.is_host
    ]


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _contents(folder: Path, pattern: str) -> tuple[str, ...]:
    """A digest of each source file: of what it says, not of where it is or when it was written."""
    return tuple(
        f"{path.relative_to(folder).as_posix()}:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob(pattern))
    )


def _prebuilt(file: str) -> Any:
    """The artifact that came with the wheel, or None."""
    path = _PREBUILT / file
    if not path.is_file():
        return None
    return _loadable(cache.unsealed(path.read_bytes(), path), path)


def _cached(file: str) -> Any:
    """The artifact in the cache, or None."""
    return _loadable(cache.find(file), Path(file))


def _loadable(mef: bytes | None, path: Path) -> Any:
    """The artifact, or None if it is absent or MAX refuses it (which is logged)."""
    if mef is None:
        return None
    try:
        return read(mef)
    except RuntimeError as error:
        _log.warning("MAX refuses the compiled graph %s (%s); compiled again", path, error)
        return None


def _keep(result: Any, file: str) -> None:
    """Keep the artifact in the cache, if that is possible."""
    draft = scratch_folder() / file
    try:
        result.export_mef(draft)
        content = draft.read_bytes()
        read(content)  # what a full disk has cut short must not get a valid checksum
        draft.unlink()
    except (OSError, RuntimeError, ValueError) as error:
        cache.tell_unusable(error)
    else:
        cache.keep(file, content)
