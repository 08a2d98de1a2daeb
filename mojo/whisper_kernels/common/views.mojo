"""Raw pointers of graph tensors, for kernels that do their own indexing."""

from extensibility import ManagedTensorSlice

comptime Floats = Pointer[Float32, MutUntrackedOrigin]
comptime Numbers[dtype: DType] = Pointer[Scalar[dtype], MutUntrackedOrigin]
comptime Bytes = Numbers[DType.uint8]
comptime Ints = Pointer[Int32, MutUntrackedOrigin]


@always_inline
def numbers[dtype: DType](tensor: ManagedTensorSlice[dtype=dtype, ...]) -> Numbers[dtype]:
    """The first element of a tensor, which is contiguous in row-major order."""
    return tensor.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


@always_inline
def floats(tensor: ManagedTensorSlice[dtype=DType.float32, ...]) -> Floats:
    """The first element of a float32 tensor, which is contiguous in row-major order."""
    return tensor.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


@always_inline
def ints(tensor: ManagedTensorSlice[dtype=DType.int32, ...]) -> Ints:
    """The first element of an int32 tensor, which is contiguous in row-major order."""
    return tensor.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


@always_inline
def first(tensor: ManagedTensorSlice[dtype=DType.int32, ...]) -> Int:
    """The first element, of a tensor that holds one number."""
    return Int(ints(tensor)[unsafe_offset=0])
