"""Instructions whose result depends on their operands alone, for all threads at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from compat_tests.support.ptx.program import TYPES

Operation = Sequence[str]
Function = Callable[..., np.ndarray]

_COMPARISONS: dict[str, Function] = {
    **{"eq": np.equal, "ne": np.not_equal, "neu": np.not_equal, "lt": np.less, "gt": np.greater},
    **{"le": np.less_equal, "ge": np.greater_equal, "lo": np.less, "hi": np.greater},
    **{"ls": np.less_equal, "hs": np.greater_equal},
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}


def operand_kinds(o: Operation, count: int) -> list[str]:
    """The types in which the operands of an instruction are read; empty for predicates."""
    own = "" if o[-1] == "pred" else "f32" if "bf16x2" in o else o[-1]
    kinds = [own] * count
    if o[0] in {"shl", "shr"}:
        kinds[1] = "u32"
    elif o[0] == "selp":
        kinds[2] = ""
    elif o[0] == "mad" and "wide" in o:
        kinds[2] = _wide(o[-1])
    elif o[0] == "cvt" and own == "bf16":
        kinds = ["u16"]
    return kinds


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Bits of float32 numbers, rounded to the nearest, a tie to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + np.uint64(0x7FFF) + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(values), np.uint64(0x7FFF), rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers that bits stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _wide(kind: str) -> str:
    return f"{kind[0]}{2 * int(kind[1:])}"


def _product(o: Operation, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if "wide" in o:
        wide = TYPES[_wide(o[-1])]
        return a.astype(wide) * b.astype(wide)
    if "hi" in o:
        bits = 8 * a.dtype.itemsize
        found = [int(p) * int(q) >> bits & (1 << bits) - 1 for p, q in zip(a, b, strict=True)]
        return np.array(found, TYPES[f"u{bits}"])
    return a * b


def _shift(o: Operation, a: np.ndarray, by: np.ndarray) -> np.ndarray:
    bits = 8 * a.dtype.itemsize
    shift = np.minimum(by, bits - 1).astype(a.dtype)
    if o[0] == "shr":
        return np.where((by < bits) | (a.dtype.kind == "i"), a >> shift, 0).astype(a.dtype)
    return np.where(by < bits, a << shift, 0).astype(a.dtype)


def _quotient(o: Operation, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if o[-1] == "f32":
        return a / b
    found = np.abs(a) // np.where(b == 0, 1, np.abs(b)).astype(a.dtype)
    return (found * np.sign(a) * np.sign(b)).astype(a.dtype) if a.dtype.kind == "i" else found


def _fused(o: Operation, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _selected(o: Operation, a: np.ndarray, b: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.where(chosen, a, b)


def _converted(o: Operation, *values: np.ndarray) -> np.ndarray:
    target, source = o[-2], o[-1]
    if target == "bf16x2":
        high, low = (to_bfloat16(value).astype(np.uint32) for value in values)
        return high << np.uint32(16) | low
    (value,) = values
    if target == "bf16":
        return to_bfloat16(value)
    if source == "bf16":
        return from_bfloat16(value)
    if source == "f32" and target != "f32":
        value = np.rint(value) if "rni" in o else np.trunc(value)
    return value.astype(TYPES[target])


ARITHMETIC: dict[str, Function] = {
    "add": lambda o, a, b: a + b,
    "sub": lambda o, a, b: a - b,
    "mul": _product,
    "mad": lambda o, a, b, c: _product(o, a, b) + c,
    "fma": _fused,
    "div": _quotient,
    "min": lambda o, a, b: np.fmin(a, b),
    "max": lambda o, a, b: np.fmax(a, b),
    "and": lambda o, a, b: a & b,
    "or": lambda o, a, b: a | b,
    "xor": lambda o, a, b: a ^ b,
    "not": lambda o, a: ~a,
    "neg": lambda o, a: -a,
    "abs": lambda o, a: np.abs(a),
    "shl": _shift,
    "shr": _shift,
    "sqrt": lambda o, a: np.sqrt(a),
    "rsqrt": lambda o, a: np.float32(1) / np.sqrt(a),
    "rcp": lambda o, a: np.float32(1) / a,
    "ex2": lambda o, a: np.exp2(a),
    "copysign": lambda o, a, b: np.copysign(b, a),
    "setp": lambda o, a, b: _COMPARISONS[o[1]](a, b),
    "selp": _selected,
    "cvt": _converted,
}
"""By the first part of their names; each takes all parts, then the operands."""
