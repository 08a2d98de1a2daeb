"""The kernels of traced graphs as a program for an ARM processor.

The Mojo compiler compiles for any processor. The C library of a cross compiler and MAX's runtime,
from its wheels for ARM, are linked to it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from compat_tests.support.emulated.tracing import Kernel, Tensor
from whisper_max_backend.engine.compile import cache
from whisper_max_backend.engine.compile.artifacts import kernel_sources, source_digests

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
SYSTEM_LIBRARIES = "/usr/aarch64-linux-gnu"
PROCESSORS: Mapping[str, str] = {
    "cortex-a76": "cortex-a76",
    "apple-m2": "max",
}
"""What QEMU runs a target's kernels on: no more than the target has, where it knows such a one."""

_DRIVER = Path(__file__).with_name("driver.mojo")
_RUNTIME = (
    "KGENCompilerRTShared",
    "AsyncRTMojoBindings",
    "AsyncRTRuntimeGlobals",
    "MSupportGlobals",
)
_WHEELS = ("mojo-compiler", "max-core")
_REGISTERED = re.compile(r'@extensibility\.register\("(whisper\.\w+)"\)\nstruct (\w+)')


class NoRuntime(RuntimeError):
    """MAX's wheels for ARM could not be downloaded."""


def download_runtime(folder: Path) -> Path:
    """MAX's runtime libraries for ARM, from the wheels of the version that is installed.

    Raises:
        NoRuntime: pip found none.
    """
    wheels = folder / "wheels"
    for package in _WHEELS:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--platform=manylinux_2_34_aarch64"]
        command += ["--dest", str(wheels), f"{package}=={version(package)}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise NoRuntime(f"pip has no {package} for ARM: {result.stderr[-500:]}")
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as content:
            for name in content.namelist():
                if Path(name).name in {f"lib{library}.so" for library in _RUNTIME}:
                    (folder / Path(name).name).write_bytes(content.read(name))
        wheel.unlink()
    return folder


def make_program(kernels: Sequence[Kernel], target: str, runtime: Path, folder: Path) -> Path:
    """A program in a folder that runs kernels by their place in the sequence."""
    source = _DRIVER.read_text() + _dispatch(kernels)
    parts = [source, target, version("mojo-compiler"), *source_digests()]
    name = f"aarch64-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"
    program = folder / name
    content = cache.find(f"{name}.mef")
    if content is None:
        content = _compile(source, target, runtime, folder / f"{name}.mojo")
        cache.keep(f"{name}.mef", content)
    program.write_bytes(content)
    program.chmod(0o700)
    return program


def command_of(program: Path, target: str, runtime: Path) -> list[str]:
    """How the program is run here."""
    libraries = f"LD_LIBRARY_PATH={runtime}"
    processor = PROCESSORS[target]
    return [EMULATOR, "-cpu", processor, "-L", SYSTEM_LIBRARIES, "-E", libraries, str(program)]


def _compile(source: str, target: str, runtime: Path, path: Path) -> bytes:
    from mojo.run import subprocess_run_mojo

    path.write_text(source)
    compiled, program = path.with_suffix(".o"), path.with_suffix(".elf")
    command = ["build", "-I", str(kernel_sources().parent), "--emit", "object"]
    command += ["--target-triple", "aarch64-unknown-linux-gnu", "--target-cpu", target]
    command += [str(path), "-o", str(compiled)]
    result = subprocess_run_mojo(command, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    link = [COMPILER, str(compiled), "-o", str(program), f"-L{runtime}", "-lm"]
    link += [f"-l{library}" for library in _RUNTIME] + ["-Wl,--allow-shlib-undefined"]
    subprocess.run(link, check=True)
    content = program.read_bytes()
    for made in (path, compiled, program):
        os.unlink(made)
    return content


def _dispatch(kernels: Sequence[Kernel]) -> str:
    """The function that runs a kernel, by its number."""
    structs = _structs()
    modules = sorted({structs[kernel.name] for kernel in kernels})
    lines = [f"from {module} import {struct}" for module, struct in modules]
    lines += ["", "", "def run(kernel: Int, arrays: List[Array], ctx: DeviceContext) raises:"]
    for number, kernel in enumerate(kernels):
        parameters = ['"cpu"', *(f"{name}=DType.{value}" for name, value in kernel.parameters)]
        arguments = [_argument(one, place) for place, one in enumerate(kernel.arguments)]
        call = f"{structs[kernel.name][1]}.execute[{', '.join(parameters)}]"
        lines += [f"    if kernel == {number}:", f"        {call}({', '.join(arguments)}, ctx)"]
    return "\n".join(lines) + "\n"


def _argument(tensor: Tensor, place: int) -> str:
    if tensor.rank == 0:
        return f"arrays[{place}].number[DType.{tensor.dtype}]()"
    return f"arrays[{place}].{tensor.role.lower()}[DType.{tensor.dtype}, {tensor.rank}]()"


def registered_kernels() -> frozenset[str]:
    """The names of all kernels that the graphs of a CPU use."""
    return frozenset(_structs())


@functools.cache
def _structs() -> Mapping[str, tuple[str, str]]:
    """The module and the struct of each kernel of a CPU."""
    sources = kernel_sources()
    files: Iterable[Path] = [sources / "log_mel.mojo", *(sources / "cpu").rglob("*.mojo")]
    found = {}
    for file in files:
        module = ".".join(file.relative_to(sources.parent).with_suffix("").parts)
        for name, struct in _REGISTERED.findall(file.read_text()):
            found[name] = module, struct
    return found
