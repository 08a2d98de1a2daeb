"""A loop that runs kernels for another process: requests come on its input, results go out.

A request is numbers of 64 bits and the bytes of arrays: the kernel, how many arrays there are, of
each its rank, its dimensions, its bytes, whether they follow and whether they are sent back; how
many addresses there are, of each the array and the place in it, and the bytes that it is to lead to.
"""

from std.collections import List
from std.ffi import external_call
from std.utils import IndexList

from extensibility import InputTensor, OutputTensor, StaticTensorSpec
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from whisper_kernels.common.views import ByteView, View

comptime MOST_DIMENSIONS = 5
comptime INPUT = Int32(0)
comptime OUTPUT = Int32(1)


struct Array(ImplicitlyCopyable):
    """An array of a request."""

    var shape: IndexList[MOST_DIMENSIONS]
    var data: ByteView
    var given: Bool
    var wanted: Bool

    def __init__(out self) raises:
        """The header, without the bytes."""
        self.shape = IndexList[MOST_DIMENSIONS](1, 1, 1, 1, 1)
        var rank = read_number()
        for i in range(rank):
            self.shape[i] = read_number()
        self.data = ByteView.allocate(read_number())
        self.given = read_number() != 0
        self.wanted = read_number() != 0

    def dims[rank: Int](self) -> IndexList[rank]:
        """The dimensions that there are."""
        var dims = IndexList[rank]()
        comptime for i in range(rank):
            dims[i] = self.shape[i]
        return dims

    def input[
        dtype: DType, rank: Int
    ](self) -> InputTensor[static_spec=StaticTensorSpec[dtype, rank, ...].get_unknown()]:
        """As a kernel reads it."""
        return {self.data.bitcast[dtype]().data, self.dims[rank]()}

    def output[
        dtype: DType, rank: Int
    ](self) -> OutputTensor[static_spec=StaticTensorSpec[dtype, rank, ...].get_unknown()]:
        """As a kernel makes it."""
        return {self.data.bitcast[dtype]().data, self.dims[rank]()}

    def mutable[
        dtype: DType, rank: Int
    ](self) -> MutableInputTensor[static_spec=StaticTensorSpec[dtype, rank, ...].get_unknown()]:
        """As a kernel changes it."""
        return {self.data.bitcast[dtype]().data, self.dims[rank]()}

    def number[dtype: DType](self) -> Scalar[dtype]:
        """The one number that it holds."""
        return self.data.bitcast[dtype]()[0]


def read_bytes(target: ByteView) raises:
    """The next bytes of the input."""
    var done = 0
    while done < target.count:
        var count = external_call["read", Int](INPUT, target.offset(done).data, target.count - done)
        if count <= 0:
            raise Error("the input ends")
        done += count


def read_number() raises -> Int:
    """The next number of the input."""
    var number = View[DType.int64].allocate(1)
    read_bytes(number.bitcast[DType.uint8]())
    var value = Int(number[0])
    number.free()
    return value


def write_bytes(source: ByteView) raises:
    """Sends bytes."""
    var done = 0
    while done < source.count:
        var count = external_call["write", Int](
            OUTPUT, source.offset(done).data, source.count - done
        )
        if count <= 0:
            raise Error("the output is closed")
        done += count


def serve(ctx: DeviceContext) raises:
    """One request."""
    var kernel = read_number()
    var arrays = List[Array]()
    for _ in range(read_number()):
        arrays.append(Array())
    for array in arrays:
        if array.given:
            read_bytes(array.data)
    var behind = List[ByteView]()
    for _ in range(read_number()):
        var table = arrays[read_number()].data.bitcast[DType.int64]()
        var place = read_number()
        var memory = ByteView.allocate(read_number())
        read_bytes(memory)
        table[place] = Int64(Int(memory.data))
        behind.append(memory)
    run(kernel, arrays, ctx)
    for array in arrays:
        if array.wanted:
            write_bytes(array.data)
        array.data.free()
    for memory in behind:
        memory.free()


def main() raises:
    """Serves until the input ends."""
    var ctx = DeviceContext(api="cpu")
    while True:
        serve(ctx)
