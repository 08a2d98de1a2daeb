"""How fast Intel AMX is on all cores where nothing has to be read.

Prints FLOP/s in bfloat16. The argument is a number of threads. It is compiled for a processor with
tiles, with the kernels' folder as an import path, and is what the encoder is measured against.
"""

from std.ffi import external_call
from std.sys import argv, llvm_intrinsic
from std.time import perf_counter_ns

from whisper_kernels.cpu.amx.tiles import multiply_tile
from whisper_kernels.cpu.threads import together

comptime ROUNDS = 1 << 20
"""Of four products, by each thread; the unit can have so many under way."""
comptime OPERATIONS = 2 * 16 * 16 * 32
"""Of a product of two tiles of bfloat16."""
comptime CALLS = 8
"""The fastest counts."""


def multiply(_worker: Int):
    comptime for tile in range(8):
        llvm_intrinsic["llvm.x86.tilezero", NoneType](Int8(tile))
    for _ in range(ROUNDS):
        multiply_tile[DType.bfloat16, 0, 4, 6]()
        multiply_tile[DType.bfloat16, 1, 4, 7]()
        multiply_tile[DType.bfloat16, 2, 5, 6]()
        multiply_tile[DType.bfloat16, 3, 5, 7]()


def main() raises:
    var threads = Int(argv()[1])
    _ = external_call["syscall", Int](158, 0x1023, 18)  # may this process use tiles?
    var least = Int.MAX
    for _ in range(CALLS):
        var start = perf_counter_ns()
        together(threads, multiply)
        least = min(least, perf_counter_ns() - start)
    print(1e9 * Float64(4 * ROUNDS * threads * OPERATIONS) / Float64(least))
