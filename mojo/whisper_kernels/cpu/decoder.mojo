"""The text decoder: tokens to states (TextDecoder in openai/whisper's model.py).

A step has few rows, so it takes as long as its weights take to read. Threads share the columns of
every matrix; attention is shared by heads, and a thread that makes the queries, keys and values
of some heads attends with them at once.
"""

from std.math import ceildiv, gcd

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from ..common.views import ByteView, FloatView, IntView, View, first
from .attention import AttentionScratch, KeysValues
from .decoder_layer import DecoderChunk, DecoderLayer, panel_tasks, share
from .embedding import Embeddings, embed
from .norm import normalize
from .panels import PANEL, Rows
from .self_attention import Histories, attend_rows
from .threads import Phases, Worker, together
from .weight_reader import WeightReader

comptime CHUNK_ROWS = 128
"""Rows that go through the layers together, more only where one item has more."""
comptime LAYER_PHASES = 6
"""Of a layer."""


@fieldwise_init
struct DecoderSizes(ImplicitlyCopyable):
    """Sizes of a pass and of the model."""

    var items: Int
    var queries: Int
    """New tokens of all beams of an item."""
    var rows: Int
    """Hypotheses: items * beams."""
    var context: Int
    var width: Int
    var heads: Int
    var layers: Int
    var windows: Int
    var head_bytes: Int
    """Bytes of a head's keys and values of a window."""
    var frames: Int
    var cross_queries: Bool
    """Whether the cross-attention queries are wanted."""
    var request_rows: Int
    """See `Strips`."""


