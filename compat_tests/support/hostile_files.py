"""Files that nobody saved: pickles, archives and headers put together byte by byte."""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Pickles


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def mapping(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return row(text("storage"), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(stored: bytes, offset: bytes, shape: bytes, strides: bytes) -> bytes:
    hooks = named("collections", "OrderedDict") + b")R"
    arguments = row(stored, offset, shape, strides, b"\x89", hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def view(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    sizes, steps = row(*map(number, shape)), row(*map(number, strides))
    return tensor(stored, number(offset), sizes, steps)


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def archive(content: bytes, entries: Mapping[str, bytes], compression: int = 0) -> bytes:
    """A .pt file of this pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in entries.items():
            file.writestr(f"archive/{name}", data)
    return out.getvalue()


def with_pickle(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A .pt file with another pickle."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = {name.removeprefix("archive/"): file.read(name) for name in file.namelist()}
    return archive(change(entries.pop("data.pkl")), entries)


# Other formats


def with_header(content: bytes, change: Callable[[Any], Any]) -> bytes:
    """A safetensors file with another header, or one changed in place."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    changed = change(header)
    new = json.dumps(header if changed is None else changed).encode()
    return len(new).to_bytes(8, "little") + new + content[size:]


def string(value: str) -> bytes:
    """As model.bin has it."""
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: str, shape: tuple[int, ...], code: int, data: bytes) -> bytes:
    sizes = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return string(name) + sizes + struct.pack("<BI", code, len(data)) + data


def model_bin(variables: list[bytes], aliases: Sequence[tuple[str, str]] = ()) -> bytes:
    head = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    names = b"".join(string(alias) + string(name) for alias, name in aliases)
    return head + b"".join(variables) + struct.pack("<I", len(aliases)) + names


# Loading


@dataclass(frozen=True)
class Outcome:
    """What became of a model that a process of its own has loaded."""

    error: str
    """Type and message of the exception; empty where there was none."""
    megabytes: float
    """Memory that the process needed more than before."""


_LOADING = """
import json, re, sys
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint

def peak():
    # ru_maxrss would begin at what the process that started this one takes.
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) / 1024

before, error = peak(), ""
try:
    checkpoint = load_checkpoint(sys.argv[1])
    for name in checkpoint.weight_names():
        dense(checkpoint.weights, name)
except Exception as problem:
    error = f"{type(problem).__name__}: {problem}"
print(json.dumps([error[:2000], peak() - before]))
"""


def load_apart(path: Path) -> Outcome:
    """Load the model in a process that can take 5 GB and 60 seconds at most."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the memory of a process is read from Linux's /proc")
    done = subprocess.run(
        [sys.executable, "-c", _LOADING, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30)),
    )
    assert done.returncode == 0, done.stderr
    return Outcome(*json.loads(done.stdout))
