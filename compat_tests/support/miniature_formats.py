"""The random models of `miniature` as Hugging Face and openai-whisper would have saved them."""

import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import safetensors.numpy

from compat_tests.support.miniature import (
    language_codes,
    make_tokenizer,
    model_config,
    random_weights,
    to_bfloat16,
    vocabulary_tokens,
)

DTYPES = {
    "float32": ("FloatStorage", lambda values: values),
    "float16": ("HalfStorage", lambda values: values.astype(np.float16)),
    "bfloat16": ("BFloat16Storage", to_bfloat16),
}
HUGGING_FACE = {
    "encoder": "model.encoder",
    "decoder": "model.decoder",
    "layer": "layers",
    "position_encodings/encodings": "embed_positions.weight",
    "embeddings": "embed_tokens",
    "end": "layer_norm",
    "self_attention": "self_attn.",
    "attention": "encoder_attn.",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "projections": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "ffn": ("fc1", "fc2"),
    "ffn/layer_norm": "final_layer_norm",
}
OPENAI = {
    "encoder": "encoder",
    "decoder": "decoder",
    "layer": "blocks",
    "position_encodings/encodings": "positional_embedding",
    "embeddings": "token_embedding",
    "end": {"encoder": "ln_post", "decoder": "ln"},
    "self_attention": "attn.",
    "attention": "cross_attn.",
    "self_attention/layer_norm": "attn_ln",
    "attention/layer_norm": "cross_attn_ln",
    "projections": ("query", "key", "value", "out"),
    "ffn": ("mlp.0", "mlp.2"),
    "ffn/layer_norm": "mlp_ln",
}


def split(weights, names):
    """Weights under the names of a format that keeps queries, keys and values apart."""
    kinds = {"gamma": "weight", "beta": "bias"}
    out = {}
    for name, value in weights.items():
        side, *middle, kind = name.split("/")
        prefix = names[side] + "."
        kind = kinds.get(kind, kind)
        if not middle[0].startswith("layer_") or middle[0] == "layer_norm":
            if kind == "encodings":
                out[prefix + names["position_encodings/encodings"]] = value
            elif middle[0] == "layer_norm":
                end = names["end"] if isinstance(names["end"], str) else names["end"][side]
                out[f"{prefix}{end}.{kind}"] = value
            else:
                out[f"{prefix}{names.get(middle[0], middle[0])}.{kind}"] = value
            continue
        layer, block, part = middle
        prefix += f"{names['layer']}.{layer.removeprefix('layer_')}."
        if part == "layer_norm":
            out[f"{prefix}{names[f'{block}/layer_norm']}.{kind}"] = value
        elif block == "ffn":
            out[f"{prefix}{names['ffn'][int(part[-1])]}.{kind}"] = value
        else:
            query, key, value_, last = names["projections"]
            parts = {
                ("self_attention", "linear_0"): (query, key, value_),
                ("attention", "linear_1"): (key, value_),
                ("attention", "linear_0"): (query,),
            }.get((block, part), (last,))
            for target, piece in zip(parts, np.split(value, len(parts)), strict=True):
                if (target, kind) != (key, "bias"):
                    out[f"{prefix}{names[block]}{target}.{kind}"] = piece
    return out


def save_generation_config(directory, architecture):
    config = model_config(architecture)
    codes = language_codes(architecture.n_languages)
    generation = {
        "suppress_tokens": config["suppress_ids"],
        "begin_suppress_tokens": config["suppress_ids_begin"],
        "alignment_heads": config["alignment_heads"],
        "lang_to_id": {
            f"<|{code}|>": index for code, index in zip(codes, config["lang_ids"], strict=True)
        },
    }
    (directory / "generation_config.json").write_text(json.dumps(generation))


