"""Tokens of the formats that keep them in a tokenizer's files, in CTranslate2's order and form."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path

from whisper_max_backend.engine.formats import ctranslate2
from whisper_max_backend.engine.formats.source import Files

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
        model = tokenizer.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        added = tokenizer.get("added_tokens") or []
        try:
            extra = {entry["content"]: entry["id"] for entry in added}
        except (TypeError, KeyError):
            vocabulary = extra = None
    else:
        name = "vocab.json"
        vocabulary = files.object(name)
        extra = files.object("added_tokens.json") or {}
        if vocabulary is None:
            return ctranslate2.read_vocabulary(files)
    if not isinstance(vocabulary, dict) or extra is None:
        raise RuntimeError(
            f"File {files.describe(name)} does not hold the tokens of a byte-level BPE: {_FETCH}"
        )
    by_id = {index: token for token, index in (*vocabulary.items(), *extra.items())}
    # Ids without a token are as rare as they are harmless, but the ones after them must not move.
    count = max((index for index in by_id if isinstance(index, int)), default=-1) + 1
    if count > 4 * len(by_id):
        raise RuntimeError(f"File {files.describe(name)} has implausible token ids: {_FETCH}")
    tokens = [by_id.get(index, f"<|unused{index}|>") for index in range(count)]
    first = next((i for i, token in enumerate(tokens) if token == "<|0.00|>"), count)
    tokens += [f"<|{(i - first) * 0.02:.2f}|>" for i in range(count, n_vocab)]
    return tokens


def read_tokens_beside(files: Files, n_vocab: int) -> list[str]:
    """Tokens for a checkpoint without any: from files beside it, or from openai-whisper's package.

    RuntimeError where there are neither.
    """
    beside = {"tokenizer.json", "vocab.json", "vocabulary.json", "vocabulary.txt"}
    if beside.intersection(files.names()):
        return read_tokens(files, n_vocab)
    asset = "multilingual.tiktoken" if n_vocab >= 51865 else "gpt2.tiktoken"
    text = files.text(asset)
    specification = None if text is not None else importlib.util.find_spec("whisper")
    if specification is not None and specification.origin is not None:
        path = Path(specification.origin).parent / "assets" / asset
        text = path.read_text() if path.is_file() else None
    if text is None:
        raise RuntimeError(
            f"Cannot load the vocabulary of the model '{files.path}': a .pt checkpoint has none. "
            "Put the model's tokenizer.json beside it, or install openai-whisper"
        )
    return _tiktoken_tokens(text, n_vocab, files.describe(asset))


def _tiktoken_tokens(text: str, n_vocab: int, where: str) -> list[str]:
    """Tokens of a tiktoken file ("<base64> <rank>" a line) and Whisper's special ones after it."""
    letters = byte_letters()
    try:
        pairs = [line.split() for line in text.splitlines() if line]
        by_rank = {int(rank): base64.b64decode(token) for token, rank in pairs}
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
