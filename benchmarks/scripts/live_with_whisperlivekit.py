"""WhisperLiveKit's LocalAgreement on faster-whisper, told the audio of one stream piece by piece.

``python live_with_whisperlivekit.py FOLDER LANGUAGE CHUNK DETECTION``; alone, so that it may run
where WhisperLiveKit is installed and this package is not. Its whole pipeline runs as by default,
with its own detection of voices (1) or without (0). Standard input has the length of a piece in
bytes a line, followed by the piece, 16 bit at 16 kHz; 0 ends the stream. Standard output has the
precision of the model as JSON, then for each piece what is new: the `committed` words with start,
end and probability, the `tentative` text, and the `cpu_seconds` of this process since the stream
began.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import IO, Any

from whisperlivekit.audio_processor import AudioProcessor
from whisperlivekit.core import TranscriptionEngine

BYTES_A_SECOND = 32_000


class WatchedQueue(asyncio.Queue[Any]):
    """A queue that tells when its only reader waits: it is done with all there was."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = asyncio.Event()

    async def get(self) -> Any:
        if self.empty():
            self.waiting.set()
        item = await super().get()
        self.waiting.clear()
        return item

    async def put(self, item: Any) -> None:
        self.waiting.clear()
        await super().put(item)


async def serve(engine: TranscriptionEngine, chunk: float, answers: IO[str]) -> None:
    processor = AudioProcessor(transcription_engine=engine)
    processor.transcription_queue = queue = WatchedQueue()
    await processor.create_tasks()
    begun = time.process_time()
    told = 0
    while size := int(sys.stdin.buffer.readline()):
        piece = sys.stdin.buffer.read(size)
        length = int(chunk * BYTES_A_SECOND)
        for start in range(0, size, length):  # late audio is as many messages
            await processor.process_audio(piece[start : start + length])
        if not queue.empty():
            await queue.waiting.wait()
        told = tell(processor, told, begun, answers)
    await processor.process_audio(b"")
    await processor.transcription_task
    tell(processor, told, begun, answers)
    await processor.cleanup()


def tell(processor: AudioProcessor, told: int, begun: float, answers: IO[str]) -> int:
    """What is new in the session's state; returns how many words were told."""
    state = processor.state
    committed = [
        (word.text, word.start, word.end, word.probability) for word in state.tokens[told:]
    ]
    answer = {
        "committed": committed,
        "tentative": state.buffer_transcription.text,
        "cpu_seconds": time.process_time() - begun,
    }
    print(json.dumps(answer), file=answers, flush=True)
    return len(state.tokens)


def main(folder: str, language: str, chunk: str, detection: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    engine = TranscriptionEngine(
        model_path=folder,
        lan=language,
        backend="faster-whisper",
        backend_policy="localagreement",
        vac=bool(int(detection)),
        min_chunk_size=float(chunk),
        pcm_input=True,
        warmup_file="",
    )
    print(json.dumps(engine.asr.model.model.compute_type), file=answers, flush=True)
    asyncio.run(serve(engine, float(chunk), answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
