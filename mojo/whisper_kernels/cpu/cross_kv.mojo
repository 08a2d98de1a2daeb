"""The keys and values of the decoder's cross-attention, made once for a window."""

import extensibility
from extensibility import InputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from ..common.views import ByteView, FloatView, IntView, View, first
from .attention import KeysValues
from .epilogue import Epilogue
from .gemm import multiply
from .head_layout import HeadGroups
from .panels import Rows
from .strips import Strips
from .threads import Phases, Worker, together
from .weight_reader import Linear, WeightReader


def project_cross_kv[
    storage: DType, kv_type: DType
](
    states: FloatView,
    items: Int,
    frames: Int,
    width: Int,
    weights: ByteView,
    layers: Int,
    heads: Int,
    state: Int,
    cross_kv: ByteView,
    windows: IntView,
    all_windows: Int,
    head_bytes: Int,
    threads: Int,
):
    """Encoder states [items, frames, width] to their windows [items] of
    cross_kv [layers, all_windows, heads, head_bytes].

    `state` is the decoder's width.
    """
    var head_size = state // heads
    var groups = HeadGroups(heads, head_size, frames)
    var columns = groups.columns()
    var start = WeightReader(weights)
    var after = WeightReader(weights)
    _ = after.linear[storage](width, state)
    _ = after.linear[storage](width, state)
    var layer_bytes = start.place.count - after.place.count
    var phases = Phases(items)

    def body(_thread: Int) {imm}:
        var worker = Worker(phases.counters)
        var strips = Strips[storage](frames, width, for_weights=True)
        var projected = FloatView.allocate(2 * frames * columns)
        for item in range(items):
            var source = states.slice(item * frames * width, frames * width)
            strips.prepare(Rows(source, width, frames), 0, frames, width)

            def pack(task: Int) {imm}:
                var layer = task // groups.count()
                var group = task % groups.count()
                var cursor = WeightReader(weights.slice(layer * layer_bytes, layer_bytes))
                var key = cursor.linear[storage](width, state)
                var value = cursor.linear[storage](width, state)
                var first_column = group * columns
                var low = groups.first_panel(group)
                var high = groups.last_panel(group)
                var keys = projected
                var values = projected.offset(frames * columns)
                apply(strips, key, low, high, keys.offset(-first_column), columns)
                apply(strips, value, low, high, values.offset(-first_column), columns)
                for head in range(group * groups.each, groups.last_head(group)):
                    var column = head * head_size - first_column
                    var window = layer * all_windows + Int(windows[item])
                    var place = window * heads + head
                    KeysValues[kv_type](
                        cross_kv.slice(place * head_bytes, head_bytes), frames, head_size
                    ).pack(keys.offset(column), values.offset(column), columns)

            worker.run(layers * groups.count(), pack)
        projected.free()

    together(threads, body)


def apply[
    storage: DType
](
    strips: Strips[storage],
    linear: Linear[storage],
    first_panel: Int,
    last_panel: Int,
    y: FloatView,
    stride: Int,
):
    """Some columns of a linear layer."""
    multiply(strips, linear.weight, first_panel, last_panel, y, stride, Epilogue(bias=linear.bias))


@extensibility.register("whisper.cross_kv")
struct CrossKV:
    """Cross-attention keys and values of all layers, in place.

    cross_kv [layers, windows, heads, bytes]; windows [items], those that are written;
    states [items, frames, width]; weights [bytes]: of every layer the projection to keys, then to values;
    text_width [1] int32, of the decoder.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, kv_type: DType
    ](
        cross_kv: MutableInputTensor[dtype=DType.uint8, rank=4, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        states: InputTensor[dtype=DType.float32, rank=3, ...],
        weights: InputTensor[dtype=DType.uint8, rank=1, ...],
        text_width: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        project_cross_kv[storage, kv_type](
            View(states),
            states.dim_size(0),
            states.dim_size(1),
            states.dim_size(2),
            View(weights),
            cross_kv.dim_size(0),
            cross_kv.dim_size(2),
            first(text_width),
            View(cross_kv),
            View(windows),
            cross_kv.dim_size(1),
            cross_kv.dim_size(3),
            first(threads),
        )
