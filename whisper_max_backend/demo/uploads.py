"""The uploaded files: received within limits, each for the browser that sent it, soon deleted.

Gradio's own upload writes to the disk before it counts, and leaves what a broken connection has
sent. Here room is reserved before anything is read, and what is not complete has no name on the
disk.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import anyio
from gradio_client.utils import strip_invalid_filename_characters
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

FILES_OF_A_VISITOR = 4  # the one of each page that is open, and the next
_FILES = 100
_LARGEST_FILES = 20  # the bytes of so many files of the largest size are kept
_ENVELOPE = 10_000  # bytes that a form takes besides the file
_SLOWEST = 600.0  # seconds for one upload


class RefusedUpload(Exception):
    """An upload that is not taken; `status` is HTTP's, the message is for the visitor."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class _Upload:
    """A file, in a folder of its own once it is complete."""

    visitor: str
    size: int
    folder: Path
    path: Path | None = None


class Uploads:
    """The files that are kept, and those under way.

    Args:
        folder: Theirs alone, and removed by its owner.
        largest: Bytes of a file.
        longest_kept: Seconds after which a file is deleted in any case.
    """

    def __init__(self, folder: Path, largest: int, longest_kept: float = 3600) -> None:
        self._folder = folder
        self._largest = largest
        self._longest_kept = longest_kept
        self._uploads: set[_Upload] = set()
        self._lock = threading.Lock()

    async def receive(self, visitor: str, request: Request) -> Path:
        """Take a visitor's file, the only part of a form.

        Returns:
            Where it is.

        Raises:
            RefusedUpload: Too large, too many, or no such form. Nothing of it is kept.
        """
        upload = self._reserve(visitor, self._declared_size(request))
        try:
            with anyio.fail_after(_SLOWEST):
                async with request.form(max_files=1, max_fields=0) as form:
                    sent = form.get("files")
                    if not isinstance(sent, UploadFile):
                        raise RefusedUpload(400, "There is no file in this form.")
                    path = await run_in_threadpool(self._store, upload, sent)
        except BaseException as error:
            self._remove(upload)
            if isinstance(error, TimeoutError):
                raise RefusedUpload(408, "This upload took too long: try again.") from error
            if isinstance(error, (HTTPException, MultiPartException)):
                raise RefusedUpload(400, "This form cannot be read.") from error
            raise
        asyncio.get_running_loop().call_later(self._longest_kept, self._remove, upload)
        return path

    def sent_by(self, visitor: str, path: Path) -> bool:
        """Whether a file is here and this visitor's."""
        return any(one.path == path and one.visitor == visitor for one in self._all())

    def discard(self, visitor: str, path: Path) -> None:
        """Delete a file of the visitor, who is done with it."""
        for upload in self._all():
            if upload.path == path and upload.visitor == visitor:
                self._remove(upload)

    def _declared_size(self, request: Request) -> int:
        """What is going to come, so that it can be refused before it does."""
        headers = request.headers
        length = headers.get("content-length", "")
        if not length.isdecimal() or "transfer-encoding" in headers:
            raise RefusedUpload(411, "An upload has to say its length.")
        if not headers.get("content-type", "").startswith("multipart/form-data"):
            raise RefusedUpload(415, "An upload has to be a form with a file.")
        size = int(length)
        if size > self._largest + _ENVELOPE:
            raise self._too_large()
        return size

    def _too_large(self) -> RefusedUpload:
        return RefusedUpload(
            413,
            f"This file is larger than the maximum of {self._largest / 1e6:g} MB: cut it, or start "
            "the page with a larger --max-upload-mb.",
        )

    def _reserve(self, visitor: str, size: int) -> _Upload:
        upload = _Upload(visitor, size, self._folder / secrets.token_hex(16))
        with self._lock:
            if sum(one.visitor == visitor for one in self._uploads) >= FILES_OF_A_VISITOR:
                raise RefusedUpload(
                    429,
                    f"{FILES_OF_A_VISITOR} recordings of yours are here already: remove one, or "
                    "close a page.",
                )
            kept = sum(one.size for one in self._uploads)
            if len(self._uploads) >= _FILES or kept + size > _LARGEST_FILES * self._largest:
                raise RefusedUpload(503, "Too many recordings are here already: try again later.")
            self._uploads.add(upload)
        return upload

    def _store(self, upload: _Upload, sent: UploadFile) -> Path:
        if (sent.size or 0) > self._largest:
            raise self._too_large()
        name = strip_invalid_filename_characters(Path(sent.filename or "").name).lstrip(".")
        path = upload.folder / (name or "recording")
        upload.folder.mkdir(mode=0o700)
        with path.open("xb") as file:
            shutil.copyfileobj(sent.file, file)
        upload.path = path
        return path

    def _remove(self, upload: _Upload) -> None:
        with self._lock:
            self._uploads.discard(upload)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def _all(self) -> list[_Upload]:
        with self._lock:
            return list(self._uploads)
