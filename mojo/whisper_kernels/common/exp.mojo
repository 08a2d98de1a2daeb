"""Exponentials, most of them of what is not positive, each as exact as its use needs."""

from std.collections import Array
from std.math import round
from std.memory import bitcast
from std.sys import llvm_intrinsic

from .extremes import larger
from .simd import F32
from ..cpu.panels import PANEL
from .polynomial import polynomial

comptime LOG2_OF_E = Float32(1.4426950408889634)
comptime LEAST = Float32(-115)
"""Of powers of 2: less adds nothing to a sum that is at least 1."""

# Minimax fits of 2^f over [-1/2, 1/2].
comptime EXP2: Array[Float32, 7] = [
    1, 0.6931472, 0.24022646, 5.5503286e-2, 9.618489e-3, 1.339993e-3, 1.534579e-4
]
comptime FAST_EXP2: Array[Float32, 5] = [
    1.00000008, 0.69312103, 0.24022107, 5.592204e-2, 9.67604e-3
]

comptime HALF_UNIT = Float32(256)
"""Of an exponent, what `exp2_half` takes for 1: one bit more than bfloat16 keeps."""
comptime HALF_ONE = 127 * HALF_UNIT
"""What it makes 1 of."""
# 256 (1 + f - 2^f) in the middle of each 32nd, less the 3/4 that make the last shift round. The
# first is 0, and so nothing falls below 0.
comptime BEND = SIMD[DType.int16, PANEL](
    0, 3, 5, 7, 9, 11, 12, 14, 15, 17, 18, 19, 20, 20, 21, 21,
    21, 21, 21, 21, 20, 19, 19, 17, 16, 15, 13, 11, 9, 6, 4, 1,
)


@always_inline
def exp_below[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`e^x` for x <= 0 with a relative error of 1e-7 near 0; at least 2^LEAST."""
    return exp2_by[EXP2](larger(x * LOG2_OF_E, SIMD[F32, width](LEAST)))


@always_inline
def exp2_fast[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`2^x` for x <= 0 with a relative error of 4e-6; 2^-30 below -30."""
    return exp2_by[FAST_EXP2](max(x, -30))


@always_inline
def exp2_by[
    terms: Int, width: Int, //, power: Array[Float32, terms]
](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`2^x` by one of the polynomials, for exponents of normal numbers."""
    var whole = round(x)
    var exponent = whole.cast[DType.int32]() << 23
    var scaled = bitcast[DType.int32, width](polynomial[power](x - whole)) + exponent
    return bitcast[F32, width](scaled)


@always_inline
def exp2_half(x: SIMD[F32, PANEL]) -> SIMD[DType.bfloat16, PANEL]:
    """`2^((x - HALF_ONE) / HALF_UNIT)` with a relative error of 0.2 % (RMS), of which rounding is
    most; 0 where that is too small and not a number where it is too large.

    The integer part of x already is the result's exponent and mantissa, but for a bend of the
    mantissa, which is a line where `2^f` is a curve.

    Source: Schraudolph, "A Fast, Compact Approximation of the Exponential Function", 1999.
    """
    comptime V = SIMD[DType.int32, 16]
    comptime W = SIMD[DType.int16, PANEL]
    var every = UInt16(0xFFFF)
    var parts = Array[V, 2](fill=V(0))
    comptime for i in range(2):
        parts[i] = llvm_intrinsic["llvm.x86.avx512.mask.cvtps2dq.512", V](
            x.slice[16, offset=16 * i](), V(0), every, Int32(4)
        )
    # Into 16 bits, at least 0 and at most 65535, in turns of four from either part.
    var mixed = llvm_intrinsic["llvm.x86.avx512.packusdw.512", W](parts[0], parts[1])
    var ordered = bitcast[DType.int64, 8](mixed).shuffle[0, 2, 4, 6, 1, 3, 5, 7]()
    var bits = bitcast[DType.uint16, PANEL](ordered)
    var bend = llvm_intrinsic["llvm.x86.avx512.permvar.hi.512", W](
        materialize[BEND](), bitcast[DType.int16, PANEL](bits >> 3)
    )
    return bitcast[DType.bfloat16, PANEL]((bits - bitcast[DType.uint16, PANEL](bend)) >> 1)
