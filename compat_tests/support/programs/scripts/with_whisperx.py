"""whisperX's model of faster-whisper, two windows in a batch: MODEL AUDIO COMPUTE_TYPE.

Its module imports PyTorch and others for the pipeline around the model, which is not used here;
where they are not installed, empty modules take their places.
"""

import importlib.util
import sys
from types import ModuleType

import faster_whisper
import numpy as np
from faster_whisper.audio import decode_audio, pad_or_trim
from faster_whisper.tokenizer import Tokenizer


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


if importlib.util.find_spec("torch") is None:
    for name in ("torch", "transformers", "transformers.pipelines.pt_utils"):
        sys.modules[name] = _Empty(name)
    for name in ("whisperx.audio", "whisperx.vads", "whisperx.schema"):
        sys.modules[name] = _Empty(name)

from whisperx.asr import WhisperModel  # noqa: E402 (after what it imports)

path, audio, compute_type = sys.argv[1:]
model = WhisperModel(path, device="cpu", compute_type=compute_type)
assert isinstance(model, faster_whisper.WhisperModel)
samples = decode_audio(audio)
windows = samples, samples[len(samples) // 2 :]
frames = model.feature_extractor.nb_max_frames
features = np.stack([pad_or_trim(model.feature_extractor(one), frames) for one in windows])
multilingual = model.model.is_multilingual
tokenizer = Tokenizer(model.hf_tokenizer, multilingual, task="transcribe", language="en")
options = faster_whisper.transcribe.TranscriptionOptions(
    beam_size=5,
    best_of=5,
    patience=1,
    length_penalty=1,
    repetition_penalty=1,
    no_repeat_ngram_size=0,
    log_prob_threshold=None,
    no_speech_threshold=None,
    compression_ratio_threshold=None,
    condition_on_previous_text=False,
    prompt_reset_on_temperature=0.5,
    temperatures=[0.0],
    initial_prompt=None,
    prefix=None,
    suppress_blank=True,
    suppress_tokens=[-1],
    without_timestamps=True,
    max_initial_timestamp=0.0,
    word_timestamps=False,
    prepend_punctuations="",
    append_punctuations="",
    multilingual=multilingual,
    max_new_tokens=None,
    clip_timestamps="0",
    hallucination_silence_threshold=None,
    hotwords=None,
)
heard = model.generate_segment_batched(features, tokenizer, options)
for text, score in zip(heard["text"], heard["avg_logprob"], strict=True):
    print(score, text)
