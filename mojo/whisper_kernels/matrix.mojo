"""Matrices as the products of the model read them.

Every dense product (linear layers, convolutions, attention scores and the weighted sum of
values) is `C = A B`. B has been stored once, as panels of `PANEL` columns: element (k, n) lies
in panel `n // PANEL` at `[k][n % PANEL]`, and the last panel is padded with zeros. A panel is
read front to back, which is what a decoder step, bound by memory, wants; for its sake panels may
be of a smaller type than float32, and are widened as they are read.

Panels of int8 begin with the scale of every column and the sum of its integers (`HEADER` bytes,
float32). `GROUP` values of a column lie together, `[k // GROUP][n % PANEL][k % GROUP]`: those that
a lane of the processor's instruction multiplies and adds up.
"""

from std.math import align_up, ceildiv
from std.sys import simd_width_of, size_of
from std.sys.info import CompilationTarget

from .tensors import Bytes, Floats, Numbers

comptime F32 = DType.float32
comptime LANES = simd_width_of[F32]()
comptime PANEL = 32
"""Columns of a panel: two vectors of AVX-512, four of AVX2."""
comptime HEADER = 2 * PANEL * 4
"""Bytes before an int8 panel: its columns' scales, then their sums."""
comptime DOTS = LANES == 16 and CompilationTarget.has_vnni()
"""Whether an instruction multiplies bytes; otherwise they are widened to 16 bits."""
comptime GROUP = 4 if DOTS else 2


@always_inline
def panel_bytes[storage: DType](depth: Int) -> Int:
    """Bytes of a panel, a multiple of 64."""
    comptime if storage == DType.int8:
        return HEADER + align_up(depth, 4) * PANEL
    return depth * PANEL * size_of[Scalar[storage]]()


@fieldwise_init
struct Matrix[storage: DType](ImplicitlyCopyable):
    """B [depth, columns] in panels."""

    var data: Bytes
    var depth: Int
    var columns: Int

    def panels(self) -> Int:
        """Number of panels."""
        return ceildiv(self.columns, PANEL)

    def bytes(self) -> Int:
        """Size of all panels."""
        return self.panels() * panel_bytes[Self.storage](self.depth)

    @always_inline
    def panel(self, index: Int) -> Bytes:
        """Where a panel begins: with its header, if it has one."""
        return self.data.unsafe_offset(index * panel_bytes[Self.storage](self.depth))


struct Rows(ImplicitlyCopyable):
    """Where the rows of A lie in memory.

    Row i is `data[i * stride + offset ...]`; what falls outside `[0, limit)` is
    zero. A linear layer has offset 0; a convolution over time-major input
    `[time, channels]` reads overlapping windows, with stride `step * channels`
    and offset `-padding * channels`.
    """

    var data: Floats
    var stride: Int
    var offset: Int
    var limit: Int

    def __init__(out self, data: Floats, stride: Int, offset: Int, limit: Int):
        self.data = data
        self.stride = stride
        self.offset = offset
        self.limit = limit

    def __init__(out self, data: Floats, stride: Int, rows: Int):
        """Rows that all lie inside."""
        self.data = data
        self.stride = stride
        self.offset = 0
        self.limit = rows * stride


struct Epilogue(ImplicitlyCopyable):
    """What happens to a finished product: `c = gelu(c + bias) + residual`.

    Each part is optional. `residual` has the layout of C, and may be C itself.
    """

    var bias: Optional[Floats]
    var residual: Optional[Floats]
    var activate: Bool

    def __init__(
        out self,
        bias: Optional[Floats] = None,
        residual: Optional[Floats] = None,
        activate: Bool = False,
    ):
        self.bias = bias
        self.residual = residual
        self.activate = activate

    def empty(self) -> Bool:
        """Whether the product is left as it is."""
        return not (self.bias or self.residual or self.activate)
