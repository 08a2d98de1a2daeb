"""The kernels of a model as machine code: compiled without a GPU, read with NVIDIA's tools."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.gpu.predict.sass import Program, parse
from benchmarks.new_process import output_of

_ELF = b"\x7fELF"
_CUDA = 190
"""The machine of an ELF file (bytes 18 and 19) that is a GPU's code."""
_USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


class NoTools(RuntimeError):
    """`nvdisasm` or `cuobjdump` is not installed."""


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        name: Of its function: the Mojo type of the kernel, with its parameters.
        registers: Of a thread.
        shared: Bytes of shared memory of a block.
        local: Bytes of a thread in memory, where registers did not suffice.
        code: What `nvdisasm` prints.
    """

    name: str
    registers: int
    shared: int
    local: int
    code: str

    @cached_property
    def program(self) -> Program:
        """Its instructions."""
        return parse(self.code)


def tool(name: str) -> str:
    """The path of one of NVIDIA's tools: of a CUDA installation, or of Triton's wheel.

    Raises:
        NoTools: It is neither here nor there.
    """
    found = shutil.which(name)
    triton = importlib.util.find_spec("triton")
    if found is None and triton is not None and triton.origin is not None:
        found = shutil.which(name, path=Path(triton.origin).parent / "backends/nvidia/bin")
    if found is None:
        raise NoTools(
            f"{name} is neither on the path nor in an installed Triton: install a CUDA toolkit, "
            'or pip install "whisper-max-backend[predict]"'
        )
    return found


def compiled_kernels(size: str, target: str = "sm_90") -> list[Kernel]:
    """Every kernel of the encoder and the decoder step of a model, in bfloat16.

    Raises:
        NoTools: What reads machine code is not installed.
        RuntimeError: The graphs do not compile.
    """
    for name in ("nvdisasm", "cuobjdump"):
        tool(name)
    with tempfile.TemporaryDirectory() as folder:
        module, variables = "benchmarks.gpu.predict.compile", {"MODULAR_CACHE_DIR": folder}
        try:
            output_of(module, target, size, variables=variables)
        except RuntimeError as error:
            raise RuntimeError(f"{size} does not compile: {error}") from error
        return list({kernel.name: kernel for kernel in _read(Path(folder))}.values())


def _read(folder: Path) -> Iterator[Kernel]:
    """The kernels among the files that MAX keeps."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _is_cuda(path):
            usage = _USAGE.search(_output("cuobjdump", "-res-usage", str(path)))
            assert usage is not None, path
            registers, stack, shared, local = (int(number) for number in usage.groups()[1:])
            code = _output("nvdisasm", "-c", "-hex", str(path))
            yield Kernel(usage[1], registers, shared, stack + local, code)


def _is_cuda(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(20)
    return header.startswith(_ELF) and int.from_bytes(header[18:20], "little") == _CUDA


def _output(name: str, *arguments: str) -> str:
    result = subprocess.run([tool(name), *arguments], capture_output=True, text=True, check=True)
    return result.stdout
