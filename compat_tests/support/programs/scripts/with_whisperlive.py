"""WhisperLive's copy of faster-whisper's transcription: MODEL AUDIO COMPUTE_TYPE."""

import sys

from faster_whisper.audio import decode_audio
from whisper_live.transcriber.transcriber_faster_whisper import WhisperModel

path, audio, compute_type = sys.argv[1:]
model = WhisperModel(path, device="cpu", compute_type=compute_type)
segments, info = model.transcribe(decode_audio(audio), language="en", word_timestamps=True)
print(info.language, info.duration)
for segment in segments:
    print(segment.start, segment.end, segment.text, segment.tokens)
    for word in segment.words:
        print(word.start, word.end, word.word)
