"""stable-ts on faster-whisper: MODEL AUDIO COMPUTE_TYPE."""

import sys

import stable_whisper
from faster_whisper.audio import decode_audio

path, audio, compute_type = sys.argv[1:]
model = stable_whisper.load_faster_whisper(path, device="cpu", compute_type=compute_type)
result = model.transcribe(decode_audio(audio), language="en", verbose=None)
result.to_srt_vtt("heard.srt")
result.save_as_json("heard.json")
print(result.text)
