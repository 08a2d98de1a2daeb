"""Self-attention of new tokens over the cache, which they join."""

import extensibility
from extensibility import (
    InputTensor,
    OutputTensor,
    _MutableInputTensor as MutableInputTensor,
)
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import ceildiv

from ..common.views import Ints, Numbers, ints, numbers
from .attention import THREADS, History, attend_block
from .block import blocks_on_cpu, step


@always_inline
def history_block[
    dtype: DType, group: Int, head_size: Int
](
    block: Int,
    qkv: Numbers[dtype],
    cache: Numbers[dtype],
    origins: Ints,
    positions: Ints,
    output: Numbers[dtype],
    tokens: Int,
    heads: Int,
    slots: Int,
    context: Int,
    layer: Int,
):
    """A head of up to `group` new tokens of one row."""
    var width = heads * head_size
    var column = block % heads * head_size
    var groups = ceildiv(tokens, group)
    var row = block // heads // groups
    var first = block // heads % groups * group
    var last = min(tokens, first + group)
    var position = Int(positions[unsafe_offset=row])
    var own = origins.unsafe_offset(row * context)
    var fresh = qkv.unsafe_offset(row * tokens * 3 * width + column)
    var plane = slots * context * width
    var keys = cache.unsafe_offset(2 * layer * plane + column)
    attend_block[group, head_size](
        History[dtype](
            keys, plane, context, width, own, position, fresh.unsafe_offset(width)
        ),
        fresh,
        3 * width,
        first,
        last,
        0,
        position + last,
        output.unsafe_offset(row * tokens * width + column),
        width,
    )
    # New tokens are read where they are, so it does not matter when others join the cache.
    var slot = Int(own[unsafe_offset=position])

    def keep(thread: Int) {imm}:
        for i in range(thread, (last - first) * head_size, THREADS):
            var token = first + i // head_size
            var d = i % head_size
            var cell = (slot * context + position + token) * width + d
            var new = fresh.unsafe_offset(token * 3 * width + d)
            keys[unsafe_offset=cell] = new[unsafe_offset=width]
            keys[unsafe_offset=plane + cell] = new[unsafe_offset=2 * width]

    step[THREADS](keep)


def history_kernel[
    dtype: DType, group: Int, head_size: Int
](
    qkv: Numbers[dtype],
    cache: Numbers[dtype],
    origins: Ints,
    positions: Ints,
    output: Numbers[dtype],
    tokens: Int64,
    heads: Int64,
    slots: Int64,
    context: Int64,
    layer: Int64,
):
    """One block of the grid."""
    history_block[dtype, group, head_size](
        Int(block_idx.x),
        qkv,
        cache,
        origins,
        positions,
        output,
        Int(tokens),
        Int(heads),
        Int(slots),
        Int(context),
        Int(layer),
    )


@extensibility.register("whisper.device.attend_history")
struct AttendHistory:
    """Causal attention of new tokens over their rows' histories and over each other.

    cache [layers, 2, slots, context, width], to which their keys and values are added;
    qkv [items, queries, 3 * width]; origins [rows, context] int32, the cache row of every position
    of a row's history; positions [rows] int32, where each row's first new token goes;
    output [items, queries, width].
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, head_size: Int, group: Int
    ](
        output: OutputTensor[dtype=dtype, rank=3, ...],
        cache: MutableInputTensor[dtype=dtype, rank=5, ...],
        qkv: InputTensor[dtype=dtype, rank=3, ...],
        origins: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: Int32,
        ctx: DeviceContext,
    ) raises:
        var rows = positions.dim_size(0)
        var width = cache.dim_size(4)
        var heads = width // head_size
        if rows == 0:
            return
        var tokens = qkv.dim_size(0) * qkv.dim_size(1) // rows
        var blocks = rows * heads * ceildiv(tokens, group)
        comptime if is_cpu[target]():
            var qkv_at = numbers(qkv)
            var cache_at = numbers(cache)
            var origins_at = ints(origins)
            var positions_at = ints(positions)
            var output_at = numbers(output)
            var slots = cache.dim_size(2)
            var context = cache.dim_size(3)

            def block(index: Int) {imm}:
                history_block[dtype, group, head_size](
                    index,
                    qkv_at,
                    cache_at,
                    origins_at,
                    positions_at,
                    output_at,
                    tokens,
                    heads,
                    slots,
                    context,
                    Int(layer),
                )

            blocks_on_cpu(blocks, block)
        else:
            ctx.enqueue_function[history_kernel[dtype, group, head_size]](
                numbers(qkv),
                numbers(cache),
                ints(origins),
                ints(positions),
                numbers(output),
                Int64(tokens),
                Int64(heads),
                Int64(cache.dim_size(2)),
                Int64(cache.dim_size(3)),
                Int64(layer),
                grid_dim=blocks,
                block_dim=THREADS,
            )
