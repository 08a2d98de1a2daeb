"""Settings of config.json and its like: what the reference takes, and what is refused at once."""

import io
import json
import os

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.miniature import ARCHITECTURES, SPECK, make_model, vocabulary_tokens
from compat_tests.support.miniature_formats import make_hugging_face
from whisper_max_backend.engine.checkpoint.load import load_checkpoint

ARCHITECTURE = ARCHITECTURES["one-head"]
COUNT = len(vocabulary_tokens(ARCHITECTURE))
SOT = vocabulary_tokens(ARCHITECTURE).index("<|startoftranscript|>")
FEATURES = np.random.default_rng(0).uniform(-1, 1, (1, 80, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = make_model(tmp_path_factory.mktemp("one-head"), "one-head")
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def with_setting(files, key, value):
    config = {**json.loads(files["config.json"]), key: value}
    return {**files, "config.json": json.dumps(config).encode()}


def ask_reference(files):
    """Use every setting of a model."""
    model = ctranslate2.models.Whisper("model", files=files)
    features = ctranslate2.StorageView.from_array(FEATURES)
    model.detect_language(features)
    model.align(features, [SOT], [[1, 2]], 20)
    model.generate(features, [[SOT]], beam_size=1, max_length=8)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("suppress_ids", [0, COUNT - 1], [0, COUNT - 1]),
        ("suppress_ids", [], []),
        ("suppress_ids", [5.0], [5]),
        ("suppress_ids", [3, 3], [3, 3]),
        ("suppress_ids_begin", [0, COUNT - 1], [0, COUNT - 1]),
        ("suppress_ids_begin", [], []),
        ("lang_ids", [SOT + 2, SOT + 1], [SOT + 2, SOT + 1]),
        ("lang_ids", [5.0], [5]),
        ("lang_ids", [], []),
        ("alignment_heads", [[0, 0]], [[0, 0]]),
        ("alignment_heads", [[0.0, 0]], [[0, 0]]),
        ("unknown", {"a": [None]}, {"a": [None]}),
    ],
)
def test_what_the_reference_takes(key, value, expected, files):
    changed = with_setting(files, key, value)
    ask_reference(changed)
    assert load_checkpoint("model", changed).config[key] == expected


@pytest.mark.parametrize("key", ["suppress_ids", "suppress_ids_begin", "lang_ids"])
def test_null_is_as_if_it_was_not_there(key, files):
    changed = with_setting(files, key, None)
    ask_reference(changed)
    assert key not in load_checkpoint("model", changed).config


def test_empty_heads_are_refused_when_they_are_used(files):
    changed = with_setting(files, "alignment_heads", [])
    with pytest.raises(ValueError, match="index"):
        ask_reference(changed)
    assert load_checkpoint("model", changed).config["alignment_heads"] == []


IDS = ("suppress_ids", "suppress_ids_begin", "lang_ids")
WRONG_IDS: list = [-1, COUNT, 2**31, 2**63, 10**30, 1.5, 1e308, True, False, None, "1", [1], {}]
WRONG_LISTS: list = [5, 0, "", "12", {}, {"a": 1}, True]
WRONG_HEADS: list = [
    *([[0]], [[0, 0, 0]], [0, 0], [[1, 0]], [[0, 1]], [[-1, 0]], [[0, -1]], [[0.5, 0]]),
    *([[True, 0]], [[0, None]], [["0", 0]], [[[0], 0]], [{}], [[2**63, 0]], [[0, 0]] * 100_000),
]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, [value]) for key in IDS for value in WRONG_IDS),
        *((key, value) for key in (*IDS, "alignment_heads") for value in WRONG_LISTS),
        *(("alignment_heads", value) for value in WRONG_HEADS),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_lies_outside_the_model_is_refused(key, value, files):
    """The reference crashes, or fails when it is used, or reads and writes out of bounds."""
    with pytest.raises(RuntimeError, match=f"'config.json' in model 'name'.*'{key}'.*correct or"):
        load_checkpoint("name", with_setting(files, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("suppress_tokens", [-1]),
        ("begin_suppress_tokens", 5),
        ("lang_to_id", {"<|en|>": 1, "<|de|>": "2"}),
        ("lang_to_id", {"<|en|>": 10**9}),
        ("lang_to_id", [[1], 2]),
        ("lang_to_id", "all"),
        ("alignment_heads", [[9, 9]]),
        ("alignment_heads", {"a": 1}),
        ("alignment_heads", 0),
    ],
)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_hugging_face_names_its_own_keys_and_files(file, key, value, tmp_path):
    directory = make_hugging_face(tmp_path / "hf", SPECK)
    if file == "config.json":
        (directory / "generation_config.json").unlink()
    path = directory / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(RuntimeError, match=f"'{file}' in model .*'{key}'"):
        load_checkpoint(directory)


# How the text of files comes


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
@pytest.mark.parametrize(
    "given",
    [
        lambda content: MARK + content,
        lambda content: io.BytesIO(MARK + content),
        lambda content: io.StringIO(content.decode()),
        lambda content: io.StringIO("\ufeff" + content.decode()),
    ],
    ids=["mark", "mark in a file", "text", "mark in text"],
)
def test_text_and_byte_order_marks(given, name, files):
    expected = load_checkpoint("name", files)
    ctranslate2.models.Whisper("name", files={**files, name: given(files[name])})
    found = load_checkpoint("name", {**files, name: given(files[name])})
    assert found.vocabulary == expected.vocabulary
    assert found.config == expected.config


def test_byte_order_marks_on_disk(tmp_path):
    directory = make_hugging_face(tmp_path / "hf", SPECK)
    expected = load_checkpoint(directory)
    for path in directory.glob("*.json"):
        path.write_bytes(MARK + path.read_bytes())
    found = load_checkpoint(directory)
    assert found.vocabulary == expected.vocabulary
    assert found.config == expected.config


@pytest.mark.parametrize(
    "content",
    [
        MARK + MARK + b"{}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00\\ud800"}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"",
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_json(content, files):
    changed = {**files, "config.json": content}
    with pytest.raises((RuntimeError, UnicodeDecodeError)):
        ctranslate2.models.Whisper("name", files=changed)
    with pytest.raises(RuntimeError, match=r"'config.json' in model 'name'"):
        load_checkpoint("name", changed)


def test_text_that_utf8_cannot_hold(files):
    changed = {**files, "config.json": io.StringIO('"\ud800"')}
    with pytest.raises(RuntimeError):
        ctranslate2.models.Whisper("name", files=changed)
    changed["config.json"].seek(0)
    with pytest.raises(RuntimeError, match=r"'config.json'"):
        load_checkpoint("name", changed)


def test_pairs_of_surrogates_are_letters(files):
    changed = {**files, "config.json": b'{"a": "\\ud83d\\ude00"}'}
    assert load_checkpoint("name", changed).config == {"a": "\U0001f600"}


def test_a_pipe_is_no_file(tmp_path):
    """Opening it would wait for somebody who writes to it."""
    directory = make_model(tmp_path / "model", SPECK)
    (directory / "config.json").unlink()
    os.mkfifo(directory / "config.json")
    assert load_checkpoint(directory).config == {}
