"""Polynomials in vectors."""

from std.collections import Array

from .matrix import F32


@always_inline
def polynomial[
    terms: Int, width: Int, //, coefficients: Array[Float32, terms]
](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`sum(coefficients[i] * x^i)` (Horner)."""
    comptime highest = coefficients[terms - 1]
    var sum = SIMD[F32, width](highest)
    comptime for i in range(terms - 2, -1, -1):
        comptime coefficient = coefficients[i]
        sum = sum.fma(x, SIMD[F32, width](coefficient))
    return sum
