"""Decodes a recording in a process of its own, which may do little and dies with what it reads.

A visitor's file may be made to crash a decoder or to fill the memory, and may lie about its
length. So the server opens none: it gives the file to `python -m whisper_max_backend.demo.decoding`
as standard input, and reads samples, 16-bit at 16 kHz, from standard output.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import BinaryIO

import av
import psutil

SAMPLING_RATE = 16_000
# Statuses of the process; the reason of an unreadable file is on standard error.
TOO_LONG, NO_SOUND, UNREADABLE = 10, 11, 12
_MOST_MEMORY = 512 << 20  # bytes, over what Python and FFmpeg take
_LARGEST_FRAME = 1 << 20  # samples of a channel; the largest of any usual codec is below 2**17


class TooLongError(ValueError):
    """There is more sound than is allowed."""


def patience(most_seconds: float) -> float:
    """Seconds that decoding up to `most_seconds` of sound may take."""
    return 30 + most_seconds / 10


def decode(file: BinaryIO, most_seconds: float) -> Iterator[bytes]:
    """The samples as the reference decodes them, int16 [samples] at 16 kHz, piece by piece.

    What has been decoded is counted, whatever the file says about its length.

    Raises:
        TooLongError: There are more than `most_seconds`.
        IndexError: The file holds no sound.
        av.error.FFmpegError: It cannot be read.
        ValueError: Its format changes on the way.
    """
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLING_RATE)
    seconds = Fraction(0)  # exact, for a recording as long as the limit
    # A playlist must not open other files or addresses.
    options = {"protocol_whitelist": "none"}
    with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
        stream = container.streams.audio[0]
        stream.codec_context.options = {"max_samples": str(_LARGEST_FRAME)}
        for frame in _until_damaged(container.decode(stream)):
            seconds += Fraction(frame.samples, frame.sample_rate)
            if seconds > most_seconds:  # before a low rate becomes many samples
                raise TooLongError
            frame.pts = None  # times need not make sense
            yield from map(_content, resampler.resample(frame))
        yield from map(_content, resampler.resample(None))


def _until_damaged(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The reference, too, takes what comes before damage."""
    with suppress(av.error.InvalidDataError):
        yield from frames


def _content(frame: av.AudioFrame) -> bytes:
    return bytes(memoryview(frame.planes[0])[: 2 * frame.samples])


def _limit_resources(most_seconds: float) -> None:
    """No more memory or time than decoding takes, and no picture of the memory on the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    processor_seconds = int(2 * patience(most_seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (processor_seconds, processor_seconds))
    if sys.platform == "linux":  # elsewhere it says little about memory in use
        most = psutil.Process().memory_info().vms + _MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Decode standard input; the argument is how many seconds of sound are allowed."""
    most_seconds = float(sys.argv[1])
    _limit_resources(most_seconds)
    try:
        with open(0, "rb", closefd=False) as file, open(1, "wb", closefd=False) as output:
            for samples in decode(file, most_seconds):
                output.write(samples)
    except TooLongError:
        sys.exit(TOO_LONG)
    except IndexError:
        sys.exit(NO_SOUND)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(reason, file=sys.stderr)
        sys.exit(UNREADABLE)


if __name__ == "__main__":
    main()
