"""Posts a recording to a server with OpenAI's interface: PORT AUDIO."""

import sys
import time

import httpx

port, audio = sys.argv[1:]
with open(audio, "rb") as file:
    recorded = file.read()
start = time.perf_counter()
answer = httpx.post(
    f"http://127.0.0.1:{port}/v1/audio/transcriptions",
    files={"file": ("speech.wav", recorded, "audio/wav")},
    data={"model_name": "it", "language": "en", "response_format": "verbose_json"},
    timeout=600,
)
answer.raise_for_status()
print(answer.text)
print("seconds:", time.perf_counter() - start, file=sys.stderr)
