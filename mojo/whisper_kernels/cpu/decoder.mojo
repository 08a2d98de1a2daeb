"""The text decoder: tokens to states (TextDecoder in openai/whisper's model.py).

A step has few rows, so it takes as long as its weights take to read. Threads share the columns of
every matrix; attention is shared by heads, and a thread that makes the queries, keys and values
of some heads attends with them at once.
"""

from std.math import ceildiv, gcd
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from .attention import AttentionScratch, KeysValues
from .decoder_layer import Chunk, DecoderLayer, panel_tasks, share
from .embedding import embed
from .norm import normalize
from .panels import PANEL, Matrix, Rows
from .threads import Member, Phases, together
from .weights import Parameters
from .self_attention import Histories, attend_rows
from ..common.views import Bytes, Floats, Ints, first, floats, ints, numbers

comptime CHUNK = 128
"""Rows that go through the layers together, more only where one item has more."""
comptime PHASES = 6
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
    var memory_size: Int
    """Bytes of a head's keys and values of a window."""
    var frames: Int
    var watched: Bool
    """Whether the cross-attention queries are wanted."""


struct DecoderPass[storage: DType, memory_type: DType](Movable):
    """New tokens [items, queries] on their way to final states [items, queries, width]."""

    var positions: Ints
    var windows: Ints
    var memory: Bytes
    var cache: Floats
    var embeddings: Matrix[Self.storage]
    var parameters: Bytes
    var sizes: DecoderSizes
    var states: Floats
    var watched: Floats
    var threads: Int
    var chunk: Int
    """Items that go through the layers together."""
    var qkv: Floats
    var attended: Floats
    var hidden: Floats

    def __init__(
        out self,
        positions: Ints,
        windows: Ints,
        memory: Bytes,
        cache: Floats,
        embeddings: Matrix[Self.storage],
        parameters: Bytes,
        sizes: DecoderSizes,
        states: Floats,
        watched: Floats,
        threads: Int,
    ):
        self.positions = positions
        self.windows = windows
        self.memory = memory
        self.cache = cache
        self.embeddings = embeddings
        self.parameters = parameters
        self.sizes = sizes
        self.states = states
        self.watched = watched
        self.threads = threads
        self.chunk = min(sizes.items, max(1, CHUNK // sizes.queries))
        var most = self.chunk * sizes.queries * sizes.width
        self.qkv = unsafe_alloc[Float32](3 * most, alignment=64)
        self.attended = unsafe_alloc[Float32](most, alignment=64)
        self.hidden = unsafe_alloc[Float32](4 * most, alignment=64)

    def __deinit__(deinit self):
        self.qkv.unsafe_free()
        self.attended.unsafe_free()
        self.hidden.unsafe_free()

    def phases(self) -> Int:
        """Of a run."""
        return ceildiv(self.sizes.items, self.chunk) * (2 + PHASES * self.sizes.layers)

    def run(self, mut member: Member, tokens: Ints, origins: Ints, later: Int = 0):
        """A thread's part; `later` is added to the positions."""
        comptime most_queries = AttentionScratch[Self.memory_type].queries_each
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
        var own = Chunk[Self.storage, Self.memory_type](
            self.chunk * queries, width, beams, sizes.context, sizes.frames, head_size
        )
        for first_item in range(0, sizes.items, self.chunk):
            var items = min(self.chunk, sizes.items - first_item)
            var rows = items * queries
            var x = self.states.unsafe_offset(first_item * queries * width)
            var cursor = Parameters(self.parameters)
            var encodings = cursor.vector(sizes.context * width)

            def start(row: Int) {imm}:
                var place = first_item * queries + row
                var position = Int(self.positions[unsafe_offset=place // length]) + later
                embed(
                    self.embeddings,
                    Int(tokens[unsafe_offset=place]),
                    encodings.unsafe_offset((position + place % length) * width),
                    x.unsafe_offset(row * width),
                )

            member.run(rows, start)
            for index in range(sizes.layers):
                var layer = DecoderLayer[Self.storage](cursor, width)
                var keys = self.cache.unsafe_offset(2 * index * plane)
                own.prepare_normed(x, rows, layer.self_norm, width)

                def self_attention(group: Int) {mut own, imm}:
                    var low = group * unit * head_size // PANEL
                    var high = ceildiv(
                        min(heads, (group + 1) * unit) * head_size, PANEL
                    )
                    own.apply(layer.query, low, high, self.qkv, 3 * width)
                    own.apply(layer.key, low, high, self.qkv.unsafe_offset(width), 3 * width)
                    own.apply(layer.value, low, high, self.qkv.unsafe_offset(2 * width), 3 * width)
                    for item in range(items):
                        var row = (first_item + item) * beams
                        for head in range(group * unit, min(heads, (group + 1) * unit)):
                            var column = head * head_size
                            attend_rows(
                                self.qkv.unsafe_offset(item * queries * 3 * width + column),
                                length,
                                Histories(
                                    keys.unsafe_offset(column),
                                    keys.unsafe_offset(plane + column),
                                    2 * sizes.layers * plane,
                                    origins.unsafe_offset(row * sizes.context),
                                    self.positions.unsafe_offset(row),
                                    later,
                                    beams,
                                    sizes.context,
                                    width,
                                ),
                                head_size,
                                own.scores,
                                self.attended.unsafe_offset(item * queries * width + column),
                            )

                member.run(groups, self_attention)
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

                member.run(out_tasks, self_out)
                own.prepare_normed(x, rows, layer.cross_norm, width)

                def cross_attention(group: Int) {mut own, imm}:
                    var low = group * unit * head_size // PANEL
                    var high = ceildiv(
                        min(heads, (group + 1) * unit) * head_size, PANEL
                    )
                    own.apply(layer.cross_query, low, high, self.qkv, width)
                    if sizes.watched:
                        var target = self.watched.unsafe_offset(
                            (index * sizes.items + first_item) * queries * width
                        )
                        own.apply(layer.cross_query, low, high, target, width)
                    for item in range(items):
                        var window = Int(self.windows[unsafe_offset=first_item + item])
                        for head in range(group * unit, min(heads, (group + 1) * unit)):
                            var place = (index * sizes.windows + window) * heads + head
                            var column = item * queries * width + head * head_size
                            for query in range(0, queries, most_queries):
                                own.attention.attend(
                                    Rows(self.qkv.unsafe_offset(column), width, queries),
                                    query,
                                    min(queries, query + most_queries),
                                    KeysValues[Self.memory_type](
                                        self.memory.unsafe_offset(place * sizes.memory_size),
                                        sizes.frames,
                                        head_size,
                                    ),
                                    self.attended.unsafe_offset(column),
                                    width,
                                )

                member.run(groups, cross_attention)
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

                member.run(out_tasks, cross_out)
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

                member.run(up_tasks, up)
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

                member.run(down_tasks, down)
            var final_norm = cursor.norm(width)

            def finish(row: Int) {imm}:
                var line = x.unsafe_offset(row * width)
                normalize(line, final_norm.gamma, final_norm.beta, line, width)

            member.run(rows, finish)


@extensibility.register("whisper.decoder")
struct Decoder:
    """All layers of the decoder over new tokens, whose keys and values join the cache.

    tokens [items, queries] int32: `queries` are the tokens of every beam, beam by beam;
    positions [rows] int32 with rows = items * beams, where each row's first new token goes;
    origins [rows, context] int32, the cache row of every position of a row's history;
    windows [items] int32, the window that each item transcribes;
    frames [1] int32, encoder states of a window; memory [layers, windows, heads, bytes];
    cache [slots, layers, 2, context, width]; embeddings [bytes], in panels;
    parameters [bytes]: position embeddings, layers, the last normalisation;
    states [items, queries, width]; queries [layers or 0, items, queries, width], those of
    the cross-attention, where they are wanted.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, memory_type: DType
    ](
        states: OutputTensor[dtype=DType.float32, rank=3, ...],
        watched: OutputTensor[dtype=DType.float32, rank=4, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        origins: InputTensor[dtype=DType.int32, rank=2, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        frames: InputTensor[dtype=DType.int32, rank=1, ...],
        memory: InputTensor[dtype=DType.uint8, rank=4, ...],
        cache: MutableInputTensor[dtype=DType.float32, rank=5, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        parameters: InputTensor[dtype=DType.uint8, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var width = states.dim_size(2)
        var layers = DecoderPass[storage, memory_type](
            ints(positions),
            ints(windows),
            numbers(memory),
            floats(cache),
            Matrix[storage](numbers(embeddings), width, 0),
            numbers(parameters),
            DecoderSizes(
                tokens.dim_size(0),
                tokens.dim_size(1),
                positions.dim_size(0),
                origins.dim_size(1),
                width,
                memory.dim_size(2),
                memory.dim_size(0),
                memory.dim_size(1),
                memory.dim_size(3),
                first(frames),
                watched.dim_size(0) > 0,
            ),
            floats(states),
            floats(watched),
            first(threads),
        )
        var phases = Phases(layers.phases())

        def body(_worker: Int) {imm}:
            var member = Member(phases.counters)
            layers.run(member, ints(tokens), ints(origins))

        together(layers.threads, body)
