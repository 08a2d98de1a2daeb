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
from .embedding import embed
from .epilogue import Epilogue
from .gemm import multiply
from .layer_norm import normalize
from .matrix import PANEL, Matrix, Rows
from .parallel import Member, Phases, together
from .parameters import Linear, Norm, Parameters
from .self_attention import attend_row
from .strips import Strips
from .tensors import Bytes, Floats, Ints, first, floats, ints, numbers

comptime TASK_BYTES = 96 * 1024
"""Least weights that are worth a task of their own."""
comptime CHUNK = 128
"""Rows that go through the layers together, more only where one item has more."""
comptime PHASES = 6
"""Of a layer."""


struct DecoderLayer[storage: DType](ImplicitlyCopyable):
    """Weights of a layer."""

    var self_norm: Norm
    var query: Linear[Self.storage]
    var key: Linear[Self.storage]
    var value: Linear[Self.storage]
    var self_out: Linear[Self.storage]
    var cross_norm: Norm
    var cross_query: Linear[Self.storage]
    var cross_out: Linear[Self.storage]
    var norm: Norm
    var up: Linear[Self.storage]
    var down: Linear[Self.storage]

    def __init__(out self, mut parameters: Parameters, width: Int):
        self.self_norm = parameters.norm(width)
        self.query = parameters.linear[Self.storage](width, width)
        self.key = parameters.linear[Self.storage](width, width)
        self.value = parameters.linear[Self.storage](width, width)
        self.self_out = parameters.linear[Self.storage](width, width)
        self.cross_norm = parameters.norm(width)
        self.cross_query = parameters.linear[Self.storage](width, width)
        self.cross_out = parameters.linear[Self.storage](width, width)
        self.norm = parameters.norm(width)
        self.up = parameters.linear[Self.storage](width, 4 * width)
        self.down = parameters.linear[Self.storage](4 * width, width)


struct Chunk[storage: DType, memory: DType]:
    """A thread's view of some items on their way through the layers."""

    var strips: Strips[Self.storage]
    var normed: Floats
    var scores: Floats
    var attention: AttentionScratch[Self.memory]

    def __init__(out self, rows: Int, width: Int, context: Int, frames: Int, head_size: Int):
        self.strips = Strips[Self.storage](rows, 4 * width)
        self.normed = unsafe_alloc[Float32](rows * width, alignment=64)
        self.scores = unsafe_alloc[Float32](context, alignment=64)
        self.attention = AttentionScratch[Self.memory](frames, head_size)

    def __deinit__(deinit self):
        self.normed.unsafe_free()
        self.scores.unsafe_free()

    def prepare(mut self, x: Floats, rows: Int, depth: Int):
        """Takes x [rows, depth] as the left operand of the next products."""
        self.strips.prepare(Rows(x, depth, rows), 0, rows, depth)

    def prepare_normed(mut self, x: Floats, rows: Int, norm: Norm, width: Int):
        """The same, normalised. Every thread does it: that costs less than to wait for another."""
        for row in range(rows):
            normalize(
                x.unsafe_offset(row * width),
                norm.gamma,
                norm.beta,
                self.normed.unsafe_offset(row * width),
                width,
            )
        self.prepare(self.normed, rows, width)

    def apply(
        self,
        linear: Linear[Self.storage],
        first_panel: Int,
        last_panel: Int,
        y: Floats,
        stride: Int,
        residual: Optional[Floats] = None,
        activate: Bool = False,
    ):
        """Some columns of a layer for the rows that the strips hold."""
        multiply(
            self.strips,
            linear.weight,
            first_panel,
            last_panel,
            y,
            stride,
            Epilogue(bias=linear.bias, residual=residual, activate=activate),
        )


