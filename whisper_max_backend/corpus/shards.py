"""Shards: the rows of a corpus as they are kept, as parquet or as JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..system.whole_files import whole_file

FORMATS = ("parquet", "jsonl")

_WORDS = pa.list_(
    pa.struct(
        [
            *(("start", pa.float64()), ("end", pa.float64())),
            *(("word", pa.string()), ("probability", pa.float64())),
        ]
    )
)
_SEGMENTS = pa.list_(
    pa.struct(
        [
            *(("id", pa.int32()), ("seek", pa.int32())),
            *(("start", pa.float64()), ("end", pa.float64())),
            *(("text", pa.string()), ("tokens", pa.list_(pa.int32()))),
            *(("avg_logprob", pa.float64()), ("compression_ratio", pa.float64())),
            *(("no_speech_prob", pa.float64()), ("temperature", pa.float64())),
            ("words", _WORDS),
        ]
    )
)
SCHEMA = pa.schema(
    [
        *(("key", pa.string()), ("source", pa.string()), ("offset", pa.float64())),
        *(("duration", pa.float64()), ("language", pa.string())),
        *(("language_probability", pa.float64()), ("text", pa.string())),
        *(("segments", _SEGMENTS), ("seconds", pa.float64()), ("model", pa.string())),
        *(("backend", pa.string()), ("compute_type", pa.string()), ("version", pa.string())),
        ("error", pa.string()),
    ]
)
"""What is kept of a recording.

`duration` is in seconds of audio, and `seconds` those that it took, beside others at the same time.
A recording that failed has an `error`, and no text and segments.
"""


class CannotWrite(OSError):
    """The corpus cannot be written: the disk is full, for example."""


@contextlib.contextmanager
def kept_file(path: Path) -> Iterator[BinaryIO]:
    """A file of the corpus to write: when it is there, it is on the disk as a whole.

    Raises:
        CannotWrite: It cannot be written.
    """
    try:
        with whole_file(path, synced=True) as file:
            yield file
    except OSError as error:
        raise CannotWrite(error.errno, error.strerror or str(error), str(path)) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have begun to write."""
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):
            path.unlink()


class Shards:
    """The shards of a corpus in a folder, in one format."""

    def __init__(self, folder: Path, format: str) -> None:
        self.folder = folder
        self.format = format

    def names(self) -> frozenset[str]:
        """Of the shards that are complete."""
        suffix = f".{self.format}"
        if not self.folder.exists():
            return frozenset()
        with os.scandir(self.folder) as entries:
            return frozenset(
                entry.name.removesuffix(suffix)
                for entry in entries
                if entry.name.endswith(suffix) and not entry.name.startswith(".")
            )

    def has(self, name: str) -> bool:
        """Whether a shard is complete."""
        return self._path(name).exists()

    def write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a shard, in place of an earlier one.

        Raises:
            CannotWrite: It cannot be written; then it is as it was.
        """
        with kept_file(self._path(name)) as file:
            if self.format == "parquet":
                pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), file)
            else:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def read(self, name: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a shard, or some columns of them."""
        path = self._path(name)
        if self.format == "parquet":
            # Without a data set around it, which would read the file in several threads.
            with pq.ParquetFile(path) as file:
                table = file.read(None if columns is None else list(columns), use_threads=False)
            return list(table.to_pylist())
        with open(path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        if columns is None:
            return rows
        return [{column: row[column] for column in columns} for row in rows]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.{self.format}"
