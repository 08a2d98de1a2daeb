"""One random model in the three formats, and what becomes of damaged files of two of them."""

import base64
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from ctranslate2.converters import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compat_tests.support.compare import assert_same_checkpoint
from compat_tests.support.miniature import (
    ARCHITECTURES,
    SPECK,
    make_model,
    random_weights,
    vocabulary_tokens,
)
from compat_tests.support.miniature_formats import (
    DTYPES,
    OPENAI,
    make_hugging_face,
    make_openai,
    torch_save,
)
from compat_tests.support.miniature_formats import split as separated
from whisper_max_backend.engine.checkpoint import weight_adapters
from whisper_max_backend.engine.checkpoint.files import Lazy
from whisper_max_backend.engine.checkpoint.huggingface import small_number, token_count
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint

ARCHITECTURE = ARCHITECTURES["small-heads"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["small-heads", "one-head"])
def test_three_formats_of_one_model(name, dtype, tmp_path, monkeypatch):
    architecture = ARCHITECTURES[name]
    expected = load_checkpoint(make_model(tmp_path / "ct2", name, quantization=dtype))
    assert_same_checkpoint(
        load_checkpoint(make_hugging_face(tmp_path / "hf", architecture, dtype)), expected
    )
    directory = make_openai(tmp_path / "openai", monkeypatch, architecture, dtype)
    assert_same_checkpoint(load_checkpoint(directory), expected)
    assert_same_checkpoint(load_checkpoint(directory / "tiny.pt"), expected)


def test_alignment_heads_of_published_checkpoints(tmp_path, monkeypatch):
    """They are known by the file's name, as the reference's converter knows them."""
    directory = make_openai(tmp_path / "openai", monkeypatch, ARCHITECTURE)
    (directory / "generation_config.json").unlink(missing_ok=True)
    known = transformers._WHISPER_ALIGNMENT_HEADS
    monkeypatch.setitem(known, "openai/whisper-published", [(0, 0)])
    checkpoint = (directory / "tiny.pt").rename(directory / "published.pt")
    assert load_checkpoint(directory).config["alignment_heads"] == [[0, 0]]
    checkpoint.rename(directory / "unknown.pt")
    assert load_checkpoint(directory).config["alignment_heads"] == [[1, 0]], "the upper half"


def test_separating_is_the_reverse_of_fusing(tmp_path):
    checkpoint = load_checkpoint(make_model(tmp_path / "ct2", "small-heads"))
    layers = (checkpoint.dimensions.n_audio_layer, checkpoint.dimensions.n_text_layer)
    apart = weight_adapters.separate(checkpoint.weights, weight_adapters.OPENAI, *layers)
    assert set(apart) == set(separated(random_weights(ARCHITECTURE), OPENAI))
    fused = weight_adapters.fuse(apart, weight_adapters.OPENAI, *layers)
    assert set(fused) == set(checkpoint.weights)
    for name, entry in fused.items():
        values = entry.make() if isinstance(entry, Lazy) else entry
        np.testing.assert_array_equal(values, checkpoint.weights[name])


def test_shards(tmp_path):
    expected = load_checkpoint(make_hugging_face(tmp_path / "one", ARCHITECTURE))
    assert_same_checkpoint(
        load_checkpoint(make_hugging_face(tmp_path / "three", ARCHITECTURE, shards=3)), expected
    )


def test_files_in_memory(tmp_path):
    directory = make_hugging_face(tmp_path / "hf", ARCHITECTURE)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert_same_checkpoint(load_checkpoint("name", files), load_checkpoint(directory))


def test_separate_vocabulary_files(tmp_path):
    directory = make_hugging_face(tmp_path / "hf", ARCHITECTURE)
    expected = load_checkpoint(directory)
    tokens = vocabulary_tokens(ARCHITECTURE)
    end = tokens.index("<|endoftext|>")
    text = {token: index for index, token in enumerate(tokens[:end])}
    added = {token: end + index for index, token in enumerate(tokens[end:])}
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps(text))
    (directory / "added_tokens.json").write_text(json.dumps(added))
    assert_same_checkpoint(load_checkpoint(directory), expected)


