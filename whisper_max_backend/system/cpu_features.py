"""What the processor can do. This imports nothing of MAX, which itself needs some of it.

It imports little else: MAX's library is mapped beside the other imports, and only after this.
"""

from __future__ import annotations

import ctypes
import functools
import os

X86_64_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
"""What MAX's own libraries take for granted on x86-64: elsewhere importing them ends the process
with "Illegal instruction"."""
ARM_V8_2 = frozenset({"atomics", "asimddp"})
"""Likewise on ARM: they run on a Cortex-A76, and not on a Cortex-A72 or an A64FX (seen by QEMU)."""

# Leaf, register and bit of CPUID, where leaves are numbered as in glibc's `sys/platform/x86.h`.
_CPUID = {
    **{"fma": (0, 2, 12), "movbe": (0, 2, 22), "xsave": (0, 2, 27), "avx": (0, 2, 28)},
    **{"f16c": (0, 2, 29), "bmi1": (1, 1, 3), "avx2": (1, 1, 5), "bmi2": (1, 1, 8)},
    **{"avx512f": (1, 1, 16), "gfni": (1, 2, 8), "vaes": (1, 2, 9), "vpclmulqdq": (1, 2, 10)},
    **{"abm": (2, 2, 5), "avx_vnni": (6, 0, 4)},
}


class _Leaf(ctypes.Structure):
    """One leaf of CPUID: eax, ebx, ecx, edx."""

    _fields_ = (("present", ctypes.c_uint32 * 4), ("active", ctypes.c_uint32 * 4))


def require_processor() -> None:
    """Call this before `max` is imported.

    Raises:
        RuntimeError: The processor cannot run MAX.
    """
    missing = missing_features()
    if missing:
        raise RuntimeError(
            f"MAX cannot run on this processor, which lacks {', '.join(missing)}: "
            "give a virtual machine the CPU type 'host' (or 'x86-64-v3'), or transcribe with "
            'faster_whisper itself or with load_model(..., backend="ctranslate2")'
        )


def missing_features() -> list[str]:
    """What MAX needs and this processor lacks, by the names of /proc/cpuinfo; [] if unknown."""
    features = processor_features()
    if not features:
        return []
    needed = {"x86_64": X86_64_V3, "aarch64": ARM_V8_2}.get(_architecture(), frozenset())
    return sorted(needed - features)


def _architecture() -> str:
    return os.uname().machine


@functools.cache
def processor_features() -> frozenset[str]:
    """The features of the first processor, by their Linux names; empty where they are unknown.

    They are those that Linux lists. Emulators (QEMU) let a program see the host's list, so what
    CPUID denies is left out. Those of AMX are left out where the kernel does not let
    this process use it.
    """
    listed = _listed_features()
    active, inactive = _cpuid_features()
    features = listed - inactive if listed else active
    if "amx_tile" in features and not _may_use_tiles():
        return frozenset(name for name in features if not name.startswith("amx"))
    return features


def _listed_features() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", errors="replace") as lines:
            for line in lines:
                label, _, value = line.partition(":")
                if label.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def _cpuid_features() -> tuple[frozenset[str], frozenset[str]]:
    """Which of `_CPUID` this process can use and which it cannot; nothing where glibc is not.

    Source: the GNU C Library's manual, "X86-specific Facilities".
    """
    try:
        leaf = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
    except (AttributeError, OSError):  # another processor, C library or system
        return frozenset(), frozenset()
    leaf.argtypes, leaf.restype = [ctypes.c_uint], ctypes.POINTER(_Leaf)
    active = frozenset(
        name
        for name, (number, register, bit) in _CPUID.items()
        if leaf(number).contents.active[register] >> bit & 1
    )
    return active, frozenset(_CPUID) - active


def _may_use_tiles() -> bool:
    """Ask the kernel for AMX, once a process: its state is large, so it is on request.

    Source: the Linux kernel's "Using XSTATE features in user space applications".
    """
    library = ctypes.CDLL(None, use_errno=True)
    arch_prctl, request, tile_data = 158, 0x1023, 18
    allowed: bool = library.syscall(arch_prctl, request, tile_data) == 0
    if not allowed:
        import logging

        reason = os.strerror(ctypes.get_errno())
        log = logging.getLogger("whisper_max_backend")
        log.info("AMX is not used: the kernel refuses it (%s)", reason)
    return allowed
