"""Steps of the decoder: from the last token of every row to the candidates after it.

A step takes as long as its weights take to read, if nothing stands between two of them. So a call
makes several, as long as it is plain how a search goes on; all by the same threads.
"""

from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from .lookahead import Course, Hypotheses
from .sample.choice import Choice, rules_of, sampling_of
from .decoder import DecoderPass, DecoderSizes
from .panels import Matrix
from .threads import Member, Phases, together
from ..common.views import first, floats, ints, numbers


@extensibility.register("whisper.step")
struct Step:
    """Candidates after the last tokens of all rows, and, of steps ahead, after those.

    The inputs are those of `whisper.decoder`, then of `whisper.choose`, then: ahead [steps] gives
    the number of steps; course [3]: the id that ends a hypothesis, whether the timestamp rule
    holds, and whether scores are summed up; remaining [items] and stamps [rows, 2] as `Hypotheses` has them, of no matter for a
    single step. Where there are more, there are no banned or penalized ids, and nothing is sampled.

    ids, origins, values [steps, items, candidates] and watched [rows] are those of
    `whisper.choose`; fed [steps, rows, 2], the token that each row of the following step was given,
    and the row that it continues; made [1], how many steps were made: fewer than asked for, where
    an item is finished earlier; logits [items, beams, vocabulary] of the last one.
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType, memory_type: DType
    ](
        ids: OutputTensor[dtype=DType.int32, rank=3, ...],
        origins: OutputTensor[dtype=DType.int32, rank=3, ...],
        values: OutputTensor[dtype=DType.float32, rank=3, ...],
        fed: OutputTensor[dtype=DType.int32, rank=3, ...],
        made: OutputTensor[dtype=DType.int32, rank=1, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        logits: OutputTensor[dtype=DType.float32, rank=3, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        histories: InputTensor[dtype=DType.int32, rank=2, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        frames: InputTensor[dtype=DType.int32, rank=1, ...],
        memory: InputTensor[dtype=DType.uint8, rank=4, ...],
        cache: MutableInputTensor[dtype=DType.float32, rank=5, ...],
        embeddings: InputTensor[dtype=DType.uint8, rank=1, ...],
        parameters: InputTensor[dtype=DType.uint8, rank=1, ...],
        scores: InputTensor[dtype=DType.float32, rank=1, ...],
        suppressed: InputTensor[dtype=DType.int32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int32, rank=2, ...],
        banned: InputTensor[dtype=DType.int32, rank=2, ...],
        penalized: InputTensor[dtype=DType.int32, rank=2, ...],
        checks: InputTensor[dtype=DType.int32, rank=1, ...],
        numbers_: InputTensor[dtype=DType.int32, rank=1, ...],
        penalty: InputTensor[dtype=DType.float32, rank=1, ...],
        draw: InputTensor[dtype=DType.int32, rank=1, ...],
        temperature: InputTensor[dtype=DType.float32, rank=1, ...],
        picks: InputTensor[dtype=DType.int32, rank=1, ...],
        ahead: InputTensor[dtype=DType.int32, rank=1, ...],
        course: InputTensor[dtype=DType.int32, rank=1, ...],
        remaining: InputTensor[dtype=DType.int32, rank=1, ...],
        stamps: InputTensor[dtype=DType.int32, rank=2, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var width = cache.dim_size(4)
        var items = tokens.dim_size(0)
        var beams = tokens.dim_size(1)
        var rows = items * beams
        var context = histories.dim_size(1)
        var vocabulary = logits.dim_size(2)
        var wanted = picks.dim_size(0)
        var steps = ahead.dim_size(0)
        var states = unsafe_alloc[Float32](rows * width, alignment=64)
        var matrix = Matrix[storage](numbers(embeddings), width, vocabulary)
        var rules = rules_of(suppressed, ranges, banned, penalized, checks, numbers_, penalty)
        var layers = DecoderPass[storage, memory_type](
            ints(positions),
            ints(windows),
            numbers(memory),
            floats(cache),
            matrix,
            numbers(parameters),
            DecoderSizes(
                items,
                beams,
                rows,
                context,
                width,
                memory.dim_size(2),
                memory.dim_size(0),
                memory.dim_size(1),
                memory.dim_size(3),
                first(frames),
                False,
            ),
            states,
            states,
            first(threads),
        )
        var choice = Choice[storage](
            states,
            matrix,
            sampling_of(draw, temperature),
            items,
            beams,
            wanted,
            floats(logits),
            floats(watched),
        )
        var hypotheses = Hypotheses(
            items,
            beams,
            context,
            ints(positions),
            Course(
                first(course),
                ints(course)[unsafe_offset=1] != 0,
                ints(course)[unsafe_offset=2] != 0,
                rules.first_timestamp,
                vocabulary,
            ),
            ints(remaining),
            ints(histories),
            ints(stamps),
        )
        var phases = Phases(steps * (layers.phases() + Choice[storage].PHASES + 1))
        var count = ints(made)
        count[unsafe_offset=0] = 1

        def body(_worker: Int) {imm}:
            var member = Member(phases.counters)
            for step in range(steps):
                var results = step * items * wanted
                var ahead = step > 0
                layers.run(
                    member,
                    hypotheses.tokens if ahead else ints(tokens),
                    hypotheses.histories(step),
                    step,
                )
                choice.run(
                    member,
                    hypotheses.rules(rules) if ahead else rules,
                    hypotheses.scores if ahead else floats(scores),
                    ints(ids).unsafe_offset(results),
                    ints(origins).unsafe_offset(results),
                    floats(values).unsafe_offset(results),
                )
                if step + 1 == steps:
                    break

                def advance(_task: Int) {imm}:
                    var goes_on = hypotheses.advance(
                        step,
                        ints(ids).unsafe_offset(results),
                        ints(origins).unsafe_offset(results),
                        floats(values).unsafe_offset(results),
                        wanted,
                        ints(fed).unsafe_offset(step * rows * 2),
                    )
                    if goes_on:
                        count[unsafe_offset=0] = Int32(step + 2)

                member.run(1, advance)
                if Int(count[unsafe_offset=0]) < step + 2:
                    break

        together(first(threads), body)
        states.unsafe_free()
