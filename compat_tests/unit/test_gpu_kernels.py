"""The kernels of a GPU against float64, on the CPU: what a GPU's benchmark begins with."""

from __future__ import annotations

import pytest
from max.driver import CPU
from max.dtype import DType

from compat_tests.support.gpu_kernels import check_kernels

pytestmark = pytest.mark.slow


def test_kernels() -> None:
    for check in check_kernels(CPU(), DType.float32):
        assert check.error < 3e-6, check.name
