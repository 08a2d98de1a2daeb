"""A server of the Wyoming protocol, which Home Assistant speaks: text while people speak.

Source: https://github.com/rhasspy/wyoming
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.server import AsyncEventHandler, AsyncServer

from ..live import LiveStream, LiveStreams, Update

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

    from ..live.transcriber import Policy

IDLE_SECONDS = 60.0
"""A client that sends no audio for so long within a request, or takes no answer, is left."""
LINGER_SECONDS = 5.0
"""That a client has to notice that it is left."""
MOST_BYTES = 8 << 20
"""Of one event: four minutes of audio at 16 kHz."""
MOST_SECONDS_WAITING = 60.0
"""Of audio that is not transcribed yet: then no more is read from the client."""
NO_EVENT = f"what came is no Wyoming event, or one of more than {MOST_BYTES >> 20} MB"
WIDTH = 2

_log = logging.getLogger("whisper_max_backend")

_Kind = TypeVar("_Kind", bound=Eventable)


class _BoundedReader:
    """Reads for the library, which takes any length that a client names for its own."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def readline(self) -> bytes:
        return await self._reader.readline()

    async def readexactly(self, length: int) -> bytes:
        if length > MOST_BYTES:
            raise ValueError(f"{length} bytes are too many")
        return await self._reader.readexactly(length)


class Service:
    """What all clients share: a model on which each request is a stream of its own."""

    def __init__(
        self,
        model: WhisperModel,
        name: str,
        language: str | None = None,
        policy: Policy = "alignatt",
        min_chunk: float = 1.0,
    ) -> None:
        """Start the workers.

        Args:
            model: Of this package.
            name: What it is called to clients.
            language: Of requests that name none; if not given, it is detected.
            policy: When a word is committed: see `LiveTranscriber`.
            min_chunk: Seconds of new audio that a decoding waits for.
        """
        self.name = name
        self._languages = sorted(model.supported_languages)
        self._streams = LiveStreams(model)
        self._language = language
        self._policy = policy
        self._min_chunk = min_chunk

    def info(self) -> Info:
        """What a client that asks is told."""
        own = version("whisper-max-backend")
        return Info(
            asr=[
                AsrProgram(
                    name="whisper-max-backend",
                    description="Whisper on MAX graphs and Mojo kernels, with text while you speak",
                    attribution=Attribution("The whisper-max-backend authors", ""),
                    installed=True,
                    version=own,
                    models=[
                        AsrModel(
                            name=self.name,
                            description=f"Whisper {self.name}",
                            attribution=Attribution("OpenAI", "https://github.com/openai/whisper"),
                            installed=True,
                            version=own,
                            languages=self._languages,
                        )
                    ],
                    supports_transcript_streaming=True,
                )
            ]
        )

    def open(self, language: str | None = None) -> LiveStream:
        """A stream for a request.

        Args:
            language: As the client names it, a region such as in ``pt-BR`` included.

        Raises:
            ValueError: The model does not know the language.
        """
        spoken = re.split("[-_]", str(language))[0].lower() if language else self._language
        if spoken and spoken not in self._languages:
            raise ValueError(
                f"the model {self.name} does not know the language {spoken!r}: choose one of "
                f"{', '.join(self._languages)}"
            )
        return self._streams.open(self._policy, language=spoken, min_chunk=self._min_chunk)


async def serve(uri: str, service: Service) -> None:
    """Answer clients until SIGTERM.

    Args:
        uri: ``tcp://host:port`` or ``unix:///path``.
        service: The model and how it is used.

    Raises:
        ValueError: The address is none.
        OSError: It is taken, or another machine's.
    """
    if not uri.startswith(("tcp://", "unix:///")):
        raise ValueError(f"{uri!r} is no address: give tcp://host:port or unix:///path")
    await AsyncServer.from_uri(uri).run(handlers(service))


def handlers(
    service: Service,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], LiveHandler]:
    """What makes a handler for each client of an `AsyncServer`."""
    return lambda reader, writer: LiveHandler(service, reader, writer)


