"""Asks a server of Wyoming, as Home Assistant does, for a transcript: PORT AUDIO."""

import asyncio
import sys
import time
import wave

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import wav_to_chunks
from wyoming.client import AsyncTcpClient


async def ask(port: int, audio: str) -> str:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())
        with wave.open(audio) as file:
            for part in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                await client.write_event(part.event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
    raise ConnectionError("the server has ended without a transcript")


start = time.perf_counter()
print(asyncio.run(ask(int(sys.argv[1]), sys.argv[2])))
print("seconds:", time.perf_counter() - start, file=sys.stderr)