def test_settings_from_the_configuration_and_defaults(tmp_path):
    directory = make_hugging_face(tmp_path / "hf", ARCHITECTURE)
    expected = load_checkpoint(directory).config
    (directory / "generation_config.json").unlink()
    config = json.loads((directory / "config.json").read_text())
    config["suppress_tokens"] = [3, 4]
    (directory / "config.json").write_text(json.dumps(config))
    found = load_checkpoint(directory).config
    assert found["suppress_ids"] == [3, 4]
    assert "suppress_ids_begin" not in found
    assert found["lang_ids"] == expected["lang_ids"]
    # The upper half of the layers, all heads.
    assert found["alignment_heads"] == [[1, 0]]


def test_vocabulary_from_tiktoken(tmp_path, monkeypatch):
    directory = make_openai(tmp_path / "openai", monkeypatch, ARCHITECTURE)
    expected = load_checkpoint(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(RuntimeError, match="Put the model's tokenizer.json beside it"):
        load_checkpoint(directory)
    letters = {letter: byte for byte, letter in enumerate(vocabulary_tokens(ARCHITECTURE)[:256])}
    tokens = vocabulary_tokens(ARCHITECTURE)
    lines = [
        base64.b64encode(bytes(letters[letter] for letter in token)).decode() + f" {rank}\n"
        for rank, token in enumerate(tokens[: tokens.index("<|endoftext|>")])
    ]
    (directory / "gpt2.tiktoken").write_text("".join(lines))
    assert_same_checkpoint(load_checkpoint(directory), expected)
    (directory / "gpt2.tiktoken").write_text("".join(lines[:-1]) + "IQ==\n")
    with pytest.raises(RuntimeError, match=r"gpt2.tiktoken.* is damaged"):
        load_checkpoint(directory)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(tmp_path):
    evil = Evil(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"dims": evil}, protocol=2))
    with pytest.raises(RuntimeError, match=r"'evil.pt' .*names posix.mkdir"):
        load_checkpoint(tmp_path)
    assert not evil.path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "tiny.pt"),
        (b"no archive", "zip"),
        (b"\x80\x02}q\x00.", "zip"),
    ],
)
def test_what_is_no_checkpoint(content, message, tmp_path):
    (tmp_path / "tiny.pt").write_bytes(content)
    with pytest.raises(RuntimeError, match=f"tiny.pt.*{message}|{message}"):
        load_checkpoint(tmp_path)


def test_other_checkpoints_of_torch(tmp_path, monkeypatch):
    saved = {"weights": np.zeros(3, np.float32)}
    (tmp_path / "a.pt").write_bytes(torch_save(monkeypatch, saved, "FloatStorage"))
    with pytest.raises(RuntimeError, match="should hold 'dims' and 'model_state_dict'"):
        load_checkpoint(tmp_path)
    (tmp_path / "b.pt").write_bytes(b"")
    with pytest.raises(RuntimeError, match="several checkpoints"):
        load_checkpoint(tmp_path)


def edited(name, change):
    def apply(directory):
        value = json.loads((directory / name).read_text())
        change(value)
        (directory / name).write_text(json.dumps(value))

    return apply


