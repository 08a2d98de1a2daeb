"""The kernels of a GPU against float64, on the CPU: what a GPU's benchmark begins with."""

from __future__ import annotations

import pytest
from max.driver import CPU
from max.dtype import DType

from compat_tests.support.gpu_kernels import KernelChecks, checks

pytestmark = pytest.mark.slow

CHECKS = checks(DType.float32)


@pytest.fixture(scope="module")
def kernels() -> KernelChecks:
    return KernelChecks(CPU(), DType.float32)


@pytest.mark.parametrize("name", CHECKS)
def test_kernel(kernels: KernelChecks, name: str) -> None:
    assert CHECKS[name](kernels) < 3e-6
