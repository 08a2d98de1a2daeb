"""Self-attention of new tokens over the KV cache, which they join."""

import extensibility
from extensibility import (
    InputTensor,
    OutputTensor,
    _MutableInputTensor as MutableInputTensor,
)
from max.gpu.host import DeviceContext
from std.math import ceildiv

from ...common.views import IntView, View
from ..launch import ALONE, EARLY, Kernel, launch
from ..thread_block import each_thread
from .attend import attend, attention_threads, has_products
from .keys_values import KeysValues


@fieldwise_init
struct CachedKeysValues[T: DType](ImplicitlyCopyable, KeysValues):
    """A row's own past: up to `position` in the cache, from there on the new tokens themselves."""

    comptime dtype = Self.T
    var cache: View[Self.T]
    """The head's keys in the layer's cache [slots, context, width]; the values follow."""
    var plane: Int
    """Distance of the values from the keys."""
    var context: Int
    var width: Int
    var slots: IntView
    """Where each position of the row's history is in the cache."""
    var position: Int
    var fresh: View[Self.T]
    """The head's keys in the row's new queries, keys and values [tokens, 3 * width]."""

    @always_inline
    def key(self, index: Int) -> View[Self.T]:
        var new = self.fresh.offset((index - self.position) * 3 * self.width)
        return new if index >= self.position else self._cell(index)

    @always_inline
    def value(self, index: Int) -> View[Self.T]:
        var new = self.fresh.offset((index - self.position) * 3 * self.width + self.width)
        return new if index >= self.position else self._cell(index).offset(self.plane)

    @always_inline
    def visible(self, query: Int) -> Int:
        return self.position + query + 1

    @always_inline
    def _cell(self, index: Int) -> View[Self.T]:
        """Of any position, so that no branch makes the slots of several wait for each other."""
        var slot = Int(self.slots[index])
        return self.cache.offset((slot * self.context + index) * self.width)


@fieldwise_init
struct SelfAttentionKernel[dtype: DType, group: Int, head_size: Int, products: Bool](Kernel):
    """A head of up to `group` new tokens of one row; see `SelfAttention`."""

    comptime threads = attention_threads(Self.products)
    var qkv: View[Self.dtype]
    var cache: View[Self.dtype]
    var slot_table: IntView
    var positions: IntView
    var output: View[Self.dtype]
    var tokens: Int
    var heads: Int
    var slots: Int
    var context: Int
    var layer: Int

    @always_inline
    def __call__(self, block: Int):
        var width = self.heads * Self.head_size
        var column = block % self.heads * Self.head_size
        var groups = ceildiv(self.tokens, Self.group)
        var row = block // self.heads // groups
        var first = block // self.heads % groups * Self.group
        var last = min(self.tokens, first + Self.group)
        var position = Int(self.positions[row])
        var own_slots = self.slot_table.slice(row * self.context, self.context)
        var fresh = self.qkv.offset(row * self.tokens * 3 * width + column)
        var plane = self.slots * self.context * width
        var keys = self.cache.offset(2 * self.layer * plane + column)
        attend[Self.group, Self.head_size, Self.products](
            CachedKeysValues[Self.dtype](
                keys, plane, self.context, width, own_slots, position, fresh.offset(width)
            ),
            fresh,
            3 * width,
            first,
            last,
            0,
            position + last,
            self.output.offset(row * self.tokens * width + column),
            width,
        )
        # New tokens are read where they are, so it does not matter when others join the cache.
        var slot = Int(own_slots[position])

        def keep(thread: Int) {imm}:
            for i in range(thread, (last - first) * Self.head_size, Self.threads):
                var token = first + i // Self.head_size
                var d = i % Self.head_size
                var cell = (slot * self.context + position + token) * width + d
                var new = fresh.offset(token * 3 * width + d)
                keys[cell] = new[width]
                keys[plane + cell] = new[2 * width]

        each_thread[Self.threads](keep)


@extensibility.register("whisper.gpu.self_attention")
struct SelfAttention:
    """Causal attention of new tokens over their rows' histories and over each other.

    kv_cache [layers, 2, slots, context, width], to which their keys and values are added;
    qkv [items, queries, 3 * width]; slot_table [rows, context] int32, the cache slot of every
    position of a row's history; positions [rows] int32, where each row's first new token goes;
    output [items, queries, width].
    """

    @staticmethod
    def execute[
        target: StaticString,
        dtype: DType,
        tensor_cores: Int,
        head_size: Int,
        group: Int,
        early: Bool,
    ](
        output: OutputTensor[dtype=dtype, rank=3, ...],
        kv_cache: MutableInputTensor[dtype=dtype, rank=5, ...],
        qkv: InputTensor[dtype=dtype, rank=3, ...],
        slot_table: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: Int32,
        ctx: DeviceContext,
    ) raises:
        var rows = positions.dim_size(0)
        var heads = kv_cache.dim_size(4) // head_size
        var tokens = qkv.dim_size(0) * qkv.dim_size(1) // max(1, rows)
        comptime products = has_products(tensor_cores, head_size)
        var kernel = SelfAttentionKernel[dtype, group, head_size, products](
            View(qkv),
            View(kv_cache),
            View(slot_table),
            View(positions),
            View(output),
            tokens,
            heads,
            kv_cache.dim_size(2),
            kv_cache.dim_size(3),
            Int(layer),
        )
        launch[target, start=EARLY if early else ALONE](
            kernel, rows * heads * ceildiv(tokens, group), ctx
        )
