"""The discrete Fourier transform of 400 real samples, as 16 x 25.

With n = j + 25 q and k = p + 16 m:

    X[p + 16 m] = sum_j w25^(j m) * (w400^(j p) * sum_q w16^(q p) x[j + 25 q])

Samples are real, so the inner sums for p = 9..15 mirror those for p = 7..1 and are left out: the
rows p = 0..8 hold every bin from 0 to 200, some as the conjugate of bin 400 - k. The outer sums are
transforms of 25 points as 5 x 5.

Each function works on SIMD values, one lane a frame; width 1 serves a GPU thread.
"""

comptime N_FFT = 400
comptime BINS = N_FFT // 2 + 1
comptime COLUMNS = 25
"""Values of j: how many transforms of 16 points."""
comptime ROWS = 9
"""Values of p that are kept: how many transforms of 25 points."""


struct Complex[width: Int](Copyable, ImplicitlyCopyable, Movable):
    """A SIMD vector of complex numbers."""

    var re: SIMD[DType.float32, Self.width]
    var im: SIMD[DType.float32, Self.width]

    @always_inline
    def __init__(
        out self,
        re: SIMD[DType.float32, Self.width] = 0,
        im: SIMD[DType.float32, Self.width] = 0,
    ):
        self.re = re
        self.im = im

    @always_inline
    def __add__(self, other: Self) -> Self:
        return Self(self.re + other.re, self.im + other.im)

    @always_inline
    def __sub__(self, other: Self) -> Self:
        return Self(self.re - other.re, self.im - other.im)

    @always_inline
    def scaled(self, factor: Float32) -> Self:
        return Self(self.re * factor, self.im * factor)

    @always_inline
    def turned(self, re: Float32, im: Float32) -> Self:
        """The product with the complex number re + i im."""
        return Self(self.re * re - self.im * im, self.re * im + self.im * re)

    @always_inline
    def over_i(self) -> Self:
        """The product with -i."""
        return Self(self.im, -self.re)

    @always_inline
    def conjugate(self) -> Self:
        return Self(self.re, -self.im)

    @always_inline
    def power(self) -> SIMD[DType.float32, Self.width]:
        return self.re * self.re + self.im * self.im


@always_inline
def bin_of(p: Int, s: Int, t: Int) -> Int:
    """The bin that output t of row p's second stage s is the power of."""
    var k = p + 16 * (s + 5 * t)
    return k if k < BINS else N_FFT - k


@always_inline
def dft16[width: Int](x: Array[SIMD[DType.float32, width], 16]) -> Array[Complex[width], ROWS]:
    """Bins 0 to 8 of the transform of 16 real samples, as 4 x 4 (q = 4 a + b, p = c + 4 d)."""
    comptime C = Complex[width]
    comptime COS = Float32(0.9238795325112867)  # of pi / 8
    comptime SIN = Float32(0.3826834323650898)
    comptime SQRT_HALF = Float32(0.7071067811865476)  # cos and sin of pi / 4
    var even = Array[SIMD[DType.float32, width], 4](fill=0)  # c = 0
    var odd = Array[SIMD[DType.float32, width], 4](fill=0)  # c = 2
    var mixed = Array[C, 4](fill=C())  # c = 1, and c = 3 mirrors it
    comptime for b in range(4):
        var sum02 = x[b] + x[8 + b]
        var sum13 = x[4 + b] + x[12 + b]
        even[b] = sum02 + sum13
        odd[b] = sum02 - sum13
        mixed[b] = C(x[b] - x[8 + b], x[12 + b] - x[4 + b])

    var result = Array[C, ROWS](fill=C())
    result[0] = C((even[0] + even[2]) + (even[1] + even[3]))
    result[8] = C((even[0] + even[2]) - (even[1] + even[3]))
    result[4] = C(even[0] - even[2], even[3] - even[1])

    var difference = (odd[1] - odd[3]) * SQRT_HALF
    var total = (odd[1] + odd[3]) * SQRT_HALF
    result[2] = C(odd[0] + difference, -odd[2] - total)
    result[6] = C(odd[0] - difference, odd[2] - total)

    var m1 = mixed[1].turned(COS, -SIN)
    var m2 = mixed[2].turned(SQRT_HALF, -SQRT_HALF)
    var m3 = mixed[3].turned(SIN, -COS)
    var sum02 = mixed[0] + m2
    var difference02 = mixed[0] - m2
    var sum13 = m1 + m3
    var difference13 = (m1 - m3).over_i()
    result[1] = sum02 + sum13
    result[5] = difference02 + difference13
    result[7] = (sum02 - sum13).conjugate()  # bin 9
    result[3] = (difference02 - difference13).conjugate()  # bin 13
    return result^


@always_inline
def dft5[width: Int](z: Array[Complex[width], 5]) -> Array[Complex[width], 5]:
    """The transform of 5 complex samples."""
    comptime COS1 = Float32(0.30901699437494745)  # of 2 pi / 5
    comptime COS2 = Float32(-0.8090169943749475)  # of 4 pi / 5
    comptime SIN1 = Float32(0.9510565162951535)
    comptime SIN2 = Float32(0.5877852522924731)
    var sum14 = z[1] + z[4]
    var sum23 = z[2] + z[3]
    var difference14 = z[1] - z[4]
    var difference23 = z[2] - z[3]
    var near = z[0] + sum14.scaled(COS1) + sum23.scaled(COS2)
    var far = z[0] + sum14.scaled(COS2) + sum23.scaled(COS1)
    var near_turn = (difference14.scaled(SIN1) + difference23.scaled(SIN2)).over_i()
    var far_turn = (difference14.scaled(SIN2) - difference23.scaled(SIN1)).over_i()
    var result = Array[Complex[width], 5](fill=Complex[width]())
    result[0] = z[0] + sum14 + sum23
    result[1] = near + near_turn
    result[4] = near - near_turn
    result[2] = far + far_turn
    result[3] = far - far_turn
    return result^
