"""RealtimeSTT's recorder with live streams, on audio that it is fed in real time: MODEL AUDIO.

Prints the texts that it shows meanwhile, and the final one.
"""

import sys
import threading
import time

from faster_whisper.audio import decode_audio
from RealtimeSTT import AudioToTextRecorder

from whisper_max_backend import WhisperModel
from whisper_max_backend.adapters.realtimestt import LiveEngine

if __name__ == "__main__":
    path, audio = sys.argv[1:]
    engine = LiveEngine(WhisperModel(path, device="cpu"))
    recorder = AudioToTextRecorder(
        transcription_executor=engine,
        realtime_transcription_executor=engine,
        enable_realtime_transcription=True,
        on_realtime_transcription_update=lambda text: print("live:", text, flush=True),
        language="en",
        post_speech_silence_duration=3,
        use_microphone=False,
        spinner=False,
        no_log_file=True,
    )
    samples = (decode_audio(audio) * 32767).astype("int16")

    def feed() -> None:
        for start in range(0, len(samples) + 5 * 16000, 1600):  # with silence behind it
            piece = samples[start : start + 1600]
            recorder.feed_audio(piece if len(piece) == 1600 else samples[:1600] * 0)
            time.sleep(0.1)

    threading.Thread(target=feed, daemon=True).start()
    print("final:", recorder.text(), flush=True)
    recorder.shutdown()
