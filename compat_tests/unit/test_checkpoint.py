"""CTranslate2 directories: the weights that its writer wrote, and what becomes of damaged files."""

import contextlib
import io
import json
import shutil
import struct

import ctranslate2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compat_tests.support.compare import assert_same_checkpoint
from compat_tests.support.hostile_files import string
from compat_tests.support.miniature import (
    ARCHITECTURES,
    SPECK,
    make_model,
    make_spec,
    model_config,
    random_weights,
    vocabulary_tokens,
)
from whisper_max_backend.engine.checkpoint.dimensions import expected_shapes
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint

QUANTIZATIONS = {
    None: "float32",
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int16": "int16",
    "int8": "int8_float32",
    "int8_float32": "int8_float32",
    "int8_float16": "int8_float16",
    "int8_bfloat16": "int8_bfloat16",
}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["one-head", "small-heads"])
def test_every_weight_is_what_the_converter_wrote(name, quantization, tmp_path):
    architecture = ARCHITECTURES[name]
    checkpoint = load_checkpoint(make_model(tmp_path, name, quantization=quantization))
    written = make_spec(architecture, quantization=quantization).variables()
    exact = random_weights(architecture)
    for weight in checkpoint.weight_names():
        # Equal weights are written once and named twice.
        variable = written[weight] if not isinstance(written[weight], str) else None
        variable = variable or written[written[weight]]
        np.testing.assert_array_equal(checkpoint.weights[weight], variable.numpy())
        assert checkpoint.weights[weight].flags.writeable is False
        values = dense(checkpoint.weights, weight)
        assert values.dtype == np.float32
        assert values.flags.aligned
        assert values.flags.c_contiguous
        relative = 2.0 ** {"float16": -11, "bfloat16": -8}.get(quantization, -24)
        if weight + "_scale" in checkpoint.weights:
            scale = checkpoint.weights[weight + "_scale"]
            step = 1 / scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else 1 / scale
            assert np.all(np.abs(values - exact[weight]) <= 0.5001 * step)
        elif quantization not in ("int8_float16", "int8_bfloat16"):
            np.testing.assert_allclose(values, exact[weight], rtol=relative, atol=1e-7)
    assert set(checkpoint.weight_names()) == set(expected_shapes(checkpoint.dimensions))
    assert checkpoint.dtype == QUANTIZATIONS[quantization]
    assert checkpoint.config == model_config(architecture)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dimensions(name, tmp_path):
    architecture = ARCHITECTURES[name]
    dimensions = load_checkpoint(make_model(tmp_path, name)).dimensions
    assert dimensions.n_mels == architecture.n_mels
    assert dimensions.n_audio_ctx == architecture.n_audio_ctx
    assert dimensions.n_audio_state == dimensions.n_text_state == architecture.n_state
    assert dimensions.n_audio_head == architecture.n_audio_head
    assert dimensions.n_text_head == architecture.n_text_head
    assert dimensions.n_audio_layer == architecture.n_audio_layer
    assert dimensions.n_text_layer == architecture.n_text_layer
    assert dimensions.n_text_ctx == architecture.n_text_ctx
    assert dimensions.n_vocab == len(vocabulary_tokens(architecture))


@pytest.fixture(scope="module")
def speck(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("speck"), SPECK)


@pytest.fixture
def copy(speck, tmp_path):
    return shutil.copytree(speck, tmp_path / "model")


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO])
def test_files_in_memory(wrap, speck):
    files = {path.name: wrap(path.read_bytes()) for path in speck.iterdir()}
    assert_same_checkpoint(load_checkpoint("name", files), load_checkpoint(speck))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_vocabulary_as_text(end, speck, copy):
    tokens = json.loads((copy / "vocabulary.json").read_text())
    (copy / "vocabulary.json").unlink()
    (copy / "vocabulary.txt").write_bytes("".join(token + end for token in tokens).encode())
    assert_same_checkpoint(load_checkpoint(copy), load_checkpoint(speck))
    assert (
        ctranslate2.models.Whisper(str(copy)).num_languages
        == load_checkpoint(copy).vocabulary.num_languages
    )


def test_a_file_is_no_directory(copy):
    path = copy / "model.bin"
    with pytest.raises(RuntimeError, match="Unable to open file 'model.bin' in model"):
        ctranslate2.models.Whisper(str(path))
    with pytest.raises(RuntimeError, match=f"Unable to open file 'model.bin' in model '{path}'"):
        load_checkpoint(path)


def test_files_in_memory_may_have_the_name_of_a_checkpoint(speck, tmp_path):
    (tmp_path / "x.pt").touch()
    files = {path.name: path.read_bytes() for path in speck.iterdir()}
    assert_same_checkpoint(load_checkpoint(tmp_path / "x.pt", files), load_checkpoint(speck))


