"""The plan of a corpus: every recording once, in shards, the longest first.

The plan is kept in the corpus, so that a run that goes on has the same shards. Recordings that are
new since then come as a plan of their own. A recording is in one shard of one plan, and a shard is
one file with one name: whoever writes it, and however often, each recording is there once.
"""

from __future__ import annotations

import glob
import itertools
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..hookspecs import Reader, Row
from .places import absolute, is_address
from .shards import kept_file

_BATCH = 1 << 16  # rows
_MOST_ROWS = 256
_SHARDS = 32
"""A shard has up to 256 rows, and fewer where there would be fewer shards than this."""
_SECONDS = 1800.0
_MOST_SHARDS = 100_000
"""A shard has up to half an hour of audio, and more where there would be many more than this."""
_TOLD = 5  # duplicate keys that the error names

_SCHEMA = pa.schema(
    [
        *(("key", pa.large_string()), ("source", pa.large_string()), ("reader", pa.string())),
        *(("place", pa.string()), ("offset", pa.float64()), ("duration", pa.float64())),
        ("size", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Shard:
    """Recordings whose rows are written together."""

    name: str
    rows: Sequence[Row]

    @property
    def seconds(self) -> float:
        """Of audio, as far as it is known."""
        return sum(row.duration or 0 for row in self.rows)


@dataclass(frozen=True)
class Size:
    """How much there is of something.

    Attributes:
        rows: Recordings.
        seconds: Of audio; None where it is not known of every recording.
    """

    rows: int
    seconds: float | None


def rows_of(inputs: Iterable[str], readers: Mapping[str, Reader]) -> Iterator[Row]:
    """The recordings that the inputs hold: paths, addresses and patterns.

    Raises:
        ValueError, OSError: An input that cannot be read.
    """
    for given in inputs:
        for source, name in _expanded(given):
            reader = next(one for one in readers.values() if one.reads(source))
            yield from reader.rows(source, name)


def _expanded(given: str) -> Iterator[tuple[str, str]]:
    """Absolute paths, and what they are called in the corpus."""
    if is_address(given) or os.path.exists(given):
        yield absolute(given), given
        return
    if not glob.has_magic(given):
        raise FileNotFoundError(f"{given}: there is no such file")
    found = sorted(path for path in glob.iglob(given, recursive=True) if not os.path.isdir(path))
    if not found:
        raise FileNotFoundError(f"{given}: no file matches this pattern")
    parts = Path(given).parts
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    for path in found:
        yield absolute(path), os.path.relpath(path, root)


def table_of(rows: Iterable[Row]) -> pa.Table:
    """The rows as a table, in which 10 million need little more than their texts."""
    iterator = iter(rows)
    names = _SCHEMA.names
    fields = operator.attrgetter(*names)
    batches = []
    while chunk := [fields(row) for row in itertools.islice(iterator, _BATCH)]:
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*chunk, strict=True), _SCHEMA, strict=True)
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, names))
    return pa.Table.from_batches(batches, _SCHEMA)


def check_keys(table: pa.Table) -> None:
    """Raises:
    ValueError: A key is there more than once.
    """
    if pc.count_distinct(table["key"]).as_py() == len(table):
        return
    counts = table.select(["key", "source"]).group_by("key").aggregate([([], "count_all")])
    double = counts.filter(pc.greater(counts["count_all"], 1))["key"].to_pylist()
    named = ", ".join(sorted(double)[:_TOLD]) + (", ..." if len(double) > _TOLD else "")
    raise ValueError(
        f"{len(double)} keys are there more than once ({named}): give each recording an id in a "
        "manifest, or folders that have no names in common"
    )


def in_shards(table: pa.Table, most_rows: int | None = None) -> pa.Table:
    """The rows in the order in which they are transcribed, with the number of their shard."""
    order = pc.sort_indices(
        table, sort_keys=[("duration", "descending"), ("size", "descending")]
    )  # nulls come last, and equal ones stay in their order
    table = table.take(order)
    most = most_rows or max(1, min(_MOST_ROWS, len(table) // _SHARDS))
    durations = pc.fill_null(table["duration"], 0.0)
    most_seconds = max(_SECONDS, pc.sum(durations).as_py() / _MOST_SHARDS)
    listed = itertools.chain.from_iterable(chunk.to_pylist() for chunk in durations.chunks)
    return table.append_column("shard", pa.array(_numbers(listed, most, most_seconds), pa.int32()))


def _numbers(durations: Iterable[float], most: int, most_seconds: float) -> Iterator[int]:
    number, rows, seconds = 0, 0, 0.0
    for duration in durations:
        if rows and (rows == most or seconds + duration > most_seconds):
            number, rows, seconds = number + 1, 0, 0.0
        rows, seconds = rows + 1, seconds + duration
        yield number


class Plan:
    """The plans of a corpus, oldest first, as parquet files in a folder.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def extend(self, rows: Iterable[Row], most_rows: int | None = None) -> int:
        """Add the recordings that are not planned yet; how many there were.

        Raises:
            ValueError: A key is there more than once, or there is no recording at all.
            OSError: The plan cannot be written; then it is as it was.
        """
        table = table_of(rows)
        if not len(table):
            raise ValueError("the inputs hold no recording")
        check_keys(table)
        files = self._files()
        if files:
            planned = pa.concat_tables([pq.read_table(file, columns=["key"]) for file in files])
            known = pc.is_in(table["key"], value_set=planned["key"])
            table = table.filter(pc.invert(known))
        if len(table):
            self.folder.mkdir(parents=True, exist_ok=True)
            with kept_file(self.folder / f"{len(files):05d}.parquet") as file:
                pq.write_table(in_shards(table, most_rows), file)
        return len(table)

    def names(self) -> Iterator[str]:
        """Of all shards."""
        for file in self._files():
            table = pq.read_table(file, columns=["shard"])
            for number in pc.unique(table["shard"]).to_pylist():
                yield f"{file.stem}-{number:06d}"

    def size(self, without: frozenset[str] = frozenset()) -> Size:
        """Of all shards but some."""
        rows, seconds, unknown = 0, 0.0, 0
        for file in self._files():
            table = pq.read_table(file, columns=["shard", "duration"])
            table = _without(table, file.stem, without)
            rows += len(table)
            seconds += pc.sum(table["duration"]).as_py() or 0.0
            unknown += table["duration"].null_count
        return Size(rows, None if unknown else seconds)

    def shards(self, without: frozenset[str] = frozenset()) -> Iterator[Shard]:
        """All but some, in the order in which they are transcribed, read as they are asked for."""
        for file in self._files():
            rows: list[Row] = []
            last = -1
            for batch in pq.ParquetFile(file).iter_batches(_BATCH):
                table = _without(pa.Table.from_batches([batch]), file.stem, without)
                for entry in table.to_pylist():
                    number = entry.pop("shard")
                    if rows and number != last:
                        yield Shard(f"{file.stem}-{last:06d}", rows)
                        rows = []
                    rows.append(Row(**entry))
                    last = number
            if rows:
                yield Shard(f"{file.stem}-{last:06d}", rows)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.parquet"))


def _without(table: pa.Table, stem: str, names: frozenset[str]) -> pa.Table:
    """The rows of other shards than these, of the plan with this stem."""
    numbers = [int(name.split("-")[1]) for name in names if name.startswith(f"{stem}-")]
    known = pc.is_in(table["shard"], value_set=pa.array(numbers, pa.int32()))
    return table.filter(pc.invert(known))
