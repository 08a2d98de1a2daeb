"""Makes the vocabulary from tokenizer.json, vocab.json or .tiktoken files."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import ctranslate2
from .files import Files

_FETCH = "fetch the file again"
# The order of the language tokens; models before large-v3 lack the last one.
_LANGUAGES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr
bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn
yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su
yue
"""
_TIMESTAMPS = 1501


def read_tokens(files: Files, n_vocab: int) -> list[str]:
    """Tokens of tokenizer.json, or of vocab.json and added_tokens.json, or CTranslate2's files.

    Tokenizers may leave the timestamps out; they are added up to `n_vocab`.
    """
    tokenizer = files.object("tokenizer.json")
    if tokenizer is not None:
        name = "tokenizer.json"
        pairs: list[tuple[Any, Any]] = []
        try:
            pairs += tokenizer["model"]["vocab"].items()
            added = tokenizer.get("added_tokens") or ()
            pairs += [(entry["content"], entry["id"]) for entry in added]
        except (TypeError, KeyError, AttributeError):
            pairs.append((None, None))
        by_id = _by_id(pairs, files.describe(name))
    else:
        name = "vocab.json"
        vocabulary = files.object(name)
        if vocabulary is None:
            return ctranslate2.read_vocabulary(files)
        by_id = _by_id(vocabulary.items(), files.describe(name))
        added_tokens = files.object("added_tokens.json") or {}
        by_id |= _by_id(added_tokens.items(), files.describe("added_tokens.json"))
    # Ids without a token are as rare as they are harmless, but the ones after them must not move.
    count = max(by_id, default=-1) + 1
    if count > 4 * len(by_id):
        raise RuntimeError(f"File {files.describe(name)} has implausible token ids: {_FETCH}")
    tokens = [by_id.get(index, f"<|unused{index}|>") for index in range(count)]
    first = next((i for i, token in enumerate(tokens) if token == "<|0.00|>"), count)
    tokens += [f"<|{(i - first) * 0.02:.2f}|>" for i in range(count, n_vocab)]
    return tokens


def _by_id(pairs: Iterable[tuple[Any, Any]], where: str) -> dict[int, str]:
    """Tokens by their ids. RuntimeError where they are no strings and numbers."""
    by_id = {}
    for token, index in pairs:
        if type(token) is not str or type(index) is not int or index < 0:
            raise RuntimeError(
                f"File {where} does not hold the tokens of a byte-level BPE: {_FETCH}"
            )
        by_id[index] = token
    return by_id


def read_tokens_beside(files: Files, n_vocab: int) -> list[str]:
    """Tokens for a checkpoint without any: from files beside it, or from openai-whisper's package.

    RuntimeError where there are neither.
    """
    beside = {"tokenizer.json", "vocab.json", "vocabulary.json", "vocabulary.txt"}
    if beside.intersection(files.names()):
        return read_tokens(files, n_vocab)
    asset = "multilingual.tiktoken" if n_vocab >= 51865 else "gpt2.tiktoken"
    source, text = files, files.text(asset)
    specification = None if text is not None else importlib.util.find_spec("whisper")
    if specification is not None and specification.origin is not None:
        source = Files(str(Path(specification.origin).parent / "assets"))
        text = source.text(asset)
    if text is None:
        raise RuntimeError(
            f"Cannot load the vocabulary of the model '{files.path}': a .pt checkpoint has none. "
            "Put the model's tokenizer.json beside it, or install openai-whisper"
        )
    return _tiktoken_tokens(text, n_vocab, source.describe(asset))


def _tiktoken_tokens(text: str, n_vocab: int, where: str) -> list[str]:
    """Tokens of a tiktoken file ("<base64> <rank>" a line) and Whisper's special ones after it."""
    letters = byte_letters()
    by_rank = {}
    try:
        for line in filter(None, text.splitlines()):
            token, rank = line.split()
            by_rank[int(rank)] = base64.b64decode(token)
        ranked = [by_rank[rank] for rank in range(len(by_rank))]
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"File {where} is damaged ({error}): {_FETCH}") from error
    tasks = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    codes = _LANGUAGES.split()
    languages = n_vocab - len(ranked) - 2 - len(tasks) - _TIMESTAMPS
    if not 0 <= languages <= len(codes):
        raise RuntimeError(
            f"File {where} has {len(ranked)} tokens, which do not fit a model of {n_vocab}: put "
            "the model's own tokenizer.json beside it"
        )
    names = ("endoftext", "startoftranscript", *codes[:languages], *tasks)
    return [
        *("".join(letters[byte] for byte in token) for token in ranked),
        *(f"<|{name}|>" for name in names),
        *(f"<|{i * 0.02:.2f}|>" for i in range(_TIMESTAMPS)),
    ]


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level BPE's tokens (GPT-2's table).

    Printable characters of Latin-1 stand for themselves; the others follow from U+0100 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
