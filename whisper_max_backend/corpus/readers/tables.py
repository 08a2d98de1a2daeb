"""Recordings in tables: parquet files, and data sets that Hugging Face's `datasets` has saved."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...hookspecs import Row
from ..places import beside, is_address, opened

if TYPE_CHECKING:
    import pyarrow as pa

_IDS = ("id", "key", "utterance_id")
_AUDIO = ("audio", "bytes", "audio_bytes", "path", "audio_filepath", "file")


class ParquetReader:
    """A row a recording: a column of paths, of whole files as bytes, or of both as a struct."""

    name = "parquet"

    def reads(self, source: str) -> bool:
        return source.endswith(".parquet")

    def rows(self, source: str, name: str) -> Iterator[Row]:
        import pyarrow.parquet as pq

        with opened(source) as file:
            table = pq.ParquetFile(file)
            column = _audio_column(source, table.schema_arrow)
            wanted = _cheap_columns(table.schema_arrow, column)
            number = 0
            for group in range(table.num_row_groups):
                # Of a struct only the path is read here, and of bytes nothing.
                entries = table.read_row_group(group, columns=wanted).to_pylist()
                count = table.metadata.row_group(group).num_rows
                for index, entry in enumerate(entries or [{}] * count):
                    place = f"{group}:{index}:{column}"
                    yield _row(source, name, number, entry, column, self.name, place)
                    number += 1

    def audio(self, row: Row) -> Any:
        group, index, column = row.place.split(":", 2)
        return _content(row, _row_group(row.source, int(group), column)[int(index)].as_py())


class DatasetReader:
    """A folder as `datasets.Dataset.save_to_disk` and `DatasetDict.save_to_disk` write it."""

    name = "datasets"

    def reads(self, source: str) -> bool:
        names = ("state.json", "dataset_dict.json")
        return not is_address(source) and any(os.path.isfile(f"{source}/{name}") for name in names)

    def rows(self, source: str, name: str) -> Iterator[Row]:
        splits = f"{source}/dataset_dict.json"
        if os.path.isfile(splits):
            with open(splits, encoding="utf-8") as file:
                for split in json.load(file)["splits"]:
                    yield from self.rows(f"{source}/{split}", f"{name}/{split}")
            return
        with open(f"{source}/state.json", encoding="utf-8") as file:
            files = [entry["filename"] for entry in json.load(file)["_data_files"]]
        number = 0
        for file_name in files:
            path = f"{source}/{file_name}"
            table = _arrow(path)
            column = _audio_column(path, table.schema)
            cheap = _without_bytes(table, column)
            for batch in cheap.to_batches():
                start = number
                for entry in batch.to_pylist():
                    place = f"{number - start}:{column}"
                    yield _row(path, name, number, entry, column, self.name, place)
                    number += 1

    def audio(self, row: Row) -> Any:
        index, column = row.place.split(":", 1)
        return _content(row, _arrow(row.source)[column][int(index)].as_py())


def _audio_column(source: str, schema: pa.Schema) -> str:
    for name in _AUDIO:
        if name in schema.names:
            return name
    raise ValueError(
        f"{source}: no column holds recordings: name it {', '.join(_AUDIO[:-1])} or {_AUDIO[-1]}"
    )


def _cheap_columns(schema: pa.Schema, column: str) -> list[str]:
    """What tells of recordings without their bytes, as parquet names columns."""
    import pyarrow as pa

    wanted = [name for name in (*_IDS, "duration") if name in schema.names]
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        if "path" in [field.name for field in kind]:
            wanted.append(f"{column}.path")
    elif not _is_bytes(kind):
        wanted.append(column)
    return wanted


def _without_bytes(table: pa.Table, column: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = [name for name in (*_IDS, "duration") if name in table.column_names]
    kind = table.schema.field(column).type
    audio = table[column]
    if pa.types.is_struct(kind):
        paths = pc.struct_field(audio, ["path"])
        audio = pc.make_struct(paths, field_names=["path"])
    return table.select(kept).append_column(column, audio)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _row(
    source: str, name: str, number: int, entry: dict[str, Any], column: str, reader: str, place: str
) -> Row:
    key = next((str(entry[one]) for one in _IDS if entry.get(one) is not None), f"{name}/{number}")
    duration = None if entry.get("duration") is None else float(entry["duration"])
    audio = entry.get(column)
    if isinstance(audio, str):
        return Row(key, beside(source, audio), duration=duration)
    if reader == ParquetReader.name:
        duration = None  # in an order by durations, each would be read with its whole row group
    return Row(key, source, reader, place, duration=duration)


def _content(row: Row, value: Any) -> Any:
    """What `transcribe` takes, of a cell."""
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
        value = content if content is not None else path
    if isinstance(value, bytes):
        return io.BytesIO(value)
    if isinstance(value, str):
        path = beside(row.source, value)
        return opened(path) if is_address(path) else path
    raise ValueError(f"{row.source}: row {row.place} holds no recording")


@functools.lru_cache(maxsize=2)  # the rows of a group come one after another
def _row_group(source: str, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    with opened(source) as file:
        return pq.ParquetFile(file).read_row_group(group, columns=[column])[column]


@functools.lru_cache(maxsize=8)
def _arrow(path: str) -> pa.Table:
    """A file of a data set, which stays on disk until its rows are read."""
    import pyarrow as pa

    with pa.memory_map(path) as file:
        return pa.ipc.open_stream(file).read_all()
