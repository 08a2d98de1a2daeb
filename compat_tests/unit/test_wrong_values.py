"""Files of a model with other values in every place: they load, or an error names the file."""

import base64
import functools
import json
import re
import struct

import numpy as np
import pytest

from compat_tests.support.hostile_files import (
    model_bin,
    named,
    number,
    text,
    variable,
    with_header,
    with_pickle,
)
from compat_tests.support.miniature import SPECK, make_model, make_spec, vocabulary_tokens
from compat_tests.support.miniature_formats import make_hugging_face, make_openai
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint

VALUES: list = [
    *(None, True, False, 0, -1, 5, 1.5, 10**30, -(10**30), 2**63, 1e308, "", "x", "\0"),
    *([], [[]], [None], ["x"], [1, "x"], [2**63, 0], {}, {"x": []}, {"x": {"x": 1}}, [{}]),
    json.loads("[" * 500 + "]" * 500),
]


def content_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The files of a speck in each format."""
    folder = tmp_path_factory.mktemp("speck")
    with pytest.MonkeyPatch.context() as patch:
        openai = make_openai(folder / "pt", patch, SPECK)
    return {
        "pt": content_of(openai),
        "hf": content_of(make_hugging_face(folder / "hf", SPECK)),
        "shards": content_of(make_hugging_face(folder / "shards", SPECK, shards=2)),
        "ct2": content_of(make_model(folder / "ct2", SPECK)),
    }


def load(files, *names):
    """Whether the model could be loaded and used. AssertionError for an error without a name."""
    message = ""
    try:
        checkpoint = load_checkpoint("name", files)
    except (RuntimeError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
    if message:
        assert message.startswith(("RuntimeError: ", "ValueError: ", "MissingWeight: ")), message
        assert any(f"'{name}' in model 'name'" in message for name in names) or (
            "vocabulary of the model 'name'" in message
        ), message
        return False
    with np.errstate(all="ignore"):
        for name in checkpoint.weight_names():
            dense(checkpoint.weights, name)
    return True


def places(value, depth):
    """Ways to the values in a JSON value: the first and the last of each list and object."""
    yield ()
    if depth and isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in dict.fromkeys([*keys[:12], keys[-1]] if depth > 1 else [keys[0], keys[-1]]):
            for way in places(value[key], depth - 1):
                yield (key, *way)


def replaced(value, way, new):
    if not way:
        return new
    key, *rest = way
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], rest, new)
    return copy


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("ct2", "config.json"),
        ("ct2", "vocabulary.json"),
        ("hf", "config.json"),
        ("hf", "generation_config.json"),
        ("hf", "tokenizer.json"),
        ("shards", "model.safetensors.index.json"),
        ("pt", "generation_config.json"),
    ],
)
def test_values_of_json(model, name, models):
    files = models[model]
    original = json.loads(files[name])
    for way in places(original, 2 if model == "pt" else 3):
        for value in VALUES:
            content = json.dumps(replaced(original, way, value)).encode()
            load({**files, name: content}, name, "model.safetensors", "config.json", "model.bin")


def test_values_of_separate_vocabularies(models):
    files = {name: content for name, content in models["hf"].items() if name != "tokenizer.json"}
    tokens = vocabulary_tokens(SPECK)
    original = {token: index for index, token in enumerate(tokens)}
    for value in VALUES:
        for key in (tokens[0], tokens[-1], "new"):
            for changed in ("vocab.json", "added_tokens.json"):
                load(
                    {
                        **files,
                        "vocab.json": json.dumps(original).encode(),
                        changed: json.dumps({**original, key: value}).encode(),
                    },
                    "vocab.json",
                    "added_tokens.json",
                    "model.safetensors",
                )


def test_values_of_a_header(models):
    files, name = models["hf"], "model.safetensors"
    size = 8 + int.from_bytes(files[name][:8], "little")
    original = json.loads(files[name][8:size])
    for way in places(original, 4):
        for value in VALUES:
            changed = with_header(files[name], functools.partial(replaced, way=way, new=value))
            load({**files, name: changed}, name, "config.json")


@pytest.mark.parametrize("size", [0, 7, 8, 9, 2**25 + 1, 2**63, 2**64 - 1])
def test_sizes_of_a_header(size, models):
    content = struct.pack("<Q", size) + models["hf"]["model.safetensors"][8:]
    assert not load({**models["hf"], "model.safetensors": content}, "model.safetensors")


def test_values_of_dimensions(models):
    """Of the pickle: numbers, texts, nothing and lists in place of each size."""
    content = models["pt"]["tiny.pt"]
    others = [b"N", b"\x88", number(-1), number(0), number(2**31 - 1), text("2"), b"]", b"}"]
    others += [b"G" + struct.pack(">d", float("nan")), b"\x8a\xff" + b"\x7f" * 255]
    others += [named("torch", "FloatStorage")]
    for key in ("n_audio_layer", "n_text_layer", "n_audio_head", "n_text_head", "dims"):
        for other in others:

            def change(pickled, key=key, other=other):
                place = pickled.index(text(key)) + len(text(key))
                size = 2  # BINPUT
                kept = pickled[place : place + size]
                assert kept[:1] == b"q"
                end = place + size + (2 if key != "dims" else 0)
                rest = pickled[end:]
                # A dictionary in place of `dims` stays on the stack before what is put there.
                return pickled[: place + size] + other + rest

            load({**models["pt"], "tiny.pt": with_pickle(content, change)}, "tiny.pt")


HEADS = [
    (0, struct.pack("<f", value)) for value in (np.nan, np.inf, -np.inf, 0.0, -1.0, 1.5, 3e38)
] + [(1, b"\xff"), (2, b"\0\0"), (3, b"\xff\xff\xff\x7f"), (5, b"\xff\x7f")]


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_numbers_of_heads(heads, side, models):
    """The reference divides by them, and ends with a signal."""
    spec = make_spec(SPECK).variables()
    start = string_place = models["ct2"]["model.bin"].index(f"{side}/num_heads\0".encode())
    assert f"{side}/num_heads" in spec
    start += len(f"{side}/num_heads\0")
    content = models["ct2"]["model.bin"]
    code, data = heads
    changed = (
        content[: string_place - 2] + variable(f"{side}/num_heads", (), code, data)
    ) + content[start + 1 + 1 + 4 + 2 :]
    with pytest.raises(RuntimeError, match=f"'{side}/num_heads'.*'model.bin'.*heads"):
        load_checkpoint("name", {**models["ct2"], "model.bin": changed})


@pytest.mark.parametrize(
    "shape", [(0,), (2**32 - 1, 0), (2**32 - 1,) * 3 + (0,), (0,) * 4, (0,) * 200]
)
def test_shapes_without_numbers(shape, models):
    content = model_bin([variable("encoder/conv1/weight", shape, 0, b"")])
    assert not load({**models["ct2"], "model.bin": content}, "model.bin")


TIKTOKEN = base64.b64encode(b"!").decode() + " 0\n"


@pytest.mark.parametrize(
    "content",
    [
        *("", TIKTOKEN, "\n\n", "a", "a b c", "IQ== x", "IQ== -1", "IQ== 1e3", "== 0", "\xe9 0"),
        *(f"IQ== {10**30}", f"IQ== {'9' * 5000}", TIKTOKEN * 2, "\0 0", "IQ==\t0"),
    ],
)
def test_damaged_tiktoken_files(content, models):
    files = {name: data for name, data in models["pt"].items() if name != "tokenizer.json"}
    files["gpt2.tiktoken"] = content.encode()
    assert not load(files, "gpt2.tiktoken")
    files["gpt2.tiktoken"] = b"\xff\xfe"
    assert not load(files, "gpt2.tiktoken")


def test_truncated_files(models):
    for files in models.values():
        for name, content in files.items():
            for size in {0, 1, 2, 3, 10, len(content) // 2, len(content) - 1}:
                load({**files, name: content[:size]}, name, *files)


def test_what_is_no_file(models):
    for value in (None, 3, "text", [b"a"]):
        with pytest.raises((TypeError, RuntimeError), match=re.escape("'model.bin'")):
            load_checkpoint("name", {**models["ct2"], "model.bin": value})
