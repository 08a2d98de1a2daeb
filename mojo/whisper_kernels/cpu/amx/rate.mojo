"""How fast the tile unit is where nothing has to be read: what products are measured against."""

from std.sys import llvm_intrinsic

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ...common.views import View, first
from ..target import TILES
from ..threads import together
from .tiles import multiply_tile


@extensibility.register("whisper.tile_rate")
struct TileRate:
    """Products of tiles that stay where they are, as many as the unit can have under way.

    count [1]: how many times four products, by each thread; done [1] is the same number. A product
    is one of 16 x 16 results over a depth of 64 bytes.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType
    ](
        done: OutputTensor[dtype=DType.int32, rank=1, ...],
        count: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rounds = first(count)

        def body(_thread: Int) {imm}:
            comptime if TILES:
                comptime for tile in range(8):
                    llvm_intrinsic["llvm.x86.tilezero", NoneType](Int8(tile))
                for _ in range(rounds):
                    multiply_tile[storage, 0, 4, 6]()
                    multiply_tile[storage, 1, 4, 7]()
                    multiply_tile[storage, 2, 5, 6]()
                    multiply_tile[storage, 3, 5, 7]()

        together(first(threads), body)
        View(done)[0] = Int32(rounds)
