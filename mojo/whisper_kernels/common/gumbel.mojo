"""Gumbel noise, a hash of (seed, row, id), so that a step can be repeated."""

from std.math import log

from .simd import F32


@always_inline
def hashed[width: Int](value: SIMD[DType.uint32, width]) -> SIMD[DType.uint32, width]:
    """A bijective mix of 32 bits (multiply and xor-shift, two rounds)."""
    var x = value
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@always_inline
def gumbel[width: Int](stream: UInt32, ids: SIMD[DType.uint32, width]) -> SIMD[F32, width]:
    """Standard Gumbel noise for ids of one stream."""
    var bits = hashed(hashed(ids ^ stream) + stream)
    # 23 bits, centred in their interval: never 0 or 1. With a bit more, the half would be rounded
    # away, and the largest would be 1, whose noise is infinite.
    var uniform = ((bits >> 9).cast[F32]() + 0.5) * (1.0 / 8388608.0)
    return -log(-log(uniform))
