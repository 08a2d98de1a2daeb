"""What the processor multiplies (bytes, pairs of bfloat16, tiles), and the block sizes that follow."""

from std.sys.info import CompilationTarget

from ..common.simd import BF16, LANES

comptime SIGNED = CompilationTarget.has_neon_int8_dotprod()
"""Whether an instruction of ARM multiplies bytes (SDOT), both of them signed."""
comptime DOTS = SIGNED or (LANES >= 8 and CompilationTarget.has_vnni())
"""Whether an instruction multiplies bytes; otherwise they are widened to 16 bits."""
comptime BLOCKS = SIGNED and CompilationTarget.has_neon_int8_matmul()
"""Whether one multiplies two rows with two columns of eight bytes (SMMLA)."""
comptime GROUP = 8 if BLOCKS else (4 if DOTS else 2)
"""Members of a group: numbers of a row, or of a column, that an instruction multiplies and adds
up."""
comptime INTEGER = (DType.int8 if SIGNED else DType.uint8) if DOTS else DType.int16
"""What the quantised values of A are kept in."""
comptime WORD = DType.uint64 if BLOCKS else DType.uint32
"""Holds a group of A."""
comptime TILES = DOTS and CompilationTarget.has_intel_amx()
"""Whether the processor has AMX, which multiplies blocks of bytes or of bfloat16."""
comptime PAIRS = TILES or (LANES == 16 and CompilationTarget._has_feature["avx512bf16"]())
"""Whether an instruction multiplies pairs of bfloat16; otherwise they are widened to float32."""
comptime HALVES = TILES or CompilationTarget._has_feature["fullfp16"]()
"""Whether the processor computes in float16."""
comptime TILE_BYTES = 64
"""Of a row of a tile: so much depth goes through the unit at once."""
comptime TILE_ROWS = 16
comptime STRIP_ROWS = 12 if LANES >= 16 else (8 if LANES == 4 else 6)
"""Rows of a strip: as many accumulators as the register file holds."""


@always_inline
def tiled[storage: DType]() -> Bool:
    """Whether products with matrices of this type are AMX's."""
    return TILES and (storage == DType.int8 or storage == BF16)


@always_inline
def paired[storage: DType]() -> Bool:
    """Whether matrices of this type are kept, and multiplied, as pairs of bfloat16."""
    return PAIRS and storage == BF16
