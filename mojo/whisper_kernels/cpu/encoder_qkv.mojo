"""Projects and packs the encoder's queries, keys and values, a block of rows at a time.

AMX reads rows of bfloat16, 32 at a time: a block of rows is packed for it while it is
still in the cache. For the other kernels, whose blocks are not as high as a panel is wide and whose
values have a scale over all frames, heads wait until they are whole.
"""

from std.math import align_up

from ..common.simd import BF16
from ..common.views import ByteView, FloatView
from .amx.attention import query_scale
from .amx.strips import round_tile_row
from .amx.tiles import BLOCK_ROWS
from .attention import AttentionScratch, KeysValues, encoder_kv_type, head_bytes
from .encoder_layer import EncoderChunk
from .epilogue import Epilogue
from .gemm import multiply
from .head_layout import HeadGroups
from .panels import Rows
from .strips import Strips
from .target import TILE_ROWS, tiled
from .weight_reader import Linear, Norm


struct EncoderHeads[storage: DType]:
    """The heads of a batch of windows, for layers with weights of `storage`; owns its memory."""

    comptime kv_type = encoder_kv_type(Self.storage)
    comptime at_once = tiled[Self.storage]()
    """Whether blocks of rows are packed as they are projected."""

    var count: Int
    """Frames of a window."""
    var heads: Int
    var head_size: Int
    var groups: HeadGroups
    """Of the queries, the keys and the values, one after another."""
    var projected: FloatView
    """[windows, groups], unless they are packed at once."""
    var queries: ByteView
    """[windows, heads, strips], if they are."""
    var strips_bytes: Int
    """Of the queries of a head."""
    var packed: ByteView
    """[windows, heads], keys and values."""
    var packed_bytes: Int

    def __init__(out self, windows: Int, count: Int, heads: Int, head_size: Int):
        self.count = count
        self.heads = heads
        self.head_size = head_size
        self.groups = HeadGroups(3 * heads, head_size, count)
        var waiting = 0 if Self.at_once else windows * self.groups.size()
        self.projected = FloatView.allocate(waiting)
        # A block of queries is read as a whole, the last one too.
        self.strips_bytes = Strips[BF16].row_bytes(head_size) * align_up(count, BLOCK_ROWS)
        var strips = windows * heads * self.strips_bytes if Self.at_once else 0
        self.queries = ByteView.allocate(strips)
        self.packed_bytes = head_bytes[Self.kv_type](count, head_size)
        self.packed = ByteView.allocate(windows * heads * self.packed_bytes)

    def __deinit__(deinit self):
        self.projected.free()
        self.queries.free()
        self.packed.free()

    def project(
        self,
        mut rows: EncoderChunk[Self.storage],
        x: FloatView,
        window: Int,
        start: Int,
        height: Int,
        norm: Norm,
        linear: Linear[Self.storage],
    ):
        """Frames `[start, start + height)` of a window, x [height, width], projected."""
        rows.strips.prepare_normed(x, height, linear.weight.depth, norm)
        var columns = self.groups.columns()
        for group in range(self.groups.count()):
            var target = rows.group
            comptime if not Self.at_once:
                target = self.projected.offset(
                    window * self.groups.size() + (group * self.count + start) * columns
                )
            multiply(
                rows.strips,
                linear.weight,
                self.groups.first_panel(group),
                self.groups.last_panel(group),
                target.offset(-group * columns),  # the group's first column comes there
                columns,
                Epilogue(bias=linear.bias),
            )
            comptime if Self.at_once:
                for head in range(group * self.groups.each, self.groups.last_head(group)):
                    var first = rows.group.offset(head * self.head_size - group * columns)
                    self._pack_block(first, window, head, start, height)

    def _pack_block(self, rows: FloatView, window: Int, head: Int, start: Int, height: Int):
        """Frames `[start, start + height)` of one head: of queries, keys or values."""
        var stride = self.groups.columns()
        var place = window * self.heads + head % self.heads
        if head < self.heads:
            var scale = query_scale(self.head_size)
            for i in range(height):
                round_tile_row(
                    rows.offset(i * stride),
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
            window.offset(self.groups.place(self.heads + head)),
            window.offset(self.groups.place(2 * self.heads + head)),
            self.groups.columns(),
        )

    def attend(
        self,
        mut scratch: AttentionScratch[Self.kv_type, True],
        place: Int,
        first: Int,
        last: Int,
        output: FloatView,
        stride: Int,
    ):
        """Attention of queries `[first, last)` of a head of a window; output row i at
        `output[i * stride]`."""
        var kv = self._keys_values(place)
        comptime if Self.at_once:
            scratch.attend_strips(
                self._strip(place, first),
                last - first,
                kv,
                output.offset(first * stride),
                stride,
            )
        else:
            var queries = self._window(place).offset(self.groups.place(place % self.heads))
            var rows = Rows(queries, self.groups.columns(), self.count)
            scratch.attend(rows, first, last, kv, output, stride)

    @always_inline
    def _window(self, place: Int) -> FloatView:
        return self.projected.slice(place // self.heads * self.groups.size(), self.groups.size())

    @always_inline
    def _strip(self, place: Int, row: Int) -> ByteView:
        """The strip of queries with a row."""
        var strip = row // TILE_ROWS * TILE_ROWS * Strips[BF16].row_bytes(self.head_size)
        return self.queries.offset(place * self.strips_bytes + strip)

    @always_inline
    def _keys_values(self, place: Int) -> KeysValues[Self.kv_type]:
        return KeysValues[Self.kv_type](
            self.packed.slice(place * self.packed_bytes, self.packed_bytes),
            self.count,
            self.head_size,
        )
