"""What the decoding rules do to the logits of one step.

Source: the logits processors of CTranslate2 (`decoding_utils.cc` and
ApplyTimestampRules in `models/whisper.cc`). Which ids are concerned is decided
outside; here they are applied, in the reference's order.
"""

from std.math import exp
from std.memory import unsafe_memcpy

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .softmax import highest, log_sum_exp
from .parallel import parallel
from .tensors import Floats, Ints, first, floats, ints

comptime BANNED = Float32.MIN_FINITE


def ban(row: Floats, low: Int, high: Int):
    """Bans the ids `[low, high)`."""
    for id in range(low, high):
        row[unsafe_offset=id] = BANNED


def ban_listed(row: Floats, listed: Ints, count: Int):
    """Bans the ids of a list in which negative entries are padding."""
    for i in range(count):
        var id = Int(listed[unsafe_offset=i])
        if id >= 0:
            row[unsafe_offset=id] = BANNED


def penalize(row: Floats, original: Floats, previous: Ints, count: Int, penalty: Float32):
    """Divides positive logits of earlier ids by `penalty`, multiplies negative ones."""
    for i in range(count):
        var id = Int(previous[unsafe_offset=i])
        if id >= 0:
            var value = original[unsafe_offset=id]
            row[unsafe_offset=id] = value * penalty if value < 0 else value / penalty


@extensibility.register("whisper.apply_rules")
struct ApplyRules:
    """The logits after the rules, and the probability of one id before them.

    logits and ruled [items, beams, vocabulary]; with rows = items * beams:
    suppressed [n] int32, banned everywhere; ranges [rows, 4] int32, two half-open ranges;
    banned and penalized [rows, ...] int32 padded with -1; check_timestamps [rows] int32: 1
    where text is banned if the timestamps together are likelier than any text token;
    numbers [2] int32: the first timestamp id, and the watched id or -1; penalty [1];
    watched [rows].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        ruled: OutputTensor[dtype=DType.float32, rank=3, ...],
        watched: OutputTensor[dtype=DType.float32, rank=1, ...],
        logits: InputTensor[dtype=DType.float32, rank=3, ...],
        suppressed: InputTensor[dtype=DType.int32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int32, rank=2, ...],
        banned: InputTensor[dtype=DType.int32, rank=2, ...],
        penalized: InputTensor[dtype=DType.int32, rank=2, ...],
        check_timestamps: InputTensor[dtype=DType.int32, rank=1, ...],
        numbers: InputTensor[dtype=DType.int32, rank=1, ...],
        penalty: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var vocabulary = logits.dim_size(2)
        var first_timestamp = first(numbers)
        var watch = Int(ints(numbers)[unsafe_offset=1])
        var source = floats(logits)
        var destination = floats(ruled)
        var probabilities = floats(watched)
        var always = ints(suppressed)
        var always_count = suppressed.dim_size(0)
        var spans = ints(ranges)
        var lists = ints(banned)
        var list_count = banned.dim_size(1)
        var previous = ints(penalized)
        var previous_count = penalized.dim_size(1)
        var checks = ints(check_timestamps)
        var factor = floats(penalty)[unsafe_offset=0]

        def task(index: Int) {imm}:
            var original = source.unsafe_offset(index * vocabulary)
            var row = destination.unsafe_offset(index * vocabulary)
            unsafe_memcpy(dest=row, src=original, count=vocabulary)
            if watch >= 0:
                probabilities[unsafe_offset=index] = exp(
                    original[unsafe_offset=watch] - log_sum_exp(original, vocabulary)
                )
            else:
                probabilities[unsafe_offset=index] = 0
            penalize(
                row,
                original,
                previous.unsafe_offset(index * previous_count),
                previous_count,
                factor,
            )
            ban_listed(row, always, always_count)
            ban_listed(row, lists.unsafe_offset(index * list_count), list_count)
            for i in range(2):
                ban(
                    row,
                    Int(spans[unsafe_offset=4 * index + 2 * i]),
                    Int(spans[unsafe_offset=4 * index + 2 * i + 1]),
                )
            if checks[unsafe_offset=index] != 0:
                var timestamps = log_sum_exp(
                    row.unsafe_offset(first_timestamp), vocabulary - first_timestamp
                )
                if timestamps > highest(row, first_timestamp):
                    ban(row, 0, first_timestamp)

        parallel(first(threads), logits.dim_size(0) * logits.dim_size(1), task)