struct DecoderPass[storage: DType, kv_type: DType, cache_type: DType](Movable):
    """New tokens [items, queries] on their way to final states [items, queries, width]."""

    var positions: IntView
    var windows: IntView
    var cross_kv: ByteView
    var kv_cache: View[Self.cache_type]
    var embeddings: Embeddings[Self.storage]
    var weights: ByteView
    var sizes: DecoderSizes
    var states: FloatView
    var cross_queries: FloatView
    var threads: Int
    var chunk: Int
    """Items that go through the layers together."""
    var qkv: FloatView
    var attended: FloatView
    var hidden: FloatView

    def __init__(
        out self,
        positions: IntView,
        windows: IntView,
        cross_kv: ByteView,
        kv_cache: View[Self.cache_type],
        embeddings: Embeddings[Self.storage],
        weights: ByteView,
        sizes: DecoderSizes,
        states: FloatView,
        cross_queries: FloatView,
        threads: Int,
    ):
        self.positions = positions
        self.windows = windows
        self.cross_kv = cross_kv
        self.kv_cache = kv_cache
        self.embeddings = embeddings
        self.weights = weights
        self.sizes = sizes
        self.states = states
        self.cross_queries = cross_queries
        self.threads = threads
        self.chunk = min(sizes.items, max(1, CHUNK_ROWS // sizes.queries))
        var most = self.chunk * sizes.queries * sizes.width
        self.qkv = FloatView.allocate(3 * most)
        self.attended = FloatView.allocate(most)
        self.hidden = FloatView.allocate(4 * most)

    def __deinit__(deinit self):
        self.qkv.free()
        self.attended.free()
        self.hidden.free()

    def phases(self) -> Int:
        """Of a run."""
        return ceildiv(self.sizes.items, self.chunk) * (2 + LAYER_PHASES * self.sizes.layers)

    def run(self, mut worker: Worker, tokens: IntView, slot_table: IntView, later: Int = 0):
        """A thread's part; `later` is added to the positions."""
        comptime most_queries = AttentionScratch[Self.kv_type].queries_each
        var sizes = self.sizes
        var width = sizes.width
        var queries = sizes.queries
        var heads = sizes.heads
        var head_size = width // heads
        var beams = sizes.rows // sizes.items
        var length = queries // beams
        # Heads whose columns are whole panels.
        var unit = min(heads, PANEL // gcd(head_size, PANEL))
        var groups = ceildiv(heads, unit)
        var plane = sizes.context * width
        var own = DecoderChunk[Self.storage, Self.kv_type](
            self.chunk * queries,
            sizes.request_rows,
            width,
            beams,
            sizes.context,
            sizes.frames,
            head_size,
        )
        for first_item in range(0, sizes.items, self.chunk):
            var items = min(self.chunk, sizes.items - first_item)
            var rows = items * queries
            var x = self.states.offset(first_item * queries * width)
            var cursor = WeightReader(self.weights)
            var encodings = cursor.vector(sizes.context * width)

            def start(row: Int) {imm}:
                var place = first_item * queries + row
                var position = Int(self.positions[place // length]) + later
                embed(
                    self.embeddings,
                    Int(tokens[place]),
                    encodings.offset((position + place % length) * width),
                    own.strips.signs,
                    x.slice(row * width, width),
                )

            worker.run(rows, start)
            for index in range(sizes.layers):
                var layer = DecoderLayer[Self.storage](cursor, width)
                var keys = self.kv_cache.offset(2 * index * plane)
                own.prepare_normed(x, rows, layer.self_norm, width)

                def self_attention(group: Int) {mut own, imm}:
                    var low = group * unit * head_size // PANEL
                    var high = ceildiv(min(heads, (group + 1) * unit) * head_size, PANEL)
                    own.apply(layer.query, low, high, self.qkv, 3 * width)
                    own.apply(layer.key, low, high, self.qkv.offset(width), 3 * width)
                    own.apply(layer.value, low, high, self.qkv.offset(2 * width), 3 * width)
                    for item in range(items):
                        var row = (first_item + item) * beams
                        for head in range(group * unit, min(heads, (group + 1) * unit)):
                            var column = head * head_size
                            attend_rows(
                                self.qkv.offset(item * queries * 3 * width + column),
                                length,
                                Histories(
                                    keys.offset(column),
                                    keys.offset(plane + column),
                                    2 * sizes.layers * plane,
                                    slot_table.offset(row * sizes.context),
                                    self.positions.offset(row),
                                    later,
                                    beams,
                                    sizes.context,
                                    width,
                                ),
                                head_size,
                                own.scores,
                                self.attended.offset(item * queries * width + column),
                            )

                worker.run(groups, self_attention)
                own.prepare(self.attended, rows, width)
                var out_tasks = panel_tasks(layer.self_out.weight, self.threads)

                def self_out(task: Int) {mut own, imm}:
                    var panels = layer.self_out.weight.panels()
                    own.apply(
                        layer.self_out,
                        share(panels, out_tasks, task),
                        share(panels, out_tasks, task + 1),
                        x,
                        width,
                        residual=x,
                    )

                worker.run(out_tasks, self_out)
                own.prepare_normed(x, rows, layer.cross_norm, width)

                def cross_attention(group: Int) {mut own, imm}:
                    var low = group * unit * head_size // PANEL
                    var high = ceildiv(min(heads, (group + 1) * unit) * head_size, PANEL)
                    own.apply(layer.cross_query, low, high, self.qkv, width)
                    if sizes.cross_queries:
                        var target = self.cross_queries.offset(
                            (index * sizes.items + first_item) * queries * width
                        )
                        own.apply(layer.cross_query, low, high, target, width)
                    for item in range(items):
                        var window = Int(self.windows[first_item + item])
                        for head in range(group * unit, min(heads, (group + 1) * unit)):
                            var place = (index * sizes.windows + window) * heads + head
                            var column = item * queries * width + head * head_size
                            for query in range(0, queries, most_queries):
                                own.attention.attend(
                                    Rows(self.qkv.offset(column), width, queries),
                                    query,
                                    min(queries, query + most_queries),
                                    KeysValues[Self.kv_type](
                                        self.cross_kv.slice(
                                            place * sizes.head_bytes, sizes.head_bytes
                                        ),
                                        sizes.frames,
                                        head_size,
                                    ),
                                    self.attended.offset(column),
                                    width,
                                )

                worker.run(groups, cross_attention)
                own.prepare(self.attended, rows, width)

                def cross_out(task: Int) {mut own, imm}:
                    var panels = layer.cross_out.weight.panels()
                    own.apply(
                        layer.cross_out,
                        share(panels, out_tasks, task),
                        share(panels, out_tasks, task + 1),
                        x,
                        width,
                        residual=x,
                    )

                worker.run(out_tasks, cross_out)
                own.prepare_normed(x, rows, layer.norm, width)
                var up_tasks = panel_tasks(layer.up.weight, self.threads)

                def up(task: Int) {mut own, imm}:
                    var panels = layer.up.weight.panels()
                    own.apply(
                        layer.up,
                        share(panels, up_tasks, task),
                        share(panels, up_tasks, task + 1),
                        self.hidden,
                        4 * width,
                        activate=True,
                    )

                worker.run(up_tasks, up)
                own.prepare(self.hidden, rows, 4 * width)
                var down_tasks = panel_tasks(layer.down.weight, self.threads)

                def down(task: Int) {mut own, imm}:
                    var panels = layer.down.weight.panels()
                    own.apply(
                        layer.down,
                        share(panels, down_tasks, task),
                        share(panels, down_tasks, task + 1),
                        x,
                        width,
                        residual=x,
                    )

                worker.run(down_tasks, down)
            var final_norm = cursor.norm(width)

            def finish(row: Int) {imm}:
                var line = x.slice(row * width, width)
                normalize(line, final_norm.gamma, final_norm.beta, line, width)

            worker.run(rows, finish)


@extensibility.register("whisper.decoder")
struct Decoder:
    """All layers of the decoder over new tokens, whose keys and values join the cache.

    tokens [items, queries] int32: `queries` are the tokens of every beam, beam by beam;
    positions [rows] int32 with rows = items * beams, where each row's first new token goes;
    slot_table [rows, context] int32, the cache row of every position of a row's history;
    windows [items] int32, the window that each item transcribes;
    frames [1] int32, encoder states of a window; cross_kv [layers, windows, heads, bytes];
    kv_cache [slots, layers, 2, context, width, bytes of a number]; embeddings [bytes], in panels;
    weights [bytes]: position embeddings, layers, the last normalisation;
    states [items, queries, width]; queries [layers or 0, items, queries, width], those of
    the cross-attention, where they are wanted.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, kv_type: DType, cache_type: DType
    ](
        states: OutputTensor[dtype=DType.float32, rank=3, ...],
        cross_queries: OutputTensor[dtype=DType.float32, rank=4, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        slot_table: InputTensor[dtype=DType.int32, rank=2, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        frames: InputTensor[dtype=DType.int32, rank=1, ...],
        cross_kv: InputTensor[dtype=DType.uint8, rank=4, ...],
        kv_cache: MutableInputTensor[dtype=DType.uint8, rank=6, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        weights: InputTensor[dtype=DType.uint8, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var width = states.dim_size(2)
        var layers = DecoderPass[storage, kv_type, cache_type](
            View(positions),
            View(windows),
            View(cross_kv),
            View(kv_cache).bitcast[cache_type](),
            Embeddings[storage](View(embeddings), width, 0),
            View(weights),
            DecoderSizes(
                tokens.dim_size(0),
                tokens.dim_size(1),
                positions.dim_size(0),
                slot_table.dim_size(1),
                width,
                cross_kv.dim_size(2),
                cross_kv.dim_size(0),
                cross_kv.dim_size(1),
                cross_kv.dim_size(3),
                first(frames),
                cross_queries.dim_size(0) > 0,
                tokens.dim_size(0) * tokens.dim_size(1),
            ),
            View(states),
            View(cross_queries),
            first(threads),
        )
        var phases = Phases(layers.phases())

        def body(_thread: Int) {imm}:
            var worker = Worker(phases.counters)
            layers.run(worker, View(tokens), View(slot_table))

        together(layers.threads, body)
