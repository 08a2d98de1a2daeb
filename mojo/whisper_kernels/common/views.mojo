"""Views of memory: a pointer that knows how much lies behind it.

Every access of a view is asserted where a graph or a program is compiled with assertions
(`-D ASSERT=all`, or `InferenceSession.set_mojo_assert_level`), and costs nothing otherwise. The
message names the line of the kernel.
"""

from std.memory.alloc import unsafe_alloc
from std.reflection import SourceLocation, call_location
from std.sys import align_of, size_of

from extensibility import ManagedTensorSlice

comptime Address[dtype: DType] = Pointer[Scalar[dtype], MutUntrackedOrigin]
"""A bare pointer, as instructions and atomics take it."""

comptime FloatView = View[DType.float32]
comptime ByteView = View[DType.uint8]
comptime IntView = View[DType.int32]


struct View[dtype: DType](TrivialRegisterPassable):
    """Numbers that lie one after another in memory that others own."""

    var data: Address[Self.dtype]
    """The first of them."""
    var count: Int

    @always_inline
    def __init__(out self, data: Address[Self.dtype], count: Int):
        """`count` numbers from `data` on."""
        self.data = data
        self.count = count

    @always_inline
    def __init__(out self, tensor: ManagedTensorSlice[dtype=Self.dtype, ...]):
        """A tensor, which is contiguous in row-major order."""
        var data = tensor.unsafe_ptr().unsafe_mut_cast[True]()
        self.data = data.unsafe_origin_cast[MutUntrackedOrigin]()
        self.count = tensor.size()

    @staticmethod
    def allocate(count: Int) -> Self:
        """New memory for `count` numbers, at a multiple of 64 bytes; `free` gives it back."""
        return Self(unsafe_alloc[Scalar[Self.dtype]](count, alignment=64), count)

    def free(self):
        """Gives back what `allocate` took."""
        self.data.unsafe_free()

    @always_inline
    def __getitem__(self, index: Int) -> Scalar[Self.dtype]:
        self._check(index, 1, call_location())
        return self.data[unsafe_offset=index]

    @always_inline
    def __setitem__(self, index: Int, value: Scalar[Self.dtype]):
        self._check(index, 1, call_location())
        self.data[unsafe_offset=index] = value

    @always_inline
    def load[
        width: Int = 1, *, alignment: Int = align_of[Scalar[Self.dtype]]()
    ](self, index: Int = 0) -> SIMD[Self.dtype, width]:
        """`width` numbers from `index` on; their address is a multiple of `alignment` bytes."""
        self._check(index, width, call_location())
        return self.data.unsafe_offset(index).unsafe_load[width=width, alignment=alignment]()

    @always_inline
    def strided_load[width: Int](self, index: Int, stride: Int) -> SIMD[Self.dtype, width]:
        """`width` numbers from `index` on, `stride` apart."""
        self._check(index, (width - 1) * stride + 1, call_location())
        return self.data.unsafe_offset(index).unsafe_strided_load[width=width](stride)

    @always_inline
    def store[
        *, alignment: Int = align_of[Scalar[Self.dtype]]()
    ](self, index: Int, value: SIMD[Self.dtype, _]):
        """Stores a vector from `index` on, at an address that is a multiple of `alignment`."""
        self._check(index, Int(value.length), call_location())
        self.data.unsafe_offset(index).unsafe_store[alignment=alignment](value)

    @always_inline
    def store[*, alignment: Int = align_of[Scalar[Self.dtype]]()](self, value: SIMD[Self.dtype, _]):
        """Stores a vector at the beginning."""
        self._check(0, Int(value.length), call_location())
        self.data.unsafe_store[alignment=alignment](value)

    @always_inline
    def offset(self, start: Int) -> Self:
        """What lies from `start` on; nothing, where that is behind the end."""
        return Self(self.data.unsafe_offset(start), self.count - start)

    @always_inline
    def slice(self, start: Int, count: Int) -> Self:
        """`count` numbers from `start` on, such as a row."""
        debug_assert(
            0 <= start and 0 <= count and start + count <= self.count,
            "a slice of ",
            count,
            " from ",
            start,
            " on, of a view of ",
            self.count,
            location=call_location(),
        )
        return Self(self.data.unsafe_offset(start), count)

    @always_inline
    def bitcast[other: DType](self) -> View[other]:
        """The same memory as numbers of another type."""
        comptime size = size_of[Scalar[Self.dtype]]()
        return View[other](
            self.data.unsafe_bitcast[Scalar[other]](),
            self.count * size // size_of[Scalar[other]](),
        )

    @always_inline
    def _check(self, index: Int, width: Int, location: SourceLocation):
        debug_assert(
            0 <= index and index + width <= self.count,
            "index ",
            index,
            ", ",
            width,
            " wide, of a view of ",
            self.count,
            location=location,
        )


@always_inline
def first(tensor: ManagedTensorSlice[dtype=DType.int32, ...]) -> Int:
    """The first element, of a tensor that holds one number."""
    return Int(View(tensor)[0])