def test_heads_that_are_not_stated_are_eight(tmp_path):
    model = make_model(tmp_path, "one-head")
    for side in (b"encoder", b"decoder"):
        replaced(side + b"/num_heads", side + b"/num_headx")(model)
    ctranslate2.models.Whisper(str(model))
    dimensions = load_checkpoint(model).dimensions
    assert (dimensions.n_audio_head, dimensions.n_text_head) == (8, 8)


def serialized(spec, version):
    """The model as writers of older binary versions laid it out."""
    names = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
    variables = dict(spec.variables(ordered=True))
    aliases = {name: value for name, value in variables.items() if isinstance(value, str)}
    if version < 3:
        for alias, name in aliases.items():
            for suffix in ("", "_scale"):
                if name + suffix in variables:
                    variables[alias + suffix] = variables[name + suffix]
    else:
        variables = {name: v for name, v in variables.items() if name not in aliases}
    out = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        shape = value.shape
        item = np.dtype(value.dtype).itemsize
        out += string(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        if version >= 4:
            out += struct.pack("<BI", names.index(value.dtype), value.num_bytes())
        else:
            out += struct.pack("<BI", item, value.num_bytes() // item)
        out += value.to_bytes()
    if version >= 3:
        out += struct.pack("<I", len(aliases))
        out += b"".join(string(alias) + string(name) for alias, name in aliases.items())
    return out


@pytest.mark.parametrize("quantization", [None, "int8", "int16"])
@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_older_versions(version, quantization, tmp_path, copy):
    expected = load_checkpoint(make_model(tmp_path / "current", SPECK, quantization=quantization))
    spec = make_spec(SPECK, quantization=quantization)
    (copy / "model.bin").write_bytes(serialized(spec, version))
    ctranslate2.models.Whisper(str(copy))
    assert_same_checkpoint(load_checkpoint(copy), expected)


def test_int16_without_a_scale(copy):
    spec = make_spec(SPECK, quantization="int16")
    (copy / "model.bin").write_bytes(serialized(spec, 6).replace(b"weight_scale", b"weight_scalx"))
    checkpoint = load_checkpoint(copy)
    name = "encoder/conv1/weight"
    np.testing.assert_array_equal(
        dense(checkpoint.weights, name),
        np.float32(1) / np.float32(1000) * checkpoint.weights[name].astype(np.float32),
    )


def replaced(old, new):
    def change(model):
        data = (model / "model.bin").read_bytes()
        assert old in data
        (model / "model.bin").write_bytes(data.replace(old, new))

    return change


def overwritten(variable, offset, new):
    """Bytes of the header of a variable, counted from the end of its name."""

    def change(model):
        data = (model / "model.bin").read_bytes()
        start = data.index(variable.encode()) + len(variable) + 1 + offset
        (model / "model.bin").write_bytes(data[:start] + new + data[start + len(new) :])

    return change


def written(name, content):
    return lambda model: (model / name).write_bytes(content)


def shortened(size):
    return lambda model: (model / "model.bin").write_bytes(
        (model / "model.bin").read_bytes()[:size]
    )


WHISPER = b"\x0c\0WhisperSpec\0"
DAMAGES = {
    "no directory": (shutil.rmtree, "Unable to open file 'model.bin' in model '"),
    "no model.bin": (lambda m: (m / "model.bin").unlink(), "Unable to open file 'model.bin'"),
    "empty model.bin": (written("model.bin", b""), "'model.bin' in model .* is incomplete"),
    "truncated in data": (shortened(-100), "decoder|encoder"),
    "truncated in half": (shortened(5000), "invalid payload size|incomplete"),
    "later version": (replaced(b"\6\0\0\0" + WHISPER, b"\7\0\0\0" + WHISPER), "binary version"),
    "later revision": (replaced(WHISPER + b"\3", WHISPER + b"\4"), "revision"),
    "unknown model": (replaced(WHISPER, b"\x0c\0WhisperSpex\0"), "Unknown model WhisperSpex"),
    "unknown type": (overwritten("encoder/conv1/bias", 5, b"\x09"), "encoder/conv1/bias"),
    "other size": (overwritten("encoder/conv1/bias", 6, b"\1\0\0\0"), "invalid payload size"),
    "huge dimension": (overwritten("encoder/conv1/bias", 1, b"\xff" * 4), "invalid payload size"),
    "missing weight": (
        replaced(b"encoder/conv2/weight", b"encoder/conv9/weight"),
        "variable encoder/conv2/weight not found",
    ),
    "missing norm": (
        replaced(b"decoder/layer_norm/gamma", b"decoder/layer_norm/gammx"),
        "variable decoder/layer_norm/gamma not found",
    ),
    "no vocabulary": (
        lambda m: (m / "vocabulary.json").unlink(),
        "Cannot load the vocabulary from the model directory",
    ),
    "vocabulary cut short": (written("vocabulary.json", b'["a"'), "vocabulary.json.*JSON"),
    "vocabulary object": (written("vocabulary.json", b'{"a": 1}'), "list of strings"),
    "vocabulary numbers": (written("vocabulary.json", b"[1]"), "list of strings"),
    "config cut short": (written("config.json", b"{"), "config.json.*JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_raises_what_the_reference_raises(damage, copy):
    change, message = DAMAGES[damage]
    change(copy)
    with pytest.raises((RuntimeError, ValueError, IndexError)) as reference:
        ctranslate2.models.Whisper(str(copy))
    with pytest.raises(reference.type, match=message) as ours:
        load_checkpoint(copy)
    assert str(copy) in str(ours.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([1], "files argument must be a dictionary"),
        ({"model.bin": "text"}, "must be a file-like or bytes object"),
        ({}, "Unable to open file 'model.bin' in model 'name'"),
    ],
)
def test_bad_files_raise_what_the_reference_raises(files, message):
    with pytest.raises((TypeError, RuntimeError), match=message) as reference:
        ctranslate2.models.Whisper("name", files=files)
    with pytest.raises(reference.type, match=message):
        load_checkpoint("name", files)


def test_scale_of_int8_is_needed(tmp_path):
    model = make_model(tmp_path, SPECK, quantization="int8")
    replaced(b"layer_0/ffn/linear_0/weight_scale", b"layer_0/ffn/linear_0/weight_scalx")(model)
    with pytest.raises(RuntimeError) as reference:
        ctranslate2.models.Whisper(str(model))
    with pytest.raises(RuntimeError, match="weight_scale not found") as ours:
        load_checkpoint(model)
    assert str(reference.value) in str(ours.value)


def with_tokens(change):
    def apply(model):
        path = model / "vocabulary.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # The reference loads these and fails or errs later.
        (with_tokens(lambda tokens: [*tokens, "one more"]), "tokens, but file .* embeddings for"),
        (with_tokens(lambda tokens: tokens[:20]), "lacks <.startoftranscript.>"),
        (written("config.json", b"[]"), "should hold a JSON object"),
        (overwritten("decoder/activation", 6, b"\0"), "decoder/activation"),
        (overwritten("encoder/num_heads", 6, b"\3\0"), "3 attention heads"),
        (replaced(WHISPER, b"\x0d\0Wav2Vec2Spec\0"), "not a Whisper model"),
        (
            replaced(
                b"decoder/layer_0/self_attention/linear_1/bias\0\1\4",
                b"decoder/layer_0/self_attention/linear_1/bias\0\1\3",
            ),
            "decoder/layer_0/self_attention/linear_1/bias",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message, copy):
    change(copy)
    with pytest.raises((RuntimeError, ValueError), match=message):
        load_checkpoint(copy)


def test_fewer_tokens_than_embeddings_are_accepted(copy, caplog):
    with_tokens(lambda tokens: tokens[:-5])(copy)
    ctranslate2.models.Whisper(str(copy))
    assert load_checkpoint(copy).vocabulary.size == load_checkpoint(copy).dimensions.n_vocab - 5
    assert "embeddings" in caplog.text


def test_an_absent_bias_is_zero(copy):
    replaced(b"encoder/conv2/bias", b"encoder/conv9/bias")(copy)
    ctranslate2.models.Whisper(str(copy))
    assert not np.any(dense(load_checkpoint(copy).weights, "encoder/conv2/bias"))


def test_a_projection_of_its_own_is_refused(copy):
    spec = make_spec(SPECK)
    spec.decoder.projection.weight = type(spec.decoder.embeddings.weight)(
        spec.decoder.embeddings.weight.numpy() + 1
    )
    (copy / "model.bin").write_bytes(serialized(spec, 6))
    with pytest.raises(RuntimeError, match="output projection of its own"):
        load_checkpoint(copy)


@pytest.fixture(scope="module")
def pieces(speck):
    """The speck's files and the places in model.bin that are not weights."""
    files = {path.name: path.read_bytes() for path in speck.iterdir()}
    data = files["model.bin"]
    places = list(range(30))
    for name, value in make_spec(SPECK).variables().items():
        start = data.index(string(name))
        rank = 0 if isinstance(value, str) else len(value.shape)
        places += range(start, start + len(name) + 3 + 1 + 4 * rank + 5)
    return files, places


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_escapes(data, pieces):
    files, places = pieces
    content = bytearray(files["model.bin"])
    for place in data.draw(st.lists(st.sampled_from(places), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    with contextlib.suppress(ValueError, RuntimeError):
        checkpoint = load_checkpoint("damaged", {**files, "model.bin": bytes(content)})
        shapes = expected_shapes(checkpoint.dimensions)
        found = {name: checkpoint.weights[name].shape for name in checkpoint.weight_names()}
        assert found == shapes
