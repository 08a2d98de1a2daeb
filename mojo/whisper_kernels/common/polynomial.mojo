"""Polynomials in vectors."""

from std.collections import Array


@always_inline
def polynomial[
    dtype: DType, terms: Int, width: Int, //, coefficients: Array[Float32, terms]
](x: SIMD[dtype, width]) -> SIMD[dtype, width]:
    """`sum(coefficients[i] * x^i)` (Horner)."""
    comptime highest = coefficients[terms - 1]
    var sum = SIMD[dtype, width](highest.cast[dtype]())
    comptime for i in range(terms - 2, -1, -1):
        comptime coefficient = coefficients[i]
        sum = sum.fma(x, SIMD[dtype, width](coefficient.cast[dtype]()))
    return sum
