"""The float32 type and the width of its vectors."""

from std.sys import simd_width_of

comptime F32 = DType.float32
comptime BF16 = DType.bfloat16
comptime LANES = simd_width_of[F32]()