def save_safetensors(path, tensors):
    content = safetensors.numpy.save(tensors, {"format": "pt"})
    # numpy has no bfloat16: its bits are saved as integers and renamed here.
    size = 8 + int.from_bytes(content[:8], "little")
    header = content[8:size].replace(b'"U16"', b'"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[size:])


def make_hugging_face(directory, architecture, dtype="float32", shards=1):
    directory.mkdir()
    tensors = {
        name: DTYPES[dtype][1](value)
        for name, value in split(random_weights(architecture), HUGGING_FACE).items()
    }
    if shards == 1:
        save_safetensors(directory / "model.safetensors", tensors)
    else:
        names = [f"model-{i}-of-{shards}.safetensors" for i in range(shards)]
        weight_map = {tensor: names[i % shards] for i, tensor in enumerate(tensors)}
        for name in names:
            shard = {tensor: tensors[tensor] for tensor in tensors if weight_map[tensor] == name}
            save_safetensors(directory / name, shard)
        index = json.dumps({"metadata": {}, "weight_map": weight_map})
        (directory / "model.safetensors.index.json").write_text(index)
    config = {
        "model_type": "whisper",
        "encoder_layers": architecture.n_audio_layer,
        "decoder_layers": architecture.n_text_layer,
        "encoder_attention_heads": architecture.n_audio_head,
        "decoder_attention_heads": architecture.n_text_head,
        "activation_function": "gelu",
    }
    (directory / "config.json").write_text(json.dumps(config))
    save_generation_config(directory, architecture)
    make_tokenizer(architecture).save(str(directory / "tokenizer.json"))
    return directory


class Storage:
    def __init__(self, kind, key, count):
        self.kind, self.key, self.count = kind, key, count


class Tensor:
    """What torch's pickle of a tensor says."""

    def __init__(self, rebuild, storage, offset, shape):
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
        hooks: dict = collections.OrderedDict()
        self.call = (rebuild, (storage, offset, shape, strides, False, hooks))

    def __reduce__(self):
        return self.call


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", value.kind, value.key, "cpu", value.count)
        return None


def torch_save(monkeypatch, saved, storage_name):
    """A file as torch.save writes it: `saved` with arrays for tensors."""
    torch = types.ModuleType("torch")
    utils = types.ModuleType("torch._utils")
    storage_type = type(storage_name, (), {"__module__": "torch"})
    setattr(torch, storage_name, storage_type)

    def rebuild():
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    setattr(utils, rebuild.__qualname__, rebuild)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    storages = []

    def tensors(value):
        if isinstance(value, dict):
            return type(value)((key, tensors(item)) for key, item in value.items())
        if not isinstance(value, np.ndarray):
            return value
        storages.append(value)
        storage = Storage(storage_type, str(len(storages) - 1), value.size)
        return Tensor(rebuild, storage, 0, value.shape)

    pickled = io.BytesIO()
    TorchPickler(pickled, protocol=2).dump(tensors(saved))
    archive = io.BytesIO()
    entries = {
        "data.pkl": pickled.getvalue(),
        "byteorder": b"little",
        **{f"data/{index}": value.tobytes() for index, value in enumerate(storages)},
        "version": b"3\n",
    }
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"archive/{name}")
            # An extra field lets the content begin at a multiple of 64 bytes.
            padding = -(archive.tell() + 30 + len(info.filename) + 4) % 64
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            file.writestr(info, content)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "torch._utils")
    return archive.getvalue()


def make_openai(directory, monkeypatch, architecture, dtype="float32"):
    directory.mkdir()
    storage, convert = DTYPES[dtype]
    state = split(random_weights(architecture), OPENAI)
    saved = {
        "dims": {
            "n_mels": architecture.n_mels,
            "n_vocab": len(vocabulary_tokens(architecture)),
            "n_audio_ctx": architecture.n_audio_ctx,
            "n_audio_state": architecture.n_state,
            "n_audio_head": architecture.n_audio_head,
            "n_audio_layer": architecture.n_audio_layer,
            "n_text_ctx": architecture.n_text_ctx,
            "n_text_state": architecture.n_state,
            "n_text_head": architecture.n_text_head,
            "n_text_layer": architecture.n_text_layer,
        },
        "model_state_dict": collections.OrderedDict(
            (name, convert(value)) for name, value in state.items()
        ),
    }
    (directory / "tiny.pt").write_bytes(torch_save(monkeypatch, saved, storage))
    save_generation_config(directory, architecture)
    make_tokenizer(architecture).save(str(directory / "tokenizer.json"))
    return directory
