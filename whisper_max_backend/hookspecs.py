"""What a plugin can add: the hooks of whisper-max-backend, and what a backend is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment, TranscriptionInfo

hookspec = HookspecMarker("whisper_max_backend")
hookimpl = HookimplMarker("whisper_max_backend")


@hookspec
def register_backends(register: Callable[[Backend], None]) -> None:
    """Register engines that transcribe, by calling ``register(backend)`` for each."""


@hookspec(firstresult=True)
def resolve_model(name: str, local_files_only: bool) -> str | None:
    """Turn a model's name into a local path, or return None to leave it to the next plugin.

    With ``local_files_only`` nothing may be fetched.
    """


@hookspec
def register_readers(register: Callable[[Reader], None]) -> None:
    """Register what `whisper-max corpus` reads, by calling ``register(reader)`` for each."""


@hookspec
def register_writers(register: Callable[[Writer], None]) -> None:
    """Register what `whisper-max corpus --write` writes, by calling ``register(writer)``."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend works on this machine.

    Attributes:
        devices: Compute types by device name, e.g. ``{"cpu": ("float32", "int8")}``; empty where
            the backend is not usable.
        reason: Why it is not usable, or not on a device that is there, and what to do about it.
        kernels: What its kernels use of each device, for people.
    """

    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reason: str = ""
    kernels: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return bool(self.devices)

    def runs(self, device: str, compute_type: str) -> bool:
        """Whether a request can be met; "auto" devices and "default" or "auto" types always can."""
        if device == "auto":
            types = list(self.devices.values())
        else:
            types = [self.devices[device]] if device in self.devices else []
        return any(compute_type in ("default", "auto", *those) for those in types)


class Transcriber(Protocol):
    """A loaded model."""

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterable[Segment], TranscriptionInfo]:
        """Transcribe a path, file object or float32 samples at 16 kHz.

        The options are those of ``faster_whisper.WhisperModel.transcribe``.
        """


class Backend(Protocol):
    """An engine. ``load_model(backend="auto")`` takes the usable one of the highest priority."""

    name: str
    summary: str
    priority: int

    def probe(self) -> Availability:
        """What works on this machine, found out without loading a model."""

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Transcriber:
        """Load a model by name or path; `plugins.resolve_model` turns the one into the other."""


@dataclass(frozen=True)
class Row:
    """One recording of a corpus, or a part of one.

    Attributes:
        key: Its name, which no other row of the corpus has.
        source: Absolute path or address of the file that it is in.
        reader: The name of the reader that opens it.
        place: Where in the file it is, in the reader's own words.
        offset: Seconds at which a part begins; None for a whole recording.
        duration: Seconds; of a part, how long it is. Of a whole recording it is what is known
            before it is decoded, and longer ones are transcribed first.
        size: Bytes of the file, to tell long recordings from short ones without a duration.
    """

    key: str
    source: str
    reader: str = "files"
    place: str = ""
    offset: float | None = None
    duration: float | None = None
    size: int | None = None


class Reader(Protocol):
    """A kind of input of `whisper-max corpus`. Plugins are asked before the built-in readers."""

    name: str

    def reads(self, source: str) -> bool:
        """Whether this path or address is one of its kind."""

    def rows(self, source: str, name: str) -> Iterator[Row]:
        """The recordings in it, without decoding them.

        Args:
            source: Absolute path or address.
            name: What it is called in the corpus. Keys begin with it, unless recordings have ids.

        Raises:
            ValueError: It is damaged, or names something that cannot be read.
            OSError: It cannot be opened.
        """

    def audio(self, row: Row) -> Any:
        """What ``transcribe`` takes: a path, a file object (closed after use), or samples.

        It is called on the machine that transcribes, by several threads.
        """


class Writer(Protocol):
    """A kind of output of `whisper-max corpus`, beside the shards of rows."""

    name: str

    def write(self, rows: Sequence[Mapping[str, Any]], shard: str, folder: Path) -> None:
        """Write files for the rows of a shard.

        A shard may be written more than once, by another machine, too: each file has to be whole
        at any time, and the same again.

        Args:
            rows: As in the shard; what failed has no segments and an error.
            shard: Its name.
            folder: Of this writer alone, in the corpus.
        """