class LiveHandler(AsyncEventHandler):
    """One client. Its words go out while its audio comes in."""

    def __init__(
        self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(reader, writer)
        self._service = service
        self._bounded: Any = _BoundedReader(reader)
        self._writing = asyncio.Lock()
        self._language: str | None = None  # as the client names it
        self._stream: LiveStream | None = None  # of the request that is open
        self._answering: asyncio.Task[None] | None = None
        self._text = ""  # committed, of this request
        self._progress = asyncio.Event()
        self._left = False  # nothing more is answered

    async def run(self) -> None:
        """Answer until the client leaves, or is left for what it does."""
        try:
            while not self._left and (event := await self._read()) is not None:
                await self.handle_event(event)
        except Exception as error:  # whatever it is, the other clients go on
            await self._leave(error)
        finally:
            self._end_request()
            if self._left:
                await self._discard()
            self.writer.close()

    async def _read(self) -> Event | None:
        """The next event; None at the end of the stream."""
        timeout = IDLE_SECONDS if self._stream or self._left else None
        try:
            event = await asyncio.wait_for(async_read_event(self._bounded), timeout)
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(NO_EVENT) from error
        if event is None and not self.reader.at_eof():
            raise ValueError(NO_EVENT)
        return event

    async def handle_event(self, event: Event) -> bool:
        """Take one event; those of other kinds are left out.

        Raises:
            ValueError: It lacks something, or has what cannot be.
        """
        if Transcribe.is_type(event.type):
            self._language = _parsed(Transcribe, event).language
        elif AudioChunk.is_type(event.type):
            await self._take(_parsed(AudioChunk, event))
        elif AudioStart.is_type(event.type):
            await self._begin()
        elif AudioStop.is_type(event.type):
            await self._finish()
        elif Describe.is_type(event.type):
            await self.write_event(self._service.info().event())
        return True

    async def write_event(self, event: Event) -> None:
        """Send an event, one at a time."""
        async with self._writing:
            await asyncio.wait_for(super().write_event(event), IDLE_SECONDS)

    async def _begin(self) -> LiveStream:
        """Begins a request; one that is open is given up."""
        self._end_request()
        self._stream = stream = self._service.open(self._language)
        await self.write_event(TranscriptStart(language=self._language).event())
        self._answering = asyncio.create_task(self._answer(stream))
        return stream

    async def _take(self, chunk: AudioChunk) -> None:
        stream = self._stream or await self._begin()  # a chunk says all that the start would have
        if chunk.width != WIDTH or not isinstance(chunk.channels, int) or chunk.channels < 1:
            raise ValueError(
                f"audio of {chunk.width} bytes a sample and {chunk.channels} channels: send 16 bit "
                "integers"
            )
        if len(chunk.audio) % (WIDTH * chunk.channels):
            raise ValueError(
                f"{len(chunk.audio)} bytes are no whole number of samples of {chunk.channels} "
                "channels: send whole ones"
            )
        stream.push(np.frombuffer(chunk.audio, "<i2").reshape(-1, chunk.channels).T, chunk.rate)
        while stream.waiting > MOST_SECONDS_WAITING and not self._left:
            self._progress.clear()
            await self._progress.wait()

    async def _answer(self, stream: LiveStream) -> None:
        """Tells the client the words of a stream, to its end."""
        try:
            async for update in stream:
                self._progress.set()
                await self._tell(update)
        except Exception as error:
            await self._leave(error)
            self._progress.set()

    async def _tell(self, update: Update) -> None:
        text = update.committed_text if self._text else update.committed_text.lstrip()
        if text:
            self._text += text
            await self.write_event(TranscriptChunk(text).event())

    async def _finish(self) -> None:
        """Ends the request: all of its words."""
        stream = self._stream or await self._begin()
        stream.finish()
        if self._answering is not None:
            await self._answering
        if self._left:  # it has failed
            return
        await self.write_event(Transcript(self._text, language=self._language).event())
        await self.write_event(TranscriptStop().event())
        self._end_request()

    def _end_request(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
        if self._stream is not None:
            self._stream.close()
        self._stream, self._answering, self._text = None, None, ""

    async def _leave(self, error: Exception) -> None:
        """Tells the client why, if it is there, and that nothing more comes."""
        if self._left:
            return
        self._left = True
        if isinstance(error, ConnectionError | asyncio.IncompleteReadError):
            _log.debug("a Wyoming client has gone in the middle of a request")
            return
        if isinstance(error, asyncio.TimeoutError):
            why = f"nothing came, or could be sent, for {IDLE_SECONDS:.0f} seconds"
        elif isinstance(error, ValueError):
            why = str(error)
        else:
            why = f"the request failed: {error.__cause__ or error}"
            _log.error("a request of a Wyoming client failed", exc_info=error)
        _log.warning("a Wyoming client is left: %s", why)
        try:
            await asyncio.wait_for(super().write_event(Error(why).event()), 1)
            self.writer.write_eof()
        except (OSError, asyncio.TimeoutError):
            self.writer.transport.abort()  # what it does not take is not kept

    async def _discard(self) -> None:
        """Reads what a client that is left still sends: if it is not read, neither is our answer.

        A socket that is closed with something unread resets the connection.
        """

        async def read() -> None:
            while await self.reader.read(1 << 16):
                pass

        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(read(), LINGER_SECONDS)


def _parsed(kind: type[_Kind], event: Event) -> _Kind:
    try:
        return kind.from_event(event)  # type: ignore[return-value]  # it gives its own kind
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the event {event.type} is not complete: {error!r}") from error
