"""Moves beams on after a step, so that the next one waits for no word from the host."""

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from std.memory import bitcast

from ..common.lookahead import Lookahead, survivors
from ..common.views import FloatView, IntView, View
from .launch import Kernel, launch
from .thread_block import each_thread


@fieldwise_init
struct AdvanceKernel(Kernel):
    """The beams of an item; see `Advance`."""

    comptime threads = 256
    var candidates: IntView
    var note: IntView
    var tokens: IntView
    var positions: IntView
    var slot_table: IntView
    var scores: FloatView
    var ranges: IntView
    var checks: IntView
    var last_timestamps: IntView
    var first_timestamp: IntView
    var lookahead: IntView
    var kept: IntView
    var slots_before: IntView
    var timestamps_before: IntView
    var beams: Int
    var context: Int
    var wanted: Int
    var vocabulary: Int

    @always_inline
    def __call__(self, block: Int):
        comptime THREADS = Self.threads
        var first = block * self.beams
        var position = Int(self.positions[first])
        var begin = block * 3 * self.wanted
        var ids = self.candidates.slice(begin, self.wanted)
        var sources = self.candidates.slice(begin + self.wanted, self.wanted)
        var values = self.candidates.slice(begin + 2 * self.wanted, self.wanted)
        var fed = self.note.offset(self.candidates.count)
        var ahead = Lookahead(
            Int(self.lookahead[0]),
            self.lookahead[1] != 0,
            self.lookahead[2] != 0,
            Int(self.first_timestamp[0]),
            self.vocabulary,
        )

        def keep(thread: Int) {imm}:
            if thread == 0:
                _ = survivors(
                    ids, self.wanted, self.beams, ahead.eot, self.kept.slice(first, self.beams)
                )
            for i in range(thread, 3 * self.wanted, THREADS):
                self.note[begin + i] = self.candidates[begin + i]
            for i in range(thread, 2 * self.beams, THREADS):
                self.timestamps_before[2 * first + i] = self.last_timestamps[2 * first + i]
            for i in range(thread, self.beams * (position + 1), THREADS):
                var cell = (first + i // (position + 1)) * self.context + i % (position + 1)
                self.slots_before[cell] = self.slot_table[cell]

        each_thread[THREADS](keep)

        def go_on(thread: Int) {imm}:
            for row in range(first + thread, first + self.beams, THREADS):
                var chosen = Int(self.kept[row])
                var parent = first + Int(sources[chosen])
                # Where numbers are none (NaN) an id is none either; the host refuses it.
                var token = min(Int(ids[chosen]), self.vocabulary - 1)
                fed[2 * row] = Int32(token)
                fed[2 * row + 1] = Int32(parent)
                self.tokens[row] = Int32(token)
                self.positions[row] = Int32(position + 1)
                var score = bitcast[DType.float32](values[chosen])
                self.scores[row] = score if ahead.summed else 0
                var checked = ahead.restrict(
                    token,
                    self.timestamps_before.slice(2 * parent, 2),
                    self.last_timestamps.slice(2 * row, 2),
                    self.ranges.slice(4 * row, 4),
                )
                self.checks[row] = Int32(checked)
            # A row's history is its parent's; it goes on writing to the slot that is its own.
            var length = min(position + 2, self.context)
            for i in range(thread, self.beams * length, THREADS):
                var row = first + i // length
                var place = i % length
                var parent = first + Int(sources[Int(self.kept[row])])
                var cell = parent * self.context + place
                if place > position:
                    cell = row * self.context + position
                self.slot_table[row * self.context + place] = self.slots_before[cell]

        each_thread[THREADS](go_on)


@extensibility.register("whisper.gpu.advance")
struct Advance:
    """From the candidates of a step to the inputs of the next one, as the search would go on.

    candidates [items, 3, wanted] as `whisper.gpu.choose` gives them. They are copied to note
    [numbers], behind which go, for each row, the token that it has from now on, and the row that
    it continues. tokens [items, beams], positions [rows], slot_table [rows, context],
    scores [rows], ranges [rows, 4], checks [rows] are the inputs of the step, which become those of
    the next one; last_timestamps [rows, 2] and first_timestamp [1] are what `Lookahead` knows,
    lookahead [3] its end of text, whether it is timed, and whether scores are summed.
    kept [rows], slots_before [rows, context], timestamps_before [rows, 2] are room to work in.

    After the last position of the context there is no next step, and only the note counts.
    """

    @staticmethod
    def execute[
        target: StaticString, vocabulary: Int
    ](
        kept: OutputTensor[dtype=DType.int32, rank=1, ...],
        slots_before: OutputTensor[dtype=DType.int32, rank=2, ...],
        timestamps_before: OutputTensor[dtype=DType.int32, rank=2, ...],
        candidates: InputTensor[dtype=DType.int32, rank=3, ...],
        note: MutableInputTensor[dtype=DType.int32, rank=1, ...],
        tokens: MutableInputTensor[dtype=DType.int32, rank=2, ...],
        positions: MutableInputTensor[dtype=DType.int32, rank=1, ...],
        slot_table: MutableInputTensor[dtype=DType.int32, rank=2, ...],
        scores: MutableInputTensor[dtype=DType.float32, rank=1, ...],
        ranges: MutableInputTensor[dtype=DType.int32, rank=2, ...],
        checks: MutableInputTensor[dtype=DType.int32, rank=1, ...],
        last_timestamps: MutableInputTensor[dtype=DType.int32, rank=2, ...],
        first_timestamp: InputTensor[dtype=DType.int32, rank=1, ...],
        lookahead: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var items = tokens.dim_size(0)
        var kernel = AdvanceKernel(
            View(candidates),
            View(note),
            View(tokens),
            View(positions),
            View(slot_table),
            View(scores),
            View(ranges),
            View(checks),
            View(last_timestamps),
            View(first_timestamp),
            View(lookahead),
            View(kept),
            View(slots_before),
            View(timestamps_before),
            tokens.dim_size(1),
            slot_table.dim_size(1),
            candidates.dim_size(2),
            vocabulary,
        )
        launch[target](kernel, items, ctx)
