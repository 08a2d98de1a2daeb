"""SpeechRecognition: MODEL AUDIO COMPUTE_TYPE."""

import sys

import speech_recognition

model, audio, compute_type = sys.argv[1:]
with speech_recognition.AudioFile(audio) as source:
    recorded = speech_recognition.Recognizer().record(source)
heard = speech_recognition.Recognizer().recognize_faster_whisper(
    recorded,
    model=model,
    show_dict=True,
    init_options={"device": "cpu", "compute_type": compute_type},
    language="en",
)
print(heard["text"])
for segment in heard["segments"]:
    print(segment.start, segment.end, segment.text, segment.tokens)
