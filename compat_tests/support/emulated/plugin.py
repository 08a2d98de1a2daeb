"""Runs tests with the kernels of an emulated ARM processor, and tells which kernels ran.

``pytest -p compat_tests.support.emulated.plugin --arm apple-m2 --arm-runtime FOLDER tests``; the
folder has what `download_runtime` puts there.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from compat_tests.support.emulated.program import PROCESSORS, registered_kernels
from compat_tests.support.emulated.session import Emulator, emulated

_patches = ExitStack()
_emulators: list[list[Emulator]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--arm", choices=PROCESSORS, required=True)
    parser.addoption("--arm-runtime", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    programs = Path(_patches.enter_context(TemporaryDirectory()))
    target, runtime = config.getoption("--arm"), config.getoption("--arm-runtime")
    _emulators.append(_patches.enter_context(emulated(target, runtime, programs)))


def pytest_unconfigure() -> None:
    _patches.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran = {kernel for emulator in _emulators[0] for kernel in emulator.ran}
    for kernel in sorted(ran, key=str):
        parameters = ", ".join(f"{name}={value}" for name, value in kernel.parameters)
        terminalreporter.write_line(f"ran {kernel.name}[{parameters}]")
    for name in sorted(registered_kernels() - {kernel.name for kernel in ran}):
        terminalreporter.write_line(f"did not run {name}")