def rewritten(change):
    def apply(directory):
        path = directory / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (edited("config.json", lambda c: c.update(model_type="bert")), "not of a Whisper model"),
        (edited("config.json", lambda c: c.pop("encoder_layers")), "'encoder_layers'"),
        (edited("config.json", lambda c: c.update(decoder_layers=9)), "layer_2.* not found"),
        (edited("config.json", lambda c: c.update(activation_function="relu")), "activation"),
        (edited("config.json", lambda c: c.update(encoder_attention_heads=5)), "5 attention heads"),
        (edited("tokenizer.json", lambda t: t.pop("model")), "tokenizer.json"),
        (edited("tokenizer.json", lambda t: t.update(added_tokens=[1])), "tokenizer.json"),
        (rewritten(lambda data: data[:4]), "incomplete"),
        (rewritten(lambda data: data[:200]), "incomplete"),
        (rewritten(lambda data: data[:-9]), "incomplete"),
        (rewritten(lambda data: data.replace(b'"F32"', b'"F64"')), "data type F64"),
        (rewritten(lambda data: data.replace(b'"shape"', b'"shale"')), "ill described"),
        (rewritten(lambda data: data[:8] + b"[" + data[9:]), "damaged header"),
        (
            rewritten(lambda data: data.replace(b"encoder.conv2.weight", b"encoder.conv9.weight")),
            "variable encoder/conv2/weight not found",
        ),
    ],
)
def test_damaged_directories(damage, message, tmp_path):
    directory = make_hugging_face(tmp_path / "hf", ARCHITECTURE)
    damage(directory)
    with pytest.raises(RuntimeError, match=message):
        load_checkpoint(directory)


def test_a_bias_that_is_a_scalar(tmp_path):
    directory = make_hugging_face(tmp_path / "hf", ARCHITECTURE)
    path = directory / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["model.decoder.layers.0.self_attn.q_proj.bias"].update(shape=[], data_offsets=[0, 4])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    with pytest.raises(RuntimeError, match=r"linear_0/bias of file 'model.safetensors.*shape"):
        load_checkpoint(directory)


def test_missing_shard(tmp_path):
    directory = make_hugging_face(tmp_path / "hf", ARCHITECTURE, shards=2)
    next(directory.glob("model-1*")).unlink()
    with pytest.raises(RuntimeError, match="shards"):
        load_checkpoint(directory)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The files of both formats of a speck."""
    folder = tmp_path_factory.mktemp("speck")
    with pytest.MonkeyPatch.context() as patch:
        directories = [
            make_hugging_face(folder / "hf", SPECK),
            make_openai(folder / "openai", patch, SPECK),
        ]
    return [{path.name: path.read_bytes() for path in where.iterdir()} for where in directories]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_escapes(data, pieces):
    files = dict(data.draw(st.sampled_from(pieces)))
    name = "tiny.pt" if "tiny.pt" in files else "model.safetensors"
    content = bytearray(files[name])
    # The header of one format is at its start; the other's directory is at its end.
    start = data.draw(st.sampled_from([0, 0, max(0, len(content) - 9000)]))
    for _ in range(data.draw(st.integers(0, 4))):
        content[start + data.draw(st.integers(0, 8999))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    try:
        checkpoint = load_checkpoint("damaged", {**files, name: bytes(content)})
    except (ValueError, RuntimeError):
        return
    with np.errstate(all="ignore"):
        assert all(dense(checkpoint.weights, weight).size for weight in checkpoint.weight_names())


@pytest.mark.parametrize("value", [0, -1, 1000, 2000, 5.0, "5", True, None])
def test_what_is_no_small_number(value):
    assert [small_number({"n": n}, "n", "x.json") for n in (1, 2, 999)] == [1, 2, 999]
    with pytest.raises(RuntimeError, match="File x.json should have a small number as 'n', not"):
        small_number({"n": value}, "n", "x.json")


def test_most_tokens():
    name = "decoder/embeddings/weight"
    assert token_count({}, "x") == 0
    assert token_count({name: np.zeros((1 << 20, 1), np.int8)}, "x") == 1 << 20
    for shape in (((1 << 20) + 1, 1), (0, 4), (4, 0), (4,), (4, 4, 4)):
        with pytest.raises(RuntimeError, match="File x has token embeddings of the shape"):
            token_count({name: np.zeros(shape, np.int8)}, "x")
    assert token_count({name: np.zeros((1, (1 << 20) + 1), np.int8)}, "x") == 1
