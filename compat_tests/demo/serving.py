"""Starts `whisper-max demo` as its user does: in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from whisper_max_backend.cli import main; main()", "demo"]


@contextmanager
def running(temporary: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process and its port, once it answers; terminated at the end if it still runs.

    Args:
        temporary: Folder for its temporary files.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*COMMAND, "--compute-type", "float32", "--port", str(port), *options],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(240):
                if process.poll() is not None:
                    break
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.25)
            log.seek(0)
            assert process.poll() is None, log.read().decode(errors="replace")
            yield process, port
        finally:
            process.terminate()
            process.wait(30)


def kept(temporary: Path) -> list[Path]:
    """The recordings in the server's folder, which holds the lock of its process, too."""
    files = [path for path in temporary.glob("whisper-max-demo-*/**/*") if path.is_file()]
    return [path for path in files if path.name != "lock"]
