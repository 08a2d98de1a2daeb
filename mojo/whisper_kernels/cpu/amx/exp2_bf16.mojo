"""Powers of 2 in bfloat16: the weights of attention, a panel of keys at a time."""

from std.collections import Array
from std.memory import bitcast
from std.sys import llvm_intrinsic

from ...common.simd import F32
from ..panels import PANEL

comptime HALF_UNIT = Float32(256)
"""Of an exponent, what `exp2_half` takes for 1: one bit more than bfloat16 keeps."""
comptime HALF_ONE = 127 * HALF_UNIT
"""What it makes 1 of."""
# 256 (1 + f - 2^f) in the middle of each 32nd, less the 3/4 that make the last shift round. The
# first is 0, and so nothing falls below 0.
comptime BEND = SIMD[DType.int16, PANEL](
    0,
    3,
    5,
    7,
    9,
    11,
    12,
    14,
    15,
    17,
    18,
    19,
    20,
    20,
    21,
    21,
    21,
    21,
    21,
    21,
    20,
    19,
    19,
    17,
    16,
    15,
    13,
    11,
    9,
    6,
    4,
    1,
)


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
