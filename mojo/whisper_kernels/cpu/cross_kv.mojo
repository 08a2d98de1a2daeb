"""The keys and values of the decoder's cross-attention, made once for a window."""

from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from .attention import KeysValues
from .epilogue import Epilogue
from .gemm import multiply
from .heads import HeadGroups
from .panels import Rows
from .threads import Member, Phases, together
from .weights import Linear, Parameters
from .strips import Strips
from ..common.views import Bytes, Floats, first, floats, numbers


def remember[
    storage: DType, memory_type: DType
](
    states: Floats,
    items: Int,
    frames: Int,
    width: Int,
    parameters: Bytes,
    layers: Int,
    heads: Int,
    state: Int,
    memory: Bytes,
    memory_size: Int,
    threads: Int,
):
    """Encoder states [items, frames, width] to memory [layers, items, heads, memory_size].

    `state` is the decoder's width.
    """
    var head_size = state // heads
    var groups = HeadGroups(heads, head_size, frames)
    var columns = groups.columns()
    var start = Parameters(parameters)
    var after = Parameters(parameters)
    _ = after.linear[storage](width, state)
    _ = after.linear[storage](width, state)
    var layer_bytes = Int(after.place) - Int(start.place)
    var phases = Phases(items)

    def body(_worker: Int) {imm}:
        var member = Member(phases.counters)
        var strips = Strips[storage](frames, width)
        var projected = unsafe_alloc[Float32](2 * frames * columns, alignment=64)
        for item in range(items):
            var source = states.unsafe_offset(item * frames * width)
            strips.prepare(Rows(source, width, frames), 0, frames, width)

            def pack(task: Int) {imm}:
                var layer = task // groups.count()
                var group = task % groups.count()
                var cursor = Parameters(parameters.unsafe_offset(layer * layer_bytes))
                var key = cursor.linear[storage](width, state)
                var value = cursor.linear[storage](width, state)
                var first_column = group * columns
                var low = groups.first_panel(group)
                var high = groups.last_panel(group)
                var keys = projected
                var values = projected.unsafe_offset(frames * columns)
                apply(strips, key, low, high, keys.unsafe_offset(-first_column), columns)
                apply(strips, value, low, high, values.unsafe_offset(-first_column), columns)
                for head in range(group * groups.each, groups.last_head(group)):
                    var column = head * head_size - first_column
                    var place = (layer * items + item) * heads + head
                    KeysValues[memory_type](
                        memory.unsafe_offset(place * memory_size), frames, head_size
                    ).pack(keys.unsafe_offset(column), values.unsafe_offset(column), columns)

            member.run(layers * groups.count(), pack)
        projected.unsafe_free()

    together(threads, body)


def apply[
    storage: DType
](
    strips: Strips[storage],
    linear: Linear[storage],
    first_panel: Int,
    last_panel: Int,
    y: Floats,
    stride: Int,
):
    """Some columns of a linear layer."""
    multiply(
        strips, linear.weight, first_panel, last_panel, y, stride, Epilogue(bias=linear.bias)
    )


@extensibility.register("whisper.remember")
struct Remember:
    """Cross-attention keys and values of all layers, in place.

    memory [layers, items, heads, bytes]; states [items, frames, width];
    parameters [bytes]: of every layer the projection to keys, then to values;
    sizes [1] int32: the decoder's width.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, memory_type: DType
    ](
        memory: MutableInputTensor[dtype=DType.uint8, rank=4, ...],
        states: InputTensor[dtype=DType.float32, rank=3, ...],
        parameters: InputTensor[dtype=DType.uint8, rank=1, ...],
        sizes: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        remember[storage, memory_type](
            floats(states),
            states.dim_size(0),
            states.dim_size(1),
            states.dim_size(2),
            numbers(parameters),
            memory.dim_size(0),
            memory.dim_size(2),
            first(sizes),
            numbers(memory),
            memory.dim_size(3),
            first(threads),
        )
