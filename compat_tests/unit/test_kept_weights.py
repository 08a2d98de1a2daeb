"""Packed weights in the cache folder: who gets them, and who does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.waiting import until
from whisper_max_backend.engine.checkpoint.load import Checkpoint, load_checkpoint
from whisper_max_backend.engine.compile import cache
from whisper_max_backend.engine.cpu import kept_weights as module
from whisper_max_backend.engine.cpu.kept_weights import VARIABLE, kept_weights
from whisper_max_backend.engine.cpu.prebuild import storages
from whisper_max_backend.engine.cpu.weights import PackedWeights, packed_weights

STORAGE = storages()[-1]
GROUPS = ("encoder", "cross_kv", "decoder", "embeddings")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache. Compiled graphs stay where they are: they are loaded by now."""
    packed_weights(load_checkpoint(model(tmp_path / "other")), STORAGE, 1)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_SETTLED_SECONDS", -1.0)
    return tmp_path / "cache"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return model(tmp_path / "model")


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[Checkpoint]:
    """What was packed rather than found."""
    packed: list[Checkpoint] = []

    def noted(checkpoint: Checkpoint, *arguments: Any) -> PackedWeights:
        packed.append(checkpoint)
        return packed_weights(checkpoint, *arguments)

    monkeypatch.setattr(module, "packed_weights", noted)
    return packed


def model(path: Path) -> Path:
    path.mkdir()
    return make_model(path, ARCHITECTURES["one-head"])


def load(directory: Path) -> PackedWeights:
    return kept_weights(load_checkpoint(directory), STORAGE, 2)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{cache.WEIGHTS}-*.bin"))


def load_and_keep(directory: Path, folder: Path) -> Path:
    """The file that is there then, besides those that were."""
    before = kept(folder)
    load(directory)
    until(lambda: len(kept(folder)) > len(before))
    (new,) = set(kept(folder)) - set(before)
    return new


def same(one: PackedWeights, other: PackedWeights) -> bool:
    return all(
        np.array_equal(getattr(one, group).to_numpy(), getattr(other, group).to_numpy())
        for group in GROUPS
    )


def test_the_second_load_finds_them(
    folder: Path, directory: Path, packings: list[Checkpoint]
) -> None:
    load_and_keep(directory, folder)
    found = load(directory)
    assert len(packings) == 1
    assert same(found, packed_weights(load_checkpoint(directory), STORAGE, 2))


def test_they_are_mapped_not_copied(folder: Path, directory: Path) -> None:
    path = load_and_keep(directory, folder)
    found = load(directory)
    addresses = [getattr(found, group).to_numpy().ctypes.data for group in GROUPS]
    mappings = [
        [int(part, 16) for part in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(path) in line
    ]
    assert all(any(low <= one < high for low, high in mappings) for one in addresses)
    assert all(address % 64 == 0 for address in addresses)


def rewritten(directory: Path) -> None:
    """In place, to the same size."""
    path = directory / "model.bin"
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)


def replaced(directory: Path) -> None:
    path = directory / "model.bin"
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(path.stat().st_mtime_ns,) * 2)
    copy.replace(path)


@pytest.mark.parametrize("change", [rewritten, replaced])
def test_another_file_of_that_name(
    change: Callable[[Path], None], folder: Path, directory: Path, packings: list[Checkpoint]
) -> None:
    load_and_keep(directory, folder)
    change(directory)
    found = load(directory)
    assert len(packings) == 2
    assert same(found, packed_weights(load_checkpoint(directory), STORAGE, 2))
    until(lambda: len(kept(folder)) == 2)


def test_a_file_that_has_just_changed_is_not_trusted_to_stay(
    folder: Path, directory: Path, packings: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 1e6)
    for _ in range(2):
        load(directory)
    assert len(packings) == 2
    assert not folder.exists()


def test_files_in_memory_are_packed_each_time(
    folder: Path, directory: Path, packings: list[Checkpoint]
) -> None:
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    for _ in range(2):
        kept_weights(load_checkpoint("memory", files), STORAGE, 1)
    assert len(packings) == 2


@pytest.mark.parametrize("size", [0, 8, 1000])
def test_a_damaged_file_is_told_and_packed_again(
    size: int,
    folder: Path,
    directory: Path,
    packings: list[Checkpoint],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = load_and_keep(directory, folder)
    whole = path.stat().st_size
    os.truncate(path, size)
    with caplog.at_level(logging.WARNING):
        load(directory)
    assert path.name in caplog.text
    assert len(packings) == 2
    until(lambda: path.stat().st_size == whole)
    load(directory)
    assert len(packings) == 2


def test_a_file_that_others_may_write_is_refused(
    folder: Path, directory: Path, packings: list[Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    load_and_keep(directory, folder).chmod(0o666)
    load(directory)
    assert "others may write to it" in caplog.text
    assert len(packings) == 2


def test_none_are_kept(
    folder: Path, directory: Path, packings: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    for _ in range(2):
        load(directory)
    assert len(packings) == 2
    assert not folder.exists()


def test_where_nothing_can_be_written(
    folder: Path, directory: Path, packings: list[Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    """The model loads all the same; whoever wants to know why it takes longer can."""
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.INFO):
        load(directory)
        until(lambda: "are not kept for the next load" in caplog.text)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_no_more_threads(
    folder: Path, directory: Path, packings: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the interpreter's end a model can be loaded, but no thread started."""

    def refuse(run: Callable[[], None]) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(module, "start_thread", refuse)
    load(directory)
    assert len(packings) == 1
    assert not folder.exists()


def test_those_that_were_not_used_for_longest_go_first(
    folder: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_and_keep(directory, folder)
    monkeypatch.setenv(VARIABLE, str(2.5 * first.stat().st_size / 1e9))
    second = load_and_keep(model(tmp_path / "second"), folder)
    os.utime(second, (1e9, 1e9))
    third_model = model(tmp_path / "third")
    load(third_model)
    until(lambda: not second.exists() and len(kept(folder)) == 2)
    assert first in kept(folder)


def test_one_that_is_larger_than_all_that_may_be_kept(
    folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = packed_weights(load_checkpoint(directory), STORAGE, 1)
    monkeypatch.setattr(cache, "keep_parts", lambda *_: pytest.fail("it is kept"))
    module._keep("name", weights, 1000)


@pytest.mark.parametrize("given", ["-1", "much", "nan", "inf"])
def test_sizes_that_are_none(given: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a number of gigabytes"):
        load(directory)


def test_the_command_lists_them(folder: Path, directory: Path) -> None:
    path = load_and_keep(directory, folder)
    (entry,) = [entry for entry in cache.contents(folder) if entry.path == path]
    assert not entry.unfinished
    assert entry.remove()
