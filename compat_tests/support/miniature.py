"""Random-weight Whisper models of a few hundred kilobytes, in CTranslate2's own format.

The reference and this package load the same directory, so every comparison is made in the same
run. The weights are scaled as in a network at initialisation: attention is peaked but not one-hot,
logits spread over several units, and tokens depend on the audio.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from ctranslate2.specs import model_spec, whisper_spec
from faster_whisper.tokenizer import _LANGUAGE_CODES

# Whisper's order of the languages starts so; the rest follows in any order.
_FIRST_LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr")
_WORDS = """
the of and to in is that it was for you are with his they this have from one had by word but
not what all were we when your can said there use an each which she do how their if
"""
TIMESTAMPS = tuple(f"<|{i * 0.02:.2f}|>" for i in range(1501))


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a miniature. The state size serves encoder and decoder, as in every Whisper."""

    n_mels: int = 80
    n_audio_ctx: int = 1500
    n_state: int = 128
    n_audio_head: int = 2
    n_audio_layer: int = 2
    n_text_ctx: int = 448
    n_text_head: int = 2
    n_text_layer: int = 2
    vocabulary: str = "multilingual"  # or "english"
    n_languages: int = 99


# 50 encoder positions are a second of audio. faster_whisper.WhisperModel.transcribe always encodes
# 30 s, so it takes only those with 1500; the engine itself takes the short, cheaper ones too.
ARCHITECTURES = {
    # One head, short audio: the cheapest to compile and run.
    "one-head": Architecture(
        n_audio_ctx=100, n_state=64, n_audio_head=1, n_text_head=1, n_audio_layer=1, n_text_layer=1
    ),
    # Encoder deeper than the decoder, odd head count, full length: distil-whisper's proportions.
    "deep-encoder": Architecture(
        n_state=192, n_audio_head=3, n_text_head=3, n_audio_layer=4, n_text_layer=2
    ),
    # 128 mel bands and 100 languages: large-v3's front end and vocabulary.
    "v3": Architecture(n_mels=128, n_state=128, n_audio_layer=2, n_text_layer=3, n_languages=100),
    # English-only vocabulary and tiny.en's six heads.
    "english": Architecture(
        n_state=384,
        n_audio_head=6,
        n_text_head=6,
        n_audio_layer=1,
        n_text_layer=1,
        vocabulary="english",
    ),
    # Heads of 32, another number of them on each side, a short text context.
    "small-heads": Architecture(
        n_audio_ctx=150,
        n_state=96,
        n_audio_head=3,
        n_text_head=1,
        n_text_ctx=64,
        vocabulary="english",
        n_languages=8,
    ),
}

SPECK = Architecture(
    n_audio_ctx=4,
    n_state=4,
    n_audio_head=1,
    n_text_head=1,
    n_text_ctx=4,
    n_audio_layer=1,
    n_text_layer=1,
    vocabulary="english",
    n_languages=2,
)
"""A model of a few kilobytes, for tests that change its files."""


def language_codes(count: int) -> tuple[str, ...]:
    """The first `count` language codes (at most 100), English first."""
    rest = [code for code in _LANGUAGE_CODES if code not in (*_FIRST_LANGUAGES, "yue")]
    return (*_FIRST_LANGUAGES, *rest, "yue")[:count]


def _byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes of a byte-level BPE (GPT-2's table, sorted by byte)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def _merges() -> Iterator[tuple[str, str]]:
    """BPE merges that build each of a few common words from the left."""
    seen = set()
    for word in _WORDS.split():
        letters = "Ġ" + word
        for end in range(1, len(letters)):
            pair = (letters[:end], letters[end])
            if pair not in seen:
                seen.add(pair)
                yield pair


def vocabulary_tokens(architecture: Architecture) -> list[str]:
    """All tokens in the order of their ids."""
    multilingual = architecture.vocabulary == "multilingual"
    if not multilingual and architecture.vocabulary != "english":
        raise ValueError(f"vocabulary is {architecture.vocabulary!r}: multilingual or english")
    return [
        *_byte_letters(),
        *("".join(pair) for pair in _merges()),
        *([""] if multilingual else []),
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in language_codes(architecture.n_languages)),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *TIMESTAMPS,
    ]


