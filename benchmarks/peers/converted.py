"""The weights in the formats of others, made on first use and kept in the cache folder."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer

from benchmarks.peers import Model
from benchmarks.peers.dimension_names import transformers_names
from compat_tests.support.miniature_formats import HUGGING_FACE, OPENAI, split
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint
from whisper_max_backend.engine.compile.cache import cache_folder

_PROJECTION = "decoder/projection/weight"
"""The embeddings under another name."""


def converted(model: Model, kind: str, write: Callable[[Path], None]) -> Path:
    """The folder that `write` makes of the model, which must not exist before."""
    target = cache_folder() / "peers" / f"{model.name}-{kind}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as draft:
            write(Path(draft, "model"))
            os.replace(Path(draft, "model"), target)
    return target


def openai_weights(model: Model) -> dict[str, np.ndarray]:
    """Float32 weights under openai-whisper's names."""
    return _split(model, OPENAI)


def hugging_face(model: Model) -> Path:
    """A directory as transformers saves it, in float16 as the model is."""
    return converted(model, "hugging-face", functools.partial(_save_hugging_face, model))


def _split(model: Model, names: dict) -> dict[str, np.ndarray]:
    checkpoint = load_checkpoint(model.folder)
    entries = (name for name in checkpoint.weight_names() if name != _PROJECTION)
    return split({name: dense(checkpoint.weights, name) for name in entries}, names)


def _save_hugging_face(model: Model, target: Path) -> None:
    target.mkdir()
    tensors = {
        name: np.ascontiguousarray(value, np.float16)
        for name, value in _split(model, HUGGING_FACE).items()
    }
    safetensors.numpy.save_file(tensors, target / "model.safetensors", {"format": "pt"})
    shutil.copy(model.folder / "tokenizer.json", target)

    checkpoint = load_checkpoint(model.folder)
    d, multilingual = checkpoint.dimensions, checkpoint.vocabulary.is_multilingual
    tokenizer: Any = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    special = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": tokenizer.token_to_id("<|startoftranscript|>"),
    }
    suppressed = {
        "suppress_tokens": checkpoint.config["suppress_ids"],
        "begin_suppress_tokens": checkpoint.config["suppress_ids_begin"],
    }
    config = {
        **{"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"},
        **{"is_encoder_decoder": True, "activation_function": "gelu", "dtype": "float16"},
        **transformers_names(d),
        **special,
    }
    generation = {
        **special,
        **suppressed,
        "alignment_heads": checkpoint.config["alignment_heads"],
        "is_multilingual": multilingual,
        "max_length": d.n_text_ctx,
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": tokenizer.token_to_id("<|notimestamps|>"),
        "prev_sot_token_id": tokenizer.token_to_id("<|startofprev|>"),
        "return_timestamps": False,
    }
    if multilingual:
        tasks = ("transcribe", "translate")
        names = map(tokenizer.id_to_token, checkpoint.config["lang_ids"])
        generation["lang_to_id"] = {name: tokenizer.token_to_id(name) for name in names}
        generation["task_to_id"] = {task: tokenizer.token_to_id(f"<|{task}|>") for task in tasks}
    text = "<|endoftext|>"
    settings = {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            **{"bos_token": text, "eos_token": text, "pad_token": text, "unk_token": text},
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            **{"feature_size": d.n_mels, "sampling_rate": 16_000, "hop_length": 160},
            **{"n_fft": 400, "chunk_length": 30, "n_samples": 480_000, "nb_max_frames": 3000},
            **{"padding_side": "right", "padding_value": 0.0, "return_attention_mask": False},
        },
    }
    for name, content in settings.items():
        (target / name).write_text(json.dumps(content, indent=1) + "\n")
