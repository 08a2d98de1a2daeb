"""Recordings in tar files, as webdataset has them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from ...hookspecs import Row
from ..places import opened
from .files import is_recording


class TarReader:
    """Tar files without compression; what is no sound or film in them is left out."""

    name = "tars"

    def reads(self, source: str) -> bool:
        return source.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))

    def rows(self, source: str, name: str) -> Iterator[Row]:
        if not source.endswith(".tar"):
            raise ValueError(f"{source}: recordings are read at their place: unpack it to a .tar")
        try:
            with opened(source) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.isfile() and is_recording(member.name):
                        place = f"{member.offset_data}:{member.size}"
                        key = f"{name}/{member.name}"
                        yield Row(key, source, self.name, place, size=member.size)
        except tarfile.TarError as error:
            raise ValueError(f"{source}: this is no tar file ({error})") from error

    def audio(self, row: Row) -> Any:
        offset, size = map(int, row.place.split(":"))
        with opened(row.source) as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))
