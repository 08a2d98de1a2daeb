"""Steps of the decoder: from the last token of every row to the candidates after it.

A step takes as long as its weights take to read, if nothing stands between two of them. So a call
makes several, as long as it is plain how a search goes on; all by the same threads.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from ..common.lookahead import Lookahead
from ..common.views import FloatView, View, first
from .attended import AttendedFrames
from .decoder import DecoderPass, DecoderSizes
from .embedding import Embeddings
from .lookahead import Hypotheses
from .sample.candidates import Choice, rules_of, sampling_of
from .threads import Phases, Worker, stopped, together


@extensibility.register("whisper.step")
struct Step:
    """Candidates after the last tokens of all rows, and, of steps ahead, after those.

    The inputs are those of `whisper.decoder`, then of `whisper.choose`, then: eot [1], the id that
    ends a hypothesis; timed [1], whether the timestamp rule holds; summed [1], whether scores are
    summed up; remaining [items] and last_timestamps [rows, 2] as `Hypotheses` has them. All these
    are of no matter for a single step. Where there are more, there are no banned or penalized ids,
    and nothing is sampled. request_rows [1]: the rows of each request that shares the step, or 0
    for many, as `Strips` has them. stop [1]: no more steps are made once the host has set it.

    heads [chosen, 2]: alignment heads, layer and head, or none; content [1], the frames that they
    may attend to; until [1]: no step is made after one in which a row attends to this frame or a
    later one.

    ids, origins, values [steps, items, candidates] and watched [rows] are those of
    `whisper.choose`; fed [steps, rows, 2], the token that each row of the following step was given,
    and the row that it continues; made [1], how many steps were made: fewer than asked for, where
    an item is finished earlier; logits [items, beams, vocabulary] of the last one; attended
    [steps, rows], the frame that each row's token attends to most, where there are heads.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, kv_type: DType, cache_type: DType
    ](
        ids: OutputTensor[dtype=DType.int32, rank=3, ...],
        origins: OutputTensor[dtype=DType.int32, rank=3, ...],
        values: OutputTensor[dtype=DType.float32, rank=3, ...],
        fed: OutputTensor[dtype=DType.int32, rank=3, ...],
        made: OutputTensor[dtype=DType.int32, rank=1, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        logits: OutputTensor[dtype=DType.float32, rank=3, ...],
        attended: OutputTensor[dtype=DType.int32, rank=2, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        slot_table: InputTensor[dtype=DType.int32, rank=2, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        frames: InputTensor[dtype=DType.int32, rank=1, ...],
        cross_kv: InputTensor[dtype=DType.uint8, rank=4, ...],
        kv_cache: MutableInputTensor[dtype=DType.uint8, rank=6, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        weights: InputTensor[dtype=DType.uint8, rank=1, ...],
        scores: InputTensor[dtype=DType.float32, rank=1, ...],
        suppressed: InputTensor[dtype=DType.int32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int32, rank=2, ...],
        banned: InputTensor[dtype=DType.int32, rank=2, ...],
        penalized: InputTensor[dtype=DType.int32, rank=2, ...],
        checks: InputTensor[dtype=DType.int32, rank=1, ...],
        first_timestamp: InputTensor[dtype=DType.int32, rank=1, ...],
        watched_id: InputTensor[dtype=DType.int32, rank=1, ...],
        penalty: InputTensor[dtype=DType.float32, rank=1, ...],
        top_k: InputTensor[dtype=DType.int32, rank=1, ...],
        seed: InputTensor[dtype=DType.int32, rank=1, ...],
        temperature: InputTensor[dtype=DType.float32, rank=1, ...],
        eot: InputTensor[dtype=DType.int32, rank=1, ...],
        timed: InputTensor[dtype=DType.int32, rank=1, ...],
        summed: InputTensor[dtype=DType.int32, rank=1, ...],
        remaining: InputTensor[dtype=DType.int32, rank=1, ...],
        last_timestamps: InputTensor[dtype=DType.int32, rank=2, ...],
        heads: InputTensor[dtype=DType.int32, rank=2, ...],
        content: InputTensor[dtype=DType.int32, rank=1, ...],
        until: InputTensor[dtype=DType.int32, rank=1, ...],
        request_rows: InputTensor[dtype=DType.int32, rank=1, ...],
        stop: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var width = kv_cache.dim_size(4)
        var items = tokens.dim_size(0)
        var beams = tokens.dim_size(1)
        var rows = items * beams
        var context = slot_table.dim_size(1)
        var vocabulary = logits.dim_size(2)
        var wanted = ids.dim_size(2)
        var steps = ids.dim_size(0)
        var states = FloatView.allocate(rows * width)
        var matrix = Embeddings[storage](View(embeddings), width, vocabulary)
        var rules = rules_of(
            suppressed, ranges, banned, penalized, checks, first_timestamp, watched_id, penalty
        )
        var watches = heads.dim_size(0) > 0
        var sizes = DecoderSizes(
            items,
            beams,
            rows,
            context,
            width,
            cross_kv.dim_size(2),
            cross_kv.dim_size(0),
            cross_kv.dim_size(1),
            cross_kv.dim_size(3),
            first(frames),
            watches,
            first(request_rows),
        )
        var queries = FloatView.allocate(sizes.layers * rows * width if watches else 1)
        var layers = DecoderPass[storage, kv_type, cache_type](
            View(positions),
            View(windows),
            View(cross_kv),
            View(kv_cache).bitcast[cache_type](),
            matrix,
            View(weights),
            sizes,
            states,
            queries,
            first(threads),
        )
        var choice = Choice[storage](
            states,
            matrix,
            sampling_of(temperature, top_k, seed),
            items,
            beams,
            wanted,
            first(request_rows),
            View(logits),
            View(watched),
        )
        var hypotheses = Hypotheses(
            items,
            beams,
            context,
            View(positions),
            Lookahead(
                first(eot),
                first(timed) != 0,
                first(summed) != 0,
                rules.first_timestamp,
                vocabulary,
            ),
            View(remaining),
            View(slot_table),
            View(last_timestamps),
        )
        var phases = Phases(steps * (layers.phases() + Choice[storage].PHASES + 2))
        var windows_of = View(windows)
        var count = View(made)
        count[0] = 1

        def body(_thread: Int) {imm}:
            var worker = Worker(phases.counters)
            var frames_of = AttendedFrames[kv_type](View(heads), first(content), sizes)
            for step in range(steps):
                var results = step * items * wanted
                var ahead = step > 0
                layers.run(
                    worker,
                    hypotheses.tokens if ahead else View(tokens),
                    hypotheses.slot_table(step),
                    step,
                )

                def attend(row: Int) {mut frames_of, imm}:
                    var window = Int(windows_of[row // beams])
                    View(attended)[step * rows + row] = Int32(
                        frames_of.find(queries, View(cross_kv), row, window)
                    )

                if watches:
                    worker.run(rows, attend)
                choice.run(
                    worker,
                    hypotheses.rules(rules) if ahead else rules,
                    hypotheses.scores if ahead else View(scores),
                    View(ids).slice(results, items * wanted),
                    View(origins).slice(results, items * wanted),
                    View(values).slice(results, items * wanted),
                )
                if step + 1 == steps:
                    break

                def advance(_task: Int) {imm}:
                    if stopped(View(stop)):
                        return
                    for row in range(rows if watches else 0):
                        if Int(View(attended)[step * rows + row]) >= first(until):
                            return
                    var goes_on = hypotheses.advance(
                        step,
                        View(ids).slice(results, items * wanted),
                        View(origins).slice(results, items * wanted),
                        View(values).slice(results, items * wanted),
                        wanted,
                        View(fed).slice(step * rows * 2, rows * 2),
                    )
                    if goes_on:
                        count[0] = Int32(step + 2)

                worker.run(1, advance)
                if Int(count[0]) < step + 2:
                    break

        together(first(threads), body)
        states.free()
        queries.free()