def make_tokenizer(architecture: Architecture) -> tokenizers.Tokenizer:
    """Byte-level BPE with the same ids; like OpenAI's, it leaves the timestamps out."""
    tokens = vocabulary_tokens(architecture)
    eot = tokens.index("<|endoftext|>")
    bpe = tokenizers.models.BPE(
        vocab={token: i for i, token in enumerate(tokens[:eot])}, merges=list(_merges())
    )
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = tokens[eot : -len(TIMESTAMPS)]
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, normalized=False, special=True) for token in special]
    )
    return tokenizer


def model_config(architecture: Architecture) -> dict[str, Any]:
    """The keys of config.json."""
    tokens = vocabulary_tokens(architecture)
    ids = {token: i for i, token in enumerate(tokens)}
    languages = [ids[f"<|{code}|>"] for code in language_codes(architecture.n_languages)]
    begin = ids["<|startoftranscript|>"]
    special = [begin, *range(ids["<|translate|>"], ids["<|nospeech|>"] + 1)]
    layers = range(architecture.n_text_layer // 2, architecture.n_text_layer)
    return {
        "suppress_ids": [1, 2, 7, 8, 9, 10, 14, 25, 26, 27, *special],
        "suppress_ids_begin": [ids["Ġ"], ids["<|endoftext|>"]],
        "lang_ids": languages,
        # Not all heads: a selection has to be honoured.
        "alignment_heads": [
            [layer, head] for layer in layers for head in range(0, architecture.n_text_head, 2)
        ],
    }


def _sinusoids(length: int, channels: int) -> np.ndarray:
    """Fixed positions of the encoder, [length, channels]: sines, then cosines."""
    rate = np.exp(-np.log(10000) / (channels // 2 - 1) * np.arange(channels // 2))
    angle = np.arange(length)[:, None] * rate[None, :]
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def random_weights(architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """float32 weights under CTranslate2's names, without the projection (tied embeddings)."""
    random = np.random.default_rng(seed)
    size = architecture.n_state
    n_vocab = len(vocabulary_tokens(architecture))
    weights: dict[str, np.ndarray] = {}

    def normal(name: str, *shape: int, scale: float) -> None:
        weights[name] = random.normal(0, scale, shape).astype(np.float32)

    def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        normal(f"{name}/weight", rows, columns, scale=gain / columns**0.5)
        normal(f"{name}/bias", rows, scale=0.1)

    def norm(name: str) -> None:
        normal(f"{name}/gamma", size, scale=0.1)
        weights[f"{name}/gamma"] += 1
        normal(f"{name}/beta", size, scale=0.1)

    def projections(name: str, keys: int) -> None:
        # Whisper's key projection has no bias: zeros stand in the fused vector.
        weights[f"{name}/bias"][keys : keys + size] = 0

    def attention(name: str, cross: bool = False) -> None:
        norm(f"{name}/layer_norm")
        if cross:
            linear(f"{name}/linear_0", size, size, gain=1.5)
            linear(f"{name}/linear_1", 2 * size, size, gain=1.5)
            projections(f"{name}/linear_1", 0)
            linear(f"{name}/linear_2", size, size, gain=2)
        else:
            linear(f"{name}/linear_0", 3 * size, size, gain=1.5)
            projections(f"{name}/linear_0", size)
            linear(f"{name}/linear_1", size, size)

    def feed_forward(name: str, gain: float) -> None:
        norm(f"{name}/layer_norm")
        linear(f"{name}/linear_0", 4 * size, size)
        linear(f"{name}/linear_1", size, 4 * size, gain)

    for conv, channels in (("conv1", architecture.n_mels), ("conv2", size)):
        normal(f"encoder/{conv}/weight", size, channels, 3, scale=1.5 / (3 * channels) ** 0.5)
        normal(f"encoder/{conv}/bias", size, scale=0.1)
    weights["encoder/position_encodings/encodings"] = _sinusoids(architecture.n_audio_ctx, size)
    for layer in range(architecture.n_audio_layer):
        attention(f"encoder/layer_{layer}/self_attention")
        feed_forward(f"encoder/layer_{layer}/ffn", gain=1)
    norm("encoder/layer_norm")

    # The final norm gives vectors of length sqrt(size), so this makes logits of deviation 3.
    normal("decoder/embeddings/weight", n_vocab, size, scale=3 / size**0.5)
    normal("decoder/position_encodings/encodings", architecture.n_text_ctx, size, scale=1)
    for layer in range(architecture.n_text_layer):
        attention(f"decoder/layer_{layer}/self_attention")
        attention(f"decoder/layer_{layer}/attention", cross=True)
        # Tied embeddings make a token predict itself unless the layers outweigh its embedding.
        feed_forward(f"decoder/layer_{layer}/ffn", gain=4)
    norm("decoder/layer_norm")
    _balance(weights, vocabulary_tokens(architecture))
    return weights


def _balance(weights: dict[str, np.ndarray], tokens: list[str]) -> None:
    """Let text, timestamps and the end all occur in what the model decodes.

    1501 timestamps would outweigh the few text tokens at every step, so their logits get a smaller
    spread; and one token in some 1900 would hardly ever be the end, so its logit gets a mean of 2.
    """
    embeddings = weights["decoder/embeddings/weight"]
    embeddings[-len(TIMESTAMPS) :] *= 0.7
    beta = weights["decoder/layer_norm/beta"]
    embeddings[tokens.index("<|endoftext|>")] += 2 * beta / (beta @ beta)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 to the bits of the nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class _BFloat16(model_spec.Variable):
    """bfloat16 without torch, which CTranslate2's own writer wants for it."""

    def __init__(self, bits: np.ndarray) -> None:
        self.bits = bits

    shape = property(lambda self: self.bits.shape)
    dtype = property(lambda self: "bfloat16")

    def numpy(self) -> np.ndarray:
        return self.bits

    def num_bytes(self) -> int:
        return self.bits.nbytes

    def to_bytes(self) -> bytes:
        return self.bits.tobytes()

    def _to(self, dtype: str) -> model_spec.Variable:
        raise NotImplementedError(dtype)

    def _equal(self, other: _BFloat16) -> bool:
        return np.array_equal(self.bits, other.bits)


class _Array(model_spec.NumpyVariable):
    def _to(self, dtype: str) -> model_spec.Variable:
        return _BFloat16(to_bfloat16(self.array)) if dtype == "bfloat16" else super()._to(dtype)


def make_spec(
    architecture: Architecture, *, seed: int = 0, quantization: str | None = None
) -> whisper_spec.WhisperSpec:
    """CTranslate2's specification of the model, validated, optimised and ready to save."""
    spec = whisper_spec.WhisperSpec(
        architecture.n_audio_layer,
        architecture.n_audio_head,
        architecture.n_text_layer,
        architecture.n_text_head,
    )
    weights = random_weights(architecture, seed)
    weights["decoder/projection/weight"] = weights["decoder/embeddings/weight"]
    for name, value in weights.items():
        scope, attribute = name.rsplit("/", 1)
        setattr(model_spec.index_spec(spec, scope), attribute, value)
    spec.register_vocabulary(vocabulary_tokens(architecture))
    for key, value in model_config(architecture).items():
        setattr(spec.config, key, value)
    spec.validate()

    def wrap(layer: model_spec.LayerSpec, name: str, value: Any) -> None:
        if isinstance(value, model_spec.NumpyVariable) and not value.is_scalar():
            setattr(layer, name.rsplit("/", 1)[-1], _Array(value.array))

    spec._visit(wrap)
    spec.optimize(quantization)
    return spec


def make_model(
    directory: Path,
    architecture: Architecture | str | None = None,
    *,
    seed: int = 0,
    quantization: str | None = None,
    **changes: Any,
) -> Path:
    """Write a random Whisper into `directory` (made if absent) and return it.

    `architecture` is one of `ARCHITECTURES` by name, or an Architecture; `changes` replace its
    fields (or the default's). `quantization` is a type of ctranslate2's converters: float16,
    bfloat16, int8, int8_float16, int8_bfloat16, int8_float32, int16, float32, or None (float32).
    """
    if isinstance(architecture, str):
        architecture = ARCHITECTURES[architecture]
    architecture = dataclasses.replace(architecture or Architecture(), **changes)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    make_spec(architecture, seed=seed, quantization=quantization).save(str(directory))
    make_tokenizer(architecture).save(str(directory / "tokenizer.json"))
    preprocessor = {
        "feature_size": architecture.n_mels,
        "chunk_length": architecture.n_audio_ctx // 50,
        "hop_length": 160,
        "n_fft": 400,
        "sampling_rate": 16000,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return directory
