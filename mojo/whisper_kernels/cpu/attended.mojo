"""Which encoder frame a new token attends to most: by it, live speech is followed.

Source: AlignAtt (Papi et al. 2023, arXiv 2305.11408) with Whisper's alignment heads, as in
Simul-Whisper (arXiv 2406.10052).
"""

from std.math import align_up, sqrt

from ..common.views import ByteView, FloatView, IntView
from .attention import KeysValues, exponentiate
from .decoder import DecoderSizes
from .gemm import multiply
from .panels import PANEL, Rows
from .strips import Strips


struct AttendedFrames[kv_type: DType]:
    """Finds them for the rows of a step. A thread has one of its own."""

    var heads: IntView
    """[chosen, 2]: layer and head."""
    var content: Int
    """Frames that are looked at, from the first on: the others are padding."""
    var sizes: DecoderSizes
    var strips: Strips[Self.kv_type]
    var scores: FloatView
    var sums: FloatView

    def __init__(out self, heads: IntView, content: Int, sizes: DecoderSizes):
        var room = align_up(sizes.frames, PANEL)
        self.heads = heads
        self.content = content
        self.sizes = sizes
        self.strips = Strips[Self.kv_type](1, sizes.width // sizes.heads)
        self.scores = FloatView.allocate(room)
        self.sums = FloatView.allocate(room)

    def __deinit__(deinit self):
        self.scores.free()
        self.sums.free()

    def find(mut self, queries: FloatView, cross_kv: ByteView, row: Int, window: Int) -> Int:
        """The frame with the largest sum of weights over the heads, of queries
        [layers, rows, width]."""
        var sizes = self.sizes
        var head_size = sizes.width // sizes.heads
        for k in range(self.content):
            self.sums[k] = 0
        for i in range(self.heads.count // 2):
            var layer = Int(self.heads[2 * i])
            var head = Int(self.heads[2 * i + 1])
            var place = (layer * sizes.windows + window) * sizes.heads + head
            var kv = KeysValues[Self.kv_type](
                cross_kv.slice(place * sizes.head_bytes, sizes.head_bytes), sizes.frames, head_size
            )
            var query = queries.offset((layer * sizes.rows + row) * sizes.width + head * head_size)
            self.strips.prepare(
                Rows(query, sizes.width, 1), 0, 1, head_size, 1 / sqrt(Float32(head_size))
            )
            var stride = align_up(sizes.frames, PANEL)
            multiply(self.strips, kv.keys, 0, kv.keys.panels(), self.scores, stride)
            var scale = 1 / exponentiate(self.scores, sizes.frames)
            for k in range(self.content):
                self.sums[k] += self.scores[k] * scale
        var most = 0
        for k in range(1, self.content):
            if self.sums[k] > self.sums[most]:
                most = k
        return most
