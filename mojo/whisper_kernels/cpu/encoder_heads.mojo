"""Queries, keys and values of the encoder's heads, from the projection to the attention.

The tile unit reads rows of bfloat16, 32 at a time: a block of rows is packed for it while it is
still in the cache. For the other kernels, whose blocks are not as high as a panel is wide and whose
values have a scale over all frames, heads wait until they are whole.
"""

from std.math import align_up
from std.memory.alloc import unsafe_alloc

from .attention import AttentionScratch, KeysValues, encoder_memory, head_bytes
from .epilogue import Epilogue
from .gemm import multiply
from .heads import HeadGroups
from .panels import TILE_ROWS, Rows, tiled
from .weights import Linear, Norm
from .row_block import RowBlock
from .strips import Strips
from ..common.views import Bytes, Floats
from .amx.attention import HALF, query_scale
from .amx.rows import round_tile_row


struct EncoderHeads[storage: DType]:
    """The heads of a batch of windows, for layers with weights of `storage`; owns its memory."""

    comptime memory = encoder_memory(Self.storage)
    comptime at_once = tiled[Self.storage]()
    """Whether blocks of rows are packed as they are projected."""

    var count: Int
    """Frames of a window."""
    var heads: Int
    var head_size: Int
    var groups: HeadGroups
    """Of the queries, the keys and the values, one after another."""
    var projected: Floats
    """[windows, groups], unless they are packed at once."""
    var queries: Bytes
    """[windows, heads, strips], if they are."""
    var strips_bytes: Int
    """Of the queries of a head."""
    var packed: Bytes
    """[windows, heads], keys and values."""
    var packed_bytes: Int

    def __init__(out self, windows: Int, count: Int, heads: Int, head_size: Int):
        self.count = count
        self.heads = heads
        self.head_size = head_size
        self.groups = HeadGroups(3 * heads, head_size, count)
        var waiting = 0 if Self.at_once else windows * self.groups.size()
        self.projected = unsafe_alloc[Float32](waiting, alignment=64)
        self.strips_bytes = Strips[HALF].row_bytes(head_size) * align_up(count, TILE_ROWS)
        var strips = windows * heads * self.strips_bytes if Self.at_once else 0
        self.queries = unsafe_alloc[UInt8](strips, alignment=64)
        self.packed_bytes = head_bytes[Self.memory](count, head_size)
        self.packed = unsafe_alloc[UInt8](windows * heads * self.packed_bytes, alignment=64)

    def __deinit__(deinit self):
        self.projected.unsafe_free()
        self.queries.unsafe_free()
        self.packed.unsafe_free()

    def project(
        self,
        mut rows: RowBlock[Self.storage],
        x: Floats,
        window: Int,
        start: Int,
        height: Int,
        norm: Norm,
        linear: Linear[Self.storage],
    ):
        """Frames `[start, start + height)` of a window, x [height, width], through the projection."""
        rows.strips.prepare_normed(x, height, linear.weight.depth, norm)
        var columns = self.groups.columns()
        for group in range(self.groups.count()):
            var target = rows.group
            comptime if not Self.at_once:
                target = self.projected.unsafe_offset(
                    window * self.groups.size() + (group * self.count + start) * columns
                )
            multiply(
                rows.strips,
                linear.weight,
                self.groups.first_panel(group),
                self.groups.last_panel(group),
                target.unsafe_offset(-group * columns),  # the group's first column comes there
                columns,
                Epilogue(bias=linear.bias),
            )
            comptime if Self.at_once:
                for head in range(group * self.groups.each, self.groups.last_head(group)):
                    var first = rows.group.unsafe_offset(head * self.head_size - group * columns)
                    self._pack_block(first, window, head, start, height)

    def _pack_block(self, rows: Floats, window: Int, head: Int, start: Int, height: Int):
        """Frames `[start, start + height)` of one head: of queries, keys or values."""
        var stride = self.groups.columns()
        var place = window * self.heads + head % self.heads
        if head < self.heads:
            var scale = query_scale(self.head_size)
            for i in range(height):
                round_tile_row(
                    rows.unsafe_offset(i * stride),
                    self.head_size,
                    scale,
                    self._strip(place, start + i),
                    (start + i) % TILE_ROWS,
                )
        elif head < 2 * self.heads:
            self._keys_values(place).pack_keys(rows, stride, start, start + height)
        else:
            self._keys_values(place).pack_values(rows, stride, start, start + height)

    def pack(self, place: Int):
        """Keys and values of a head of a window, which are whole; `place` is [windows, heads]."""
        var head = place % self.heads
        var window = self._window(place)
        self._keys_values(place).pack(
            window.unsafe_offset(self.groups.place(self.heads + head)),
            window.unsafe_offset(self.groups.place(2 * self.heads + head)),
            self.groups.columns(),
        )

    def attend(
        self,
        mut scratch: AttentionScratch[Self.memory],
        place: Int,
        first: Int,
        last: Int,
        output: Floats,
        stride: Int,
    ):
        """Attention of queries `[first, last)` of a head of a window; output row i at
        `output[i * stride]`."""
        var memory = self._keys_values(place)
        comptime if Self.at_once:
            scratch.attend_strips(
                self._strip(place, first),
                last - first,
                memory,
                output.unsafe_offset(first * stride),
                stride,
            )
        else:
            var queries = self._window(place).unsafe_offset(self.groups.place(place % self.heads))
            var rows = Rows(queries, self.groups.columns(), self.count)
            scratch.attend(rows, first, last, memory, output, stride)

    @always_inline
    def _window(self, place: Int) -> Floats:
        return self.projected.unsafe_offset(place // self.heads * self.groups.size())

    @always_inline
    def _strip(self, place: Int, row: Int) -> Bytes:
        """The strip of queries with a row."""
        var strip = row // TILE_ROWS * TILE_ROWS * Strips[HALF].row_bytes(self.head_size)
        return self.queries.unsafe_offset(place * self.strips_bytes + strip)

    @always_inline
    def _keys_values(self, place: Int) -> KeysValues[Self.memory]:
        return KeysValues[Self.memory](
            self.packed.unsafe_offset(place * self.packed_bytes), self.count, self.head_size
        )
