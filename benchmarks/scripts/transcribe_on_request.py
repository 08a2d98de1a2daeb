"""Loads a model, then transcribes each file that it is told, and says how long each took.

``python transcribe_on_request.py FOLDER TYPE``; alone, so that it may run with the package of any
commit, of which it uses no more than `WhisperModel`. Standard input has a file's name a line;
standard output the folder of the package, then for each file seconds and text as JSON.
"""

import json
import sys
import time

from faster_whisper.audio import decode_audio

import whisper_max_backend


def main(folder: str, compute_type: str) -> None:
    model = whisper_max_backend.WhisperModel(folder, device="cpu", compute_type=compute_type)
    print(json.dumps(whisper_max_backend.__file__), flush=True)
    samples = {}
    for line in sys.stdin:
        file = line.rstrip("\n")
        if file not in samples:
            samples[file] = decode_audio(file)
        started = time.perf_counter()
        segments, _ = model.transcribe(
            samples[file], language="en", temperature=0.0, condition_on_previous_text=False
        )
        text = "".join(segment.text for segment in segments)
        print(json.dumps([time.perf_counter() - started, text]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