def panel_tasks[storage: DType](matrix: Matrix[storage], threads: Int) -> Int:
    """Into how many tasks a product is split by columns."""
    return max(1, min(matrix.panels(), max(threads, matrix.bytes() // TASK_BYTES)))


def share(count: Int, tasks: Int, task: Int) -> Int:
    """Where the part of a task begins, of `count` things shared out evenly."""
    return count * task // tasks


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
    var slots: Int
    """Rows of the cache."""
    var windows: Int
    var memory_size: Int
    """Bytes of a head's keys and values of a window."""
    var frames: Int
    var watched: Bool
    """Whether the cross-attention queries are wanted."""


def decode[
    storage: DType, memory_type: DType
](
    tokens: Ints,
    positions: Ints,
    origins: Ints,
    windows: Ints,
    memory: Bytes,
    cache: Floats,
    embeddings: Matrix[storage],
    parameters: Bytes,
    sizes: DecoderSizes,
    states: Floats,
    watched: Floats,
    threads: Int,
):
    """New tokens [items, queries] to their final states [items, queries, width]."""
    comptime most_queries = AttentionScratch[memory_type].queries_each
    var width = sizes.width
    var queries = sizes.queries
    var heads = sizes.heads
    var head_size = width // heads
    var beams = sizes.rows // sizes.items
    var length = queries // beams
    var chunk = max(1, CHUNK // queries)
    var chunks = ceildiv(sizes.items, chunk)
    var most = min(chunk, sizes.items) * queries
    # Heads whose columns are whole panels.
    var unit = min(heads, PANEL // gcd(head_size, PANEL))
    var groups = ceildiv(heads, unit)
    var qkv = unsafe_alloc[Float32](most * 3 * width, alignment=64)
    var attended = unsafe_alloc[Float32](most * width, alignment=64)
    var hidden = unsafe_alloc[Float32](most * 4 * width, alignment=64)
    var plane = sizes.slots * sizes.context * width
    var phases = Phases(chunks * (2 + PHASES * sizes.layers))

    def body(_worker: Int) {imm}:
        var member = Member(phases.counters)
        var own = Chunk[storage, memory_type](
            most, width, sizes.context, sizes.frames, head_size
        )
        for part in range(chunks):
            var first_item = part * chunk
            var items = min(chunk, sizes.items - first_item)
            var rows = items * queries
            var x = states.unsafe_offset(first_item * queries * width)
            var cursor = Parameters(parameters)
            var encodings = cursor.vector(sizes.context * width)

            def start(row: Int) {imm}:
                var place = first_item * queries + row
                var position = Int(positions[unsafe_offset=place // length]) + place % length
                embed(
                    embeddings,
                    Int(tokens[unsafe_offset=place]),
                    encodings.unsafe_offset(position * width),
                    x.unsafe_offset(row * width),
                )

            member.run(rows, start)
            for index in range(sizes.layers):
                var layer = DecoderLayer[storage](cursor, width)
                var keys = cache.unsafe_offset(2 * index * plane)
                own.prepare_normed(x, rows, layer.self_norm, width)

                def self_attention(group: Int) {mut own, imm}:
                    var low = group * unit * head_size // PANEL
                    var high = ceildiv(
                        min(heads, (group + 1) * unit) * head_size, PANEL
                    )
                    own.apply(layer.query, low, high, qkv, 3 * width)
                    own.apply(layer.key, low, high, qkv.unsafe_offset(width), 3 * width)
                    own.apply(layer.value, low, high, qkv.unsafe_offset(2 * width), 3 * width)
                    for row in range(items * beams):
                        var place = first_item * beams + row
                        for head in range(group * unit, min(heads, (group + 1) * unit)):
                            attend_row(
                                qkv.unsafe_offset(row * length * 3 * width),
                                length,
                                keys,
                                keys.unsafe_offset(plane),
                                origins.unsafe_offset(place * sizes.context),
                                Int(positions[unsafe_offset=place]),
                                sizes.context,
                                width,
                                head,
                                head_size,
                                own.scores,
                                attended.unsafe_offset(row * length * width),
                            )

                member.run(groups, self_attention)
                own.prepare(attended, rows, width)
                var out_tasks = panel_tasks(layer.self_out.weight, threads)

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
                    own.apply(layer.cross_query, low, high, qkv, width)
                    if sizes.watched:
                        var target = watched.unsafe_offset(
                            (index * sizes.items + first_item) * queries * width
                        )
                        own.apply(layer.cross_query, low, high, target, width)
                    for item in range(items):
                        var window = Int(windows[unsafe_offset=first_item + item])
                        for head in range(group * unit, min(heads, (group + 1) * unit)):
                            var place = (index * sizes.windows + window) * heads + head
                            var column = item * queries * width + head * head_size
                            for query in range(0, queries, most_queries):
                                own.attention.attend(
                                    Rows(qkv.unsafe_offset(column), width, queries),
                                    query,
                                    min(queries, query + most_queries),
                                    KeysValues[memory_type](
                                        memory.unsafe_offset(place * sizes.memory_size),
                                        sizes.frames,
                                        head_size,
                                    ),
                                    attended.unsafe_offset(column),
                                    width,
                                )

                member.run(groups, cross_attention)
                own.prepare(attended, rows, width)

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
                var up_tasks = panel_tasks(layer.up.weight, threads)

                def up(task: Int) {mut own, imm}:
                    var panels = layer.up.weight.panels()
                    own.apply(
                        layer.up,
                        share(panels, up_tasks, task),
                        share(panels, up_tasks, task + 1),
                        hidden,
                        4 * width,
                        activate=True,
                    )

                member.run(up_tasks, up)
                own.prepare(hidden, rows, 4 * width)
                var down_tasks = panel_tasks(layer.down.weight, threads)

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

    together(threads, body)
    qkv.unsafe_free()
    attended.unsafe_free()
    hidden.unsafe_free()


@extensibility.register("whisper.decoder")
struct Decoder:
    """All layers of the decoder over new tokens, whose keys and values join the cache.

    tokens [items, queries] int32: `queries` are the tokens of every beam, beam by beam;
    positions [rows] int32 with rows = items * beams, where each row's first new token goes;
    origins [rows, context] int32, the cache row of every position of a row's history;
    windows [items] int32, the window that each item transcribes;
    frames [1] int32, encoder states of a window; memory [layers, windows, heads, bytes];
    cache [layers, 2, slots, context, width]; embeddings [bytes], in panels;
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
        decode[storage, memory_type](
            ints(tokens),
            ints(positions),
            ints(origins),
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
                cache.dim_size(2),
                memory.dim_size(1),
                memory.dim_size(3),
                first(frames),
                watched.dim_size(0) > 0,
            ),
            floats(states),
            floats(watched),
            first(threads),
        )
