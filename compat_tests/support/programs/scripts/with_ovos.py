"""The speech-to-text plugin of OpenVoiceOS: MODEL AUDIO COMPUTE_TYPE."""

import sys
import wave

from ovos_stt_plugin_fasterwhisper import AudioData, FasterWhisperSTT
from ovos_utils.log import LOG

LOG.set_level("ERROR")  # it is printed, with the time
model, audio, compute_type = sys.argv[1:]
with wave.open(audio) as file:
    rate, width = file.getframerate(), file.getsampwidth()
    recorded = AudioData(file.readframes(file.getnframes()), rate, width)
plugin = FasterWhisperSTT(config={"model": model, "compute_type": compute_type, "lang": "en"})
language, probability = plugin.detect_language(recorded, ["en", "de", "fr"])
print(plugin.execute(recorded), language, probability)
