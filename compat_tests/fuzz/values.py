"""What the mutations share: types, and numbers at which readers go wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

Random: TypeAlias = random.Random
Change: TypeAlias = Callable[[bytes, Random], bytes]
NUMBERS = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 127, 128, 255, 256, 999, 1000, 1501, 4096, 65535, 65536),
    *(2**k + offset for k in (20, 24, 28, 30, 31, 32, 62, 63, 64) for offset in (-1, 0)),
)
