"""RealtimeSTT's engine for faster-whisper: MODEL AUDIO COMPUTE_TYPE BATCH_SIZE (0: not batched)."""

import sys

from faster_whisper.audio import decode_audio
from RealtimeSTT.transcription_engines import TranscriptionEngineConfig, create_transcription_engine

model, audio, compute_type, batch_size = sys.argv[1:]
config = TranscriptionEngineConfig(
    model=model, device="cpu", compute_type=compute_type, batch_size=int(batch_size)
)
engine = create_transcription_engine("faster_whisper", config)
result = engine.transcribe(decode_audio(audio), language="en", word_timestamps=True)
print(result.text)
for word in result.metadata["words"]:
    print(word["start"], word["end"], word["word"])
