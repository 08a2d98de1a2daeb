"""An utterance through RealtimeSTT's interface for engines, as its recorder calls it: MODEL AUDIO.

Prints the text after each half second, after the end, and that of the whole recording.
"""

import sys

from faster_whisper.audio import decode_audio
from RealtimeSTT.engines import BaseEngine, StreamingTranscriptionSession

from whisper_max_backend import WhisperModel
from whisper_max_backend.adapters.realtimestt import LiveEngine

path, audio = sys.argv[1:]
engine = LiveEngine(WhisperModel(path, device="cpu"))
session = engine.create_streaming_session(language="en", use_prompt=True)
assert isinstance(engine, BaseEngine)
assert engine.supports_streaming
assert isinstance(session, StreamingTranscriptionSession)
samples = decode_audio(audio)
session.accept_audio(samples[:16000])
session.reset()
for start in range(0, len(samples), 8000):
    session.accept_audio(samples[start : start + 8000], sample_rate=16000)
    session.decode()
    print("live:", session.get_result().text)
finished = session.finish()
session.close()
print("finished:", finished.text)
ends = [word["end"] for word in finished.metadata["words"]]
assert ends == sorted(ends), ends
assert 9 < ends[-1] <= 11.1, ends
final = engine.transcribe(samples, language="en", use_prompt=True, word_timestamps=True)
print("final:", final.text)
assert final.info.language == "en"
assert "".join(word["word"] for word in final.metadata["words"]).strip() == final.text
