"""Files made to do harm: every one is refused by name, or loaded, and none takes much memory."""

import dataclasses
import json
import math
import pickle
import re
import shutil
import struct
import zipfile

import numpy as np
import pytest

from compat_tests.support.hostile_files import (
    archive,
    load_apart,
    mapping,
    model_bin,
    named,
    number,
    pickled,
    row,
    storage,
    tensor,
    text,
    variable,
    view,
    with_header,
    with_pickle,
)
from compat_tests.support.miniature import SPECK, make_model, vocabulary_tokens
from compat_tests.support.miniature_formats import make_hugging_face, make_openai
from whisper_max_backend.engine.checkpoint import weight_adapters
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions, expected_shapes
from whisper_max_backend.engine.checkpoint.load import load_checkpoint
from whisper_max_backend.engine.checkpoint.pickle_reader import read_pickle

ONE = storage(8)  # of eight numbers
LAST = view(ONE, 7, (8,), (0,))  # the last of them eight times
NUMBERS = np.arange(8, dtype="<f4").tobytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A speck in each format."""
    folder = tmp_path_factory.mktemp("speck")
    with pytest.MonkeyPatch.context() as patch:
        make_openai(folder / "pt", patch, SPECK)
    make_hugging_face(folder / "hf", SPECK)
    make_model(folder / "ct2", SPECK)
    return folder


@pytest.fixture
def copy(models, tmp_path):
    """A copy of one that a test may change."""
    return lambda name: shutil.copytree(models / name, tmp_path / name)


# Pickles


def of_tensors(**tensors):
    return mapping({"dims": mapping({}), "model_state_dict": mapping(tensors)})


PICKLES = {
    # A storage whose numbers are a view of the last one: tensors of it lie behind the file.
    "state of a storage": (
        of_tensors(a=view(ONE + mapping({"values": LAST}) + b"b", 0, (8,), (1,))),
        "sets the state",
    ),
    "state of a function": (
        of_tensors(a=named("torch._utils", "_rebuild_tensor_v2") + mapping({}) + b"b"),
        "sets the state",
    ),
    "state of a tensor": (of_tensors(a=LAST + mapping({}) + b"b"), "sets the state"),
    "state of a dictionary": (mapping({}) + mapping({}) + b"b", "sets the state"),
    "numbers past the storage": (of_tensors(a=view(ONE, 1, (8,), (1,))), "past its storage"),
    "offset past the storage": (of_tensors(a=view(ONE, 8, (1,), (1,))), "past its storage"),
    "strides past the storage": (of_tensors(a=view(ONE, 0, (2, 4), (5, 1))), "past its storage"),
    "more numbers than the storage": (of_tensors(a=view(ONE, 0, (9,), (0,))), "past its storage"),
    "no numbers": (of_tensors(a=view(ONE, 0, (2**31 - 1, 0), (1, 1))), "empty"),
    "negative offset": (of_tensors(a=view(ONE, -1, (1,), (1,))), "ill described"),
    "negative stride": (of_tensors(a=view(ONE, 7, (8,), (-1,))), "ill described"),
    "truth as a size": (of_tensors(a=tensor(ONE, number(0), b"\x88\x85", b"\x88\x85")), "ill desc"),
    "float as an offset": (
        of_tensors(a=tensor(ONE, b"G" + bytes(8), b"K\x01\x85", b"K\x01\x85")),
        "ill described",
    ),
    "list as a shape": (of_tensors(a=tensor(ONE, b"K\0", b"]K\x01a", b"K\x01\x85")), "ill desc"),
    "many dimensions": (of_tensors(a=view(ONE, 0, (1,) * 70, (1,) * 70)), "ill described"),
    "huge stride": (
        of_tensors(a=tensor(ONE, b"K\0", b"K\x01\x85", b"\x8a\x09" + b"\xff" * 8 + b"\0\x85")),
        "cannot be read",
    ),
    "storage of its own size": (of_tensors(a=view(storage(9), 0, (1,), (1,))), "shorter"),
    "storage of negative size": (of_tensors(a=view(storage(-1), 0, (1,), (1,))), "shorter"),
    "storage that is not there": (of_tensors(a=storage(8, "../data.pkl")), "cannot be read"),
    "tensor as a storage": (of_tensors(a=view(LAST, 0, (1,), (1,))), "ill described"),
    "reference to a tensor": (row(*[LAST] * 5) + b"Q", "not to a storage"),
    "type that is no type": (storage(8, kind="Tensor"), "names torch.Tensor"),
    "a function's attribute": (
        named("torch._utils", "_rebuild_tensor_v2.__globals__"),
        r"names torch\._utils\._rebuild_tensor_v2\.__globals__",
    ),
    "eval": (named("builtins", "eval") + row(text("1")) + b"R", "names builtins.eval"),
    "dictionary of something": (
        named("collections", "OrderedDict") + row(b"]") + b"R",
        "other arguments",
    ),
    "storage called": (named("torch", "FloatStorage") + b")R", "other arguments"),
    "text called": (text("torch FloatStorage") + b")R", "calls what is no function"),
    "parameter of text": (
        named("torch._utils", "_rebuild_parameter") + row(text("a")) + b"R",
        "other arguments",
    ),
    "append to a text": (text("a") + b"Na", "no list"),
    "item of a list": (b"]" + text("a") + b"Ns", "no strings|no dictionary"),
    "number as a key": (b"}NNs", "no strings"),
    "key that takes for ever": (b"}" + b"K\x01\x85" + b"q\0h\0\x86" * 60 + b"Ns", "no strings"),
    "nothing": (b"", "cannot be read"),
    "mark": (b"(", "cannot be read"),
    "unknown memo": (b"h\x09", "cannot be read"),
    "no stop": (b"N" * 9 + b"\xff", "cannot be read"),
    **{
        f"opcode {opcode!r}": (prefix + opcode, "opcode")
        for prefix, opcode in [
            (b"))", pickle.NEWOBJ),
            (b")", pickle.DUP),
            (b"()", pickle.OBJ),
            (b"(", b"iposix\nsystem\n"),
            (b"X\0\0\0\0" * 2, pickle.STACK_GLOBAL),
            (b")))", pickle.NEWOBJ_EX),
            (b"", pickle.EXT1 + b"\1"),
            (b"", pickle.NEXT_BUFFER),
            (b"", pickle.PERSID + b"a\n"),
            (b"", pickle.BYTEARRAY8 + bytes(8)),
        ]
    },
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles(case, tmp_path):
    value, message = PICKLES[case]
    (tmp_path / "tiny.pt").write_bytes(archive(pickled(value), {"data/0": NUMBERS}))
    with pytest.raises(RuntimeError, match=message) as error:
        load_checkpoint(tmp_path)
    assert "'tiny.pt'" in str(error.value)


def test_a_state_dict_has_metadata(copy):
    """torch.save writes an attribute of state dicts as state to set; it is passed over."""
    model = copy("pt")
    expected = load_checkpoint(model).in_memory().weights
    modules = b"(" + text("") + mapping({"version": number(1)}) + b"u"
    state = named("collections", "OrderedDict") + b")R" + modules
    path = model / "tiny.pt"

    def built(content):
        # The dictionary of tensors ends before the outer one: 's' or 'u' sets it there.
        assert content.endswith(b"uu.")
        return content[:-2] + mapping({"_metadata": state}) + b"bu."

    path.write_bytes(with_pickle(path.read_bytes(), built))
    for name, values in load_checkpoint(model).weights.items():
        np.testing.assert_array_equal(values, expected[name])


def test_views_inside_a_storage():
    numbers = np.arange(8, dtype=np.float32)
    views = {
        "transposed": view(ONE, 1, (2, 3), (1, 2)),
        "apart": view(ONE, 0, (2,), (7,)),
        "scalar": view(ONE, 7, (), ()),
    }
    found = read_pickle(pickled(mapping(views)), lambda key, dtype, count: numbers)
    np.testing.assert_array_equal(found["transposed"], numbers[1:7].reshape(3, 2).T)
    np.testing.assert_array_equal(found["apart"], numbers[::7])
    assert found["scalar"] == 7
    assert not any(array.flags.writeable for array in found.values())


# Memory


def test_an_index_of_the_memo_takes_no_memory(copy):
    model = copy("pt")
    path = model / "tiny.pt"
    index = b"r" + struct.pack("<I", 1 << 30)
    path.write_bytes(with_pickle(path.read_bytes(), lambda content: content[:-1] + index + b"."))
    outcome = load_apart(model)
    assert outcome.error == ""
    assert outcome.megabytes < 100


def test_many_opcodes(copy):
    model = copy("pt")
    path = model / "tiny.pt"
    path.write_bytes(with_pickle(path.read_bytes(), lambda content: b"\x80\2" + b"N" * 1_000_000))
    outcome = load_apart(model)
    assert "'tiny.pt'" in outcome.error
    assert "opcodes" in outcome.error
    assert outcome.megabytes < 200


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused(compression, tmp_path):
    """Its size says nothing of how much memory it takes, and torch.save makes none."""
    path = tmp_path / "tiny.pt"
    path.write_bytes(archive(pickled(b"N"), {"data/0": bytes(1 << 20)}, compression))
    with pytest.raises(RuntimeError, match=r"'tiny.pt'.*is compressed"):
        load_checkpoint(tmp_path)


def test_a_large_directory_of_an_archive(tmp_path):
    entries = {f"data/{'x' * 200}{index}": b"" for index in range(20_000)}
    (tmp_path / "tiny.pt").write_bytes(archive(pickled(b"N"), entries))
    with pytest.raises(RuntimeError, match=r"'tiny.pt'.*directory is larger"):
        load_checkpoint(tmp_path)


EMBEDDINGS = "model.decoder.embed_tokens.weight"


@pytest.mark.parametrize("shape", [[100_000_000, 0], [0, 4], [4], [2**62, 2**62, 0], [1] * 65])
def test_embeddings_of_no_or_many_rows(shape, copy):
    """As many tokens as there are rows are made, unless the shape is looked at before."""
    model = copy("hf")
    path = model / "model.safetensors"

    def change(header):
        begin = header[EMBEDDINGS]["data_offsets"][0]
        end = begin + 4 * int(np.prod([float(size) for size in shape]))
        header[EMBEDDINGS].update(shape=shape, data_offsets=[begin, end])

    path.write_bytes(with_header(path.read_bytes(), change))
    outcome = load_apart(model)
    assert outcome.error.startswith("RuntimeError")
    assert "'model.safetensors'" in outcome.error
    assert outcome.megabytes < 100


WIDE = Dimensions(
    n_mels=80,
    n_audio_ctx=4,
    n_audio_state=256,
    n_audio_head=1,
    n_audio_layer=200,
    n_vocab=len(vocabulary_tokens(SPECK)),
    n_text_ctx=4,
    n_text_state=256,
    n_text_head=1,
    n_text_layer=200,
)
"""Of a model of 1.5 GB."""


def test_tensors_that_share_their_bytes(copy):
    model = copy("hf")
    weights = {name: np.broadcast_to(0, shape) for name, shape in expected_shapes(WIDE).items()}
    header = {
        f"model.{name}": {
            "dtype": "F32",
            "shape": zeros.shape,
            "data_offsets": [0, 4 * zeros.size],
        }
        for name, zeros in weight_adapters.separate(
            weights, weight_adapters.HUGGING_FACE, 200, 200
        ).items()
    }
    data = json.dumps(header).encode()
    content = len(data).to_bytes(8, "little") + data + bytes(1 << 21)
    (model / "model.safetensors").write_bytes(content)
    config = json.loads((model / "config.json").read_text())
    config.update(encoder_layers=200, decoder_layers=200)
    (model / "config.json").write_text(json.dumps(config))
    outcome = load_apart(model)
    assert "'model.safetensors'" in outcome.error
    assert "same numbers" in outcome.error
    assert outcome.megabytes < 200


@pytest.mark.parametrize(("layers", "refused"), [(200, True), (20, True), (15, False)])
def test_aliases_of_one_weight(layers, refused, copy):
    """A layer on each side has 7.4 MB, and 134 MB may be there beside the file."""
    model = copy("ct2")
    wide = dataclasses.replace(WIDE, n_audio_layer=layers, n_text_layer=layers)
    written = [variable(f"{side}/num_heads", (), 2, b"\1\0") for side in ("encoder", "decoder")]
    aliases = []
    for name, shape in expected_shapes(wide).items():
        first = re.sub(r"layer_\d+", "layer_0", name)
        if name == first:
            written.append(variable(name, shape, 0, bytes(4 * int(np.prod(shape)))))
        else:
            aliases.append((name, first))
    (model / "model.bin").write_bytes(model_bin(written, aliases))
    outcome = load_apart(model)
    assert ("'model.bin'" in outcome.error) == refused
    assert ("same numbers" in outcome.error) == refused
    assert outcome.megabytes < 200


@pytest.mark.parametrize("count", [65_537, 1_000_000])
@pytest.mark.parametrize("place", ["variables", "aliases"])
def test_counts_of_a_model_without_end(place, count, copy):
    """A million of them fit into 10 MB and take their time."""
    model = copy("ct2")
    many = struct.pack("<I", count)
    if place == "variables":
        content = model_bin([])[:-8] + many + variable("a", (0,), 0, b"") * count
    else:
        content = model_bin([])[:-4] + many + b"\2\0a\0" * 2 * count
    (model / "model.bin").write_bytes(content)
    with pytest.raises(RuntimeError, match=f"'model.bin'.* {count} {place}"):
        load_checkpoint(model)


@pytest.mark.parametrize("size", [(1 << 25) + 1, 1 << 30])
@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_large_texts(name, size, copy):
    model = copy("ct2")
    with (model / name).open("wb") as file:
        file.truncate(size)
    outcome = load_apart(model)
    assert outcome.error.startswith("RuntimeError")
    assert f"'{name}'" in outcome.error
    assert "larger than any" in outcome.error
    assert outcome.megabytes < 100


@pytest.mark.parametrize(
    ("size", "value"),
    [
        ("n_mels", 1025),
        ("n_audio_ctx", 16_385),
        ("n_text_ctx", 4_097),
        ("n_text_layer", 257),
        ("n_audio_layer", 257),
        ("n_vocab", 1_048_577),
        ("n_audio_state", 16_385),
        ("n_text_state", 16_385),
    ],
)
def test_sizes_beyond_any_model(size, value, copy):
    model = copy("ct2")
    sizes = dataclasses.replace(load_checkpoint(model).dimensions, **{size: value})
    shapes = expected_shapes(sizes)
    written = [
        variable(name, shape, 1, bytes(math.prod(shape)))
        for name, shape in shapes.items()
        if math.prod(shape) < 1 << 26  # the others are looked for later
    ]
    written += [variable(f"{side}/num_heads", (), 2, b"\1\0") for side in ("encoder", "decoder")]
    (model / "model.bin").write_bytes(model_bin(written))
    with pytest.raises(RuntimeError, match=f"'model.bin'.* {size} {value}"):
        load_checkpoint(model)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ("encoder/conv1/bias", 1),
        ("encoder/conv1/bias", 2),
        ("decoder/layer_norm/gamma", 1),
        ("encoder/conv2/weight", 3),
        ("decoder/embeddings/weight", 3),
    ],
)
def test_integers_where_there_are_none(changed, code, copy):
    """Weights may be int8 (1) or int16 (2); nothing is int32 (3)."""
    model = copy("ct2")
    bytes_of = {0: 4, 1: 1, 2: 2, 3: 4}
    written = [variable(f"{side}/num_heads", (), 2, b"\1\0") for side in ("encoder", "decoder")]
    for name, shape in expected_shapes(load_checkpoint(model).dimensions).items():
        kind = code if name == changed else 0
        written.append(variable(name, shape, kind, bytes(bytes_of[kind] * math.prod(shape))))
    (model / "model.bin").write_bytes(model_bin(written))
    with pytest.raises(RuntimeError, match=f"Variable {changed} of .*wrong data type int"):
        load_checkpoint(model)
