"""Compute types: what a name means for a file on a device, and what runs there.

Two questions are kept apart. `resolve` answers the reference's one: which type does this request
stand for, given the file's own type and what the device is able to do (``resolve_compute_type`` in
CTranslate2's ``src/types.cc``). `select` then says what this engine runs for it: the resolved type
if kernels for it exist, otherwise float32, which is never less accurate. What int8 means differs:
see `checkpoint.dtypes`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

_FLOATS = frozenset({"float32", "float16", "bfloat16"})
GPU_KERNELS = _FLOATS | {f"int8_{name}" for name in _FLOATS}
CPU_KERNELS = frozenset({"float32", "int8_float32"})
BFLOAT16_KERNELS = CPU_KERNELS | {"bfloat16"}
"""Compute types that have kernels in this release; the last, on a CPU that multiplies bfloat16."""
_BFLOAT16 = {"float16": "bfloat16", "int8_float16": "int8_bfloat16"}
"""What runs instead of these on a GPU."""

_NAMES = (
    "default",
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
)

_log = logging.getLogger("whisper_max_backend")


@dataclass(frozen=True)
class Capabilities:
    """Which number formats a device multiplies efficiently, as the reference counts it."""

    int8: bool = False
    int16: bool = False
    float16: bool = False
    bfloat16: bool = False


@dataclass(frozen=True)
class Precision:
    """The outcome of a request.

    Attributes:
        resolved: The type that the reference's rules give for the request.
        running: The type that this engine computes in.
    """

    resolved: str
    running: str


@functools.cache
def capabilities(device: str) -> Capabilities:
    """What the device can do: ``"cpu"`` or ``"cuda"``.

    A CPU is given int8 and neither half precision, on every machine. Efficient int16 exists only
    where CTranslate2 found Intel MKL, so CTranslate2 is asked.
    """
    if device == "cpu":
        import ctranslate2

        return Capabilities(
            int8=True, int16="int16" in ctranslate2.get_supported_compute_types(device)
        )
    return Capabilities(int8=True, float16=True, bfloat16=True)


def kernels(device: str) -> frozenset[str]:
    """The compute types that this engine computes in on a device."""
    if device == "cuda":
        return GPU_KERNELS
    from ..compile.cpu_target import has_bfloat16

    return BFLOAT16_KERNELS if has_bfloat16() else CPU_KERNELS


def check_name(name: str) -> str:
    """The canonical spelling of a compute type's name.

    Raises:
        ValueError: No compute type has this name.
    """
    if name == "float":
        return "float32"
    if name not in _NAMES:
        raise ValueError(f"Invalid compute type: {name} (possible values are: {', '.join(_NAMES)})")
    return name


def requested_for(compute_type: str | Mapping[str, str], device: str) -> str:
    """The request that holds on a device, from one name or a mapping by device.

    Args:
        compute_type: A name, or names by device; a device that is not named has ``"default"``.
        device: The device as the caller wrote it: ``"auto"`` finds only an entry ``"auto"``.

    Raises:
        TypeError: Neither a name nor a mapping of names.
        ValueError: No compute type has this name.
    """
    chosen = (
        compute_type.get(device, "default") if isinstance(compute_type, Mapping) else compute_type
    )
    if not isinstance(chosen, str):
        raise TypeError(
            "compute_type must be a name or a dictionary mapping device names to names, "
            f"got {compute_type!r}"
        )
    return check_name(chosen)


def resolve(
    requested: str,
    saved: str,
    able: Capabilities,
    device: str,
    more: frozenset[str] = frozenset(),
) -> str:
    """The type that a request stands for, by the reference's rules.

    Args:
        requested: A canonical name.
        saved: The precision of the model file, e.g. ``"float16"``.
        able: What the device can do.
        device: ``"cpu"`` or ``"cuda"``.
        more: Types that are to be had if they are asked for by name, whatever the reference does.

    Raises:
        ValueError: The request names a type that the device does not compute efficiently.
    """
    if requested == "default":
        # A file of any precision loads everywhere, so the file's type may be substituted.
        return _nearest(saved, able, device)
    if requested == "auto":
        if device == "cuda":
            return _first(
                {
                    "int8_float16": able.int8 and able.float16,
                    "int8_float32": able.int8,
                    "float16": able.float16,
                }
            )
        return _first({"int8_float32": able.int8, "int16": able.int16})
    if requested == "int8":
        # int8 weights; the rest stays in the file's floating type where the device has it.
        half = {
            "float16": "float16",
            "int8_float16": "float16",
            "bfloat16": "bfloat16",
            "int8_bfloat16": "bfloat16",
        }.get(saved, "float32")
        found = _nearest(f"int8_{half}", able, device)
        if not found.startswith("int8"):
            raise _unsupported(requested)
        return found
    if requested not in more and not _runs(requested, able):
        raise _unsupported(requested)
    return requested


def select(
    compute_type: str | Mapping[str, str], saved: str, device_name: str, device: str
) -> Precision:
    """What runs for a request on a device.

    A type without kernels, int16, runs in float32, which is logged once with the reason. ``auto``
    on a GPU is bfloat16, which has float32's range and is fast there; int8 is for whom asks for it.
    So are float16 and ``int8_float16``, which is logged, too.

    Args:
        compute_type: As given to the engine: a name, or names by device.
        saved: The precision of the model file.
        device_name: The device as the caller wrote it.
        device: The device that it means, ``"cpu"`` or ``"cuda"``.

    Raises:
        TypeError, ValueError: As `requested_for` and `resolve`.
    """
    requested = requested_for(compute_type, device_name)
    kernels_here = kernels(device)
    resolved = resolve(requested, saved, capabilities(device), device, kernels_here)
    if requested == "auto" and device == "cuda":
        return Precision(resolved, "bfloat16")
    if device == "cuda" and resolved in _BFLOAT16:
        _tell_bfloat16(requested)
        return Precision(resolved, _BFLOAT16[resolved])
    if resolved in kernels_here:
        return Precision(resolved, resolved)
    _tell_substitution(requested, resolved, device)
    return Precision(resolved, "float32")


def _runs(name: str, able: Capabilities) -> bool:
    return {
        "float32": True,
        "float16": able.float16,
        "bfloat16": able.bfloat16,
        "int16": able.int16,
        "int8_float32": able.int8,
        "int8_float16": able.int8 and able.float16,
        "int8_bfloat16": able.int8 and able.bfloat16,
    }[name]


def _nearest(name: str, able: Capabilities, device: str) -> str:
    """The type itself if the device has it, otherwise the reference's substitute."""
    cpu, cuda = device == "cpu", device == "cuda"
    substitutes: dict[str, dict[str, bool]] = {
        "int16": {"int8_float32": cpu and able.int8, "float16": cuda and able.float16},
        "int8_float32": {"int16": cpu and able.int16, "float16": cuda and able.float16},
        "int8_float16": {
            "int8_float32": able.int8,
            "float16": able.float16,
            "int16": able.int16,
        },
        "int8_bfloat16": {"int8_float32": able.int8, "bfloat16": able.bfloat16},
    }
    return name if _runs(name, able) else _first(substitutes.get(name, {}))


def _first(choices: Mapping[str, bool]) -> str:
    return next((name for name, possible in choices.items() if possible), "float32")


def _unsupported(name: str) -> ValueError:
    return ValueError(
        f"Requested {name} compute type, but the target device or backend do not support "
        f"efficient {name} computation."
    )


@functools.cache
def _tell_bfloat16(requested: str) -> None:
    _log.info(
        "compute type %s runs in bfloat16 on a GPU, which is as fast: attention of the encoder in "
        "float16 has not been compared with the reference on one yet",
        requested,
    )


@functools.cache
def _tell_substitution(requested: str, resolved: str, device: str) -> None:
    _log.info(
        "compute type %s means %s on this device (%s); there are no kernels for it in this "
        "release, so the model runs in float32, which is at least as accurate",
        requested,
        resolved,
        device,
    )
