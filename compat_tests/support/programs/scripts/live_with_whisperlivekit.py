"""WhisperLiveKit's whole pipeline, by its own test harness, with live streams: MODEL AUDIO.

Prints what its page shows in the end, without and with its own detection of voices.
"""

import asyncio
import sys

from faster_whisper.audio import decode_audio
from whisperlivekit import TestHarness

from whisper_max_backend import WhisperModel
from whisper_max_backend.adapters import whisperlivekit

path, audio = sys.argv[1:]
whisperlivekit.install(WhisperModel(path, device="cpu"))
pcm = (decode_audio(audio) * 32767).astype("<i2").tobytes()


async def play(kind: str, detection: bool) -> None:
    async with TestHarness(lan="en", vac=detection) as harness:
        await harness.feed_pcm(pcm)
        await harness.pause(3)
        await harness.feed_pcm(pcm)
        state = await harness.finish()
        assert state.timing_errors() == [], state.timing_errors()
        assert 20 < state.timestamps[-1]["end"] < 26, state.timestamps
        growing = [shown.committed_word_count for shown in harness.history]
        assert growing == sorted(growing), growing
        assert len(set(growing)) > 3, growing
        print(f"{kind}:", state.committed_text)


asyncio.run(play("without detection", False))
asyncio.run(play("with detection", True))
