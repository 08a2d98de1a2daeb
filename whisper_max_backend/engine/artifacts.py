"""Compiled graphs: what they are keyed by, where they are kept, how the first compile is told.

Compiling a graph takes seconds to minutes, loading the compiled artifact milliseconds. Graphs take
their weights as external values, so an artifact depends only on the architecture and is kept on
disk. Its file name ends in a digest of everything that went into it, so an artifact is never stale,
and its last bytes are a checksum, so that a damaged file is noticed and made anew. A wheel brings
artifacts along (``mojo/prebuild_hook.py``); those are looked for first.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import platformdirs
from max._core import __version__ as max_version

from .cpu_target import apply_cpu_target, describe_cpu_target
from .progress import announced
from .session import Session, read

if TYPE_CHECKING:
    from max.graph import Graph, Module

VARIABLE = "WHISPER_MAX_CACHE"

_FOOTER = b"whisper-max-backend artifact, sha256:"
_FOOTER_SIZE = len(_FOOTER) + hashlib.sha256().digest_size
_GRAPHS = Path(__file__).parent / "graphs"
_PREBUILT = Path(__file__).parents[1] / "prebuilt"

_log = logging.getLogger("whisper_max_backend")
_told: set[Path] = set()
_process_lock = threading.RLock()


def cache_folder() -> Path:
    """Where artifacts are kept: ``WHISPER_MAX_CACHE`` or the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("whisper-max-backend"))


def kernel_sources() -> Path:
    """The folder of Mojo kernels: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    for parent in (package, package.parent):
        folder = parent / "mojo" / "whisper_kernels"
        if (folder / "__init__.mojo").is_file():
            return folder
    raise RuntimeError(
        f"the Mojo kernels are missing beside {package}; reinstall whisper-max-backend"
    )


@functools.cache
def kernels_path() -> Path:
    """The kernels, for ``custom_extensions=[kernels_path()]``.

    A source folder given there is translated again for every graph, into one file that all
    processes share. Here it is translated once for each content of the sources, into the cache.
    The result holds no machine code, so it serves every device.

    Raises:
        RuntimeError: The sources do not compile, or the Mojo compiler is missing.
    """
    sources = kernel_sources()
    name = f"kernels-{_digest(['mojo', max_version, *_contents(sources, '*.mojo')])}"
    # The compiler takes the module's name from the file's, so the folder carries the digest.
    package = cache_folder() / name / "whisper_kernels.mojoc"
    with _process_lock, _lock(name):
        if package.is_file():
            return package
        try:
            package.parent.mkdir(parents=True, exist_ok=True)
            return _translate(sources, package)
        except OSError as error:
            _tell_unwritable(error)
            folder = Path(tempfile.mkdtemp(prefix="whisper-max-backend-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return _translate(sources, folder / package.name)


def _translate(sources: Path, package: Path) -> Path:
    """Translate Mojo sources into the package file, which appears whole or not at all."""
    # Where everything is compiled already, the compiler need not be installed.
    from mojo.run import subprocess_run_mojo

    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        draft = Path(folder) / package.name
        command = ["precompile", str(sources), "-o", str(draft)]
        result = subprocess_run_mojo(command, capture_output=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(
                f"the Mojo kernels in {sources} do not compile:\n"
                + result.stderr.decode(errors="replace")
            )
        os.replace(draft, package)
    return package


class CompiledArguments(TypedDict):
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
    artifact = cache_folder() / file
    found = _read(_PREBUILT / file) or _read(artifact)
    if found is not None:
        return found
    with _process_lock, _lock(artifact.name):
        found = _read(artifact)  # another thread or process may have been first
        if found is not None:
            return found
        target = ", ".join(_architectures(session)) or describe_cpu_target()
        folder = None if artifact.parent in _told else artifact.parent
        with announced(f"{name} for {target}", folder, about_seconds):
            result = _compile(build, session)
        _keep(result, artifact)
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
            describe_cpu_target(),
            *_architectures(session),
            *(f"{field}={key[field]!r}" for field in sorted(key)),
            *_contents(kernel_sources(), "*.mojo"),
            *_contents(_GRAPHS, "*.py"),
        ]
    )
    return f"{name}-{digest}.mef"


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


def _read(artifact: Path) -> Any:
    """The artifact, or None if it is absent or unusable (which is logged)."""
    try:
        content = artifact.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _log.warning("cannot read the compiled graph %s (%s)", artifact, error)
        return None
    mef, footer = content[:-_FOOTER_SIZE], content[-_FOOTER_SIZE:]
    if footer != _FOOTER + hashlib.sha256(mef).digest():
        _log.warning("the compiled graph %s is damaged; it is compiled again", artifact)
        return None
    try:
        return read(mef)
    except RuntimeError as error:
        _log.warning("MAX refuses the compiled graph %s (%s); compiled again", artifact, error)
        return None


def _keep(result: Any, artifact: Path) -> None:
    """Write the artifact so that it appears whole or not at all."""
    draft = artifact.with_name(f".{artifact.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        artifact.parent.mkdir(parents=True, exist_ok=True)
        result.export_mef(draft)
        content = draft.read_bytes()
        read(content)  # what a full disk has cut short must not get a valid checksum
        with open(draft, "ab") as file:
            file.write(_FOOTER + hashlib.sha256(content).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, artifact)
    except (OSError, RuntimeError, ValueError) as error:
        _tell_unwritable(error)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """One compilation of a thing at a time among all processes, where the cache allows a lock.

    The operating system lifts the lock of a process that dies.
    """
    from filelock import FileLock, Timeout  # most runs find everything compiled

    lock = FileLock(cache_folder() / f".{name}.lock")
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("waiting for another process that compiles %s", name)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        _tell_unwritable(error)
    try:
        yield
    finally:
        lock.release()


def _tell_unwritable(error: Exception) -> None:
    folder = cache_folder()
    if folder not in _told:
        _told.add(folder)
        _log.warning(
            "compiled graphs cannot be kept in %s (%s) and will be compiled again at the next "
            "start; set %s to a folder that can be written",
            folder,
            error,
            VARIABLE,
        )
