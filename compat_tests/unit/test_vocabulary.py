"""Vocabulary against the reference's, and its rules for unusual token lists."""

import ctranslate2
import pytest

from compat_tests.support.miniature import (
    ARCHITECTURES,
    make_model,
    make_tokenizer,
    vocabulary_tokens,
)
from whisper_max_backend.engine.checkpoint.load import load_checkpoint
from whisper_max_backend.engine.checkpoint.vocabulary import Vocabulary


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_properties_are_the_references(name, tmp_path):
    model = make_model(tmp_path, name)
    reference = ctranslate2.models.Whisper(str(model))
    checkpoint = load_checkpoint(model)
    assert checkpoint.vocabulary.is_multilingual == reference.is_multilingual
    assert checkpoint.vocabulary.num_languages == reference.num_languages
    assert checkpoint.dimensions.n_mels == reference.n_mels


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ids_are_the_tokenizers(name):
    vocabulary = Vocabulary(vocabulary_tokens(ARCHITECTURES[name]))
    tokenizer = make_tokenizer(ARCHITECTURES[name])
    for token, index in tokenizer.get_vocab().items():
        assert vocabulary.to_id(token) == index
        assert vocabulary.to_token(index) == token
    assert vocabulary.sot == tokenizer.token_to_id("<|startoftranscript|>")
    assert vocabulary.eot == tokenizer.token_to_id("<|endoftext|>")
    assert vocabulary.no_speech == tokenizer.token_to_id("<|nospeech|>")
    assert vocabulary.no_timestamps == tokenizer.token_to_id("<|notimestamps|>")
    assert vocabulary.to_token(vocabulary.timestamp_begin) == "<|0.00|>"
    assert vocabulary.to_token(vocabulary.size - 1) == "<|30.00|>"


def test_older_name_of_no_speech(tmp_path):
    model = make_model(tmp_path, "one-head")
    path = model / "vocabulary.json"
    path.write_text(path.read_text().replace("nospeech", "nocaptions"))
    reference = ctranslate2.models.Whisper(str(model))
    vocabulary = load_checkpoint(model).vocabulary
    assert vocabulary.to_token(vocabulary.no_speech) == "<|nocaptions|>"
    assert vocabulary.num_languages == reference.num_languages == 99


def test_unknown_and_repeated_tokens():
    vocabulary = Vocabulary(["a", "b", "a", "<|endoftext|>"])
    assert vocabulary.to_id("a") == 0
    assert vocabulary.to_token(2) == "a"
    assert vocabulary.to_id("unknown") == vocabulary.eot == 3
    assert not vocabulary.is_multilingual
    assert vocabulary.missing()


def test_end_of_text_is_added_where_it_is_absent():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.size == 2
    assert vocabulary.to_token(1) == "<|endoftext|>"


@pytest.mark.parametrize("index", [-1, 4])
def test_invalid_id(index):
    with pytest.raises(ValueError, match=rf"Invalid token ID {index}: .* between 0 and 3"):
        Vocabulary(["a", "b", "c", "<|endoftext|>"]).to_token(index)


def test_equal_tokens_make_equal_vocabularies():
    tokens = vocabulary_tokens(ARCHITECTURES["one-head"])
    vocabulary = Vocabulary(tokens)
    assert vocabulary == Vocabulary(list(tokens))
    assert vocabulary != Vocabulary(tokens[:-1])
    assert vocabulary != tokens


def test_representation():
    for name, kind in (("one-head", "multilingual"), ("english", "English-only")):
        tokens = vocabulary_tokens(ARCHITECTURES[name])
        assert repr(Vocabulary(tokens)) == f"Vocabulary({kind}, {len(tokens)} tokens, 99 languages)"


@pytest.mark.parametrize("lacking", ["<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>"])
def test_what_decoding_cannot_do_without(lacking):
    tokens = vocabulary_tokens(ARCHITECTURES["one-head"])
    assert Vocabulary(tokens).missing() == []
    assert Vocabulary([token for token in tokens if token != lacking]).missing() == [lacking]
    first = tokens.index("<|startoftranscript|>")
    tokens[first], tokens[first + 106] = tokens[first + 106], tokens[first]
    assert Vocabulary(tokens).missing() == ["tokens in Whisper's order"]
