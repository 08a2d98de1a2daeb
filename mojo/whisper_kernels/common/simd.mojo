"""The vectors that kernels compute with."""

from std.sys import simd_width_of

comptime F32 = DType.float32
comptime LANES = simd_width_of[F32]()
