"""The processor that CPU kernels are compiled for.

MAX compiles for the processor it detects, and its detection can miss features the processor has
(behind some hypervisors). The operating system's list of features (`processor`) decides here
instead, and the answer is an LLVM processor name. ``WHISPER_MAX_CPU_TARGET`` overrides it:
any LLVM name, or ``native`` to leave the choice to MAX.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
from collections.abc import Iterator, Mapping

from max.driver import get_virtual_cpu_target, set_virtual_cpu_target

from ...system.cpu_features import X86_64_V3, processor_features

VARIABLE = "WHISPER_MAX_CPU_TARGET"
MAX_DECIDES = "native"
TILES = "sapphirerapids"
"""The target whose kernels use AMX (Intel AMX)."""
_PAIRS = "cooperlake"

_V4 = X86_64_V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = _V4 | {"avx512_vnni"}
# Of what LLVM takes for granted of the first such processor, the compiler uses no more for vectors.
_AVX_VNNI = X86_64_V3 | {"avx_vnni", "gfni", "vaes", "vpclmulqdq"}
# What LLVM takes for granted of the first processor with AMX, and might use.
_AMX = _VNNI | {"amx_tile", "amx_int8", "amx_bf16", "avx512_bf16", "avx512_fp16", "avx_vnni"}
_AMX |= {"avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq", "avx512ifma", "gfni"}
# Of ARM: dot products of bytes, float16 and what else comes with them; then matrix products, and
# what LLVM takes for granted of an Apple M2, which has no SVE as some servers have none.
_DOTPROD = {"asimd", "asimddp", "asimdhp", "asimdrdm", "atomics", "lrcpc", "crc32", "aes", "sha2"}
_I8MM = _DOTPROD | {"i8mm", "bf16", "asimdfhm", "ilrcpc", "fcma", "jscvt", "flagm", "sha3"}

# Best first: the first target whose features are all present is taken. These are the levels
# between which the kernels tell: a processor that has more runs the same code as fast.
_X86: Mapping[str, tuple[frozenset[str], str]] = {
    TILES: (frozenset(_AMX), "AMX tiles of bytes and bfloat16"),
    _PAIRS: (frozenset(_VNNI | {"avx512_bf16"}), "AVX-512, bytes by VNNI, bfloat16 by AVX512-BF16"),
    "cascadelake": (frozenset(_VNNI), "AVX-512, bytes by VNNI"),
    "alderlake": (frozenset(_AVX_VNNI), "AVX2, bytes by AVX-VNNI"),
    "x86-64-v4": (frozenset(_V4), "AVX-512"),
    "x86-64-v3": (X86_64_V3, "AVX2"),
}
_ARM: Mapping[str, tuple[frozenset[str], str]] = {
    "apple-m2": (frozenset(_I8MM), "NEON, bytes by matrix products"),
    "cortex-a76": (frozenset(_DOTPROD), "NEON, bytes by dot products"),
}

_log = logging.getLogger("whisper_max_backend")
_set_aside: list[str] = []  # the target of this process, while something is compiled for another


def _levels(machine: str) -> Mapping[str, tuple[frozenset[str], str]]:
    """The targets of an architecture."""
    if machine.lower() in ("x86_64", "amd64"):
        return _X86
    return _ARM if machine.lower() in ("aarch64", "arm64") else {}


TARGETS = tuple(_levels(platform.machine()))
"""The processors of this architecture that kernels are compiled for, best first."""
LEAST = TARGETS[-1] if TARGETS else ""
"""The last of them, whose code the others run as well."""


def has_tiles() -> bool:
    """Whether the kernels of this process use AMX."""
    return apply_cpu_target() == TILES


def has_bfloat16() -> bool:
    """Whether the kernels of this process compute in bfloat16: by AMX or by AVX512-BF16."""
    return apply_cpu_target() in (TILES, _PAIRS)


def best_target(features: frozenset[str], machine: str | None = None) -> str:
    """The most capable LLVM processor whose features are all in ``features``; "" if none is.

    ``machine`` is the architecture as ``platform.machine()`` gives it.
    """
    levels = _levels(machine or platform.machine())
    return next((name for name, (needed, _) in levels.items() if needed <= features), "")


def describe_kernels() -> str:
    """What the kernels of this process use of the processor, for people."""
    target = os.environ.get(VARIABLE) or best_target(processor_features())
    levels = _levels(platform.machine())
    if target in levels:
        return f"{levels[target][1]} ({target})"
    return target or MAX_DECIDES


def apply_cpu_target() -> str:
    """Choose the processor that kernels are compiled for, once, before anything is compiled.

    A target that the host program has set through ``max.driver`` stays. Returns the target in
    force ("" when MAX decides).
    """
    features = processor_features()
    current: str = _set_aside[-1] if _set_aside else get_virtual_cpu_target()
    if current:
        return current
    asked = os.environ.get(VARIABLE)
    target = asked or best_target(features)
    if not target or target == MAX_DECIDES:
        return ""
    if asked:
        _check_known(asked)
    set_virtual_cpu_target(target)
    _log.debug("CPU kernels are compiled for %s", target)
    return target


@contextlib.contextmanager
def compiling_for(target: str) -> Iterator[None]:
    """Within it, MAX compiles for another processor. One thread at a time may use it.

    `apply_cpu_target` and what asks it go on telling the target of this process.
    """
    own = apply_cpu_target()
    _set_aside.append(own)
    set_virtual_cpu_target(target)
    try:
        yield
    finally:
        set_virtual_cpu_target(own)
        _set_aside.pop()


def _check_known(target: str) -> None:
    """Refuse a name that the compiler does not know: later it would end the process."""
    from mojo.run import subprocess_run_mojo

    triple = f"{platform.machine()}-unknown-linux-gnu"
    command = ["build", "--print-supported-cpus", "--target-triple", triple]
    listing = subprocess_run_mojo(command, capture_output=True, check=False)
    known = {line.strip() for line in listing.stdout.decode(errors="replace").splitlines()[1:]}
    if listing.returncode == 0 and target not in known | {"generic"}:
        raise ValueError(
            f"{VARIABLE}={target!r} is not a processor that the compiler knows for "
            f"{platform.machine()}; use one of {', '.join(TARGETS)}, another that it knows, or "
            f"{MAX_DECIDES} to let MAX decide"
        )


def describe_cpu_target() -> str:
    """The target in force, as part of a cache key.

    When MAX decides, code compiled for one processor may not run on another, so the
    processor's own features stand for its name.
    """
    target = apply_cpu_target()
    if target:
        return f"{platform.machine()}/{target}"
    features = " ".join(sorted(processor_features())) or platform.processor()
    return f"{platform.machine()}/host-{hashlib.sha256(features.encode()).hexdigest()[:16]}"
