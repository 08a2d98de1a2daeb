"""Log-mel spectrogram: reflected framing, Hann window, 400-point FFT, mel filters, log10, clamp.

Two passes, because the clamp needs the maximum over everything: the first writes log10 of the mel
energies and the maximum of each group of frames, the second clamps and scales in place. Frames are
worked on in groups, so nothing grows with the audio but the output.
"""

import extensibility
from extensibility import (
    InputTensor,
    OutputTensor,
    _MutableInputTensor as MutableInputTensor,
)
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.memory.alloc import unsafe_alloc
from std.sys import simd_width_of

from ..common.frames import (
    Floats,
    HALF_WINDOW,
    HOP,
    LEAST_LOG,
    log_energy,
    sample,
    scaled,
)
from ..gpu.log_mel import log_mel_gpu
from ..common.rfft400 import BINS, COLUMNS, Complex, LENGTH, ROWS, bin_of, dft5, dft16
from ..common.views import Ints

# On the CPU: a lane is a frame, a group is as many frames as a vector has lanes.

comptime GROUPS_PER_TASK = 8
comptime VALUES_PER_TASK = 1 << 16


@always_inline
def power_spectrum[
    width: Int
](segment: Floats, window: Floats, turns: Floats, rows: Floats, power: Floats):
    """Power of bins 0 to 200 of `width` frames that begin HOP samples apart in `segment`.

    `rows` is scratch for ROWS * COLUMNS complex vectors, `power` takes BINS vectors.
    """
    comptime C = Complex[width]
    for j in range(COLUMNS):
        var x = Array[SIMD[DType.float32, width], 16](fill=0)
        comptime for q in range(16):
            var n = j + COLUMNS * q
            x[q] = (
                segment.unsafe_offset(n).unsafe_strided_load[width=width](HOP)
                * window[unsafe_offset=n]
            )
        var y = dft16(x)
        comptime for p in range(ROWS):
            store(
                rows,
                p * COLUMNS + j,
                y[p].turned(
                    turns[unsafe_offset=2 * j * p],
                    turns[unsafe_offset=2 * j * p + 1],
                ),
            )
    for p in range(ROWS):
        var row = rows.unsafe_offset(p * COLUMNS * 2 * width)
        for b in range(5):
            var z = Array[C, 5](fill=C())
            comptime for a in range(5):
                z[a] = load[width](row, b + 5 * a)
            z = dft5(z)
            comptime for s in range(5):
                var turn = 2 * 16 * b * s
                store(
                    row,
                    b + 5 * s,
                    z[s].turned(
                        turns[unsafe_offset=turn],
                        turns[unsafe_offset=turn + 1],
                    ),
                )
        for s in range(5):
            var z = Array[C, 5](fill=C())
            comptime for b in range(5):
                z[b] = load[width](row, 5 * s + b)
            z = dft5(z)
            comptime for t in range(5):
                power.unsafe_offset(bin_of(p, s, t) * width).unsafe_store(
                    z[t].power()
                )


@always_inline
def load[width: Int](rows: Floats, index: Int) -> Complex[width]:
    var place = rows.unsafe_offset(index * 2 * width)
    return Complex[width](
        place.unsafe_load[width=width](),
        place.unsafe_offset(width).unsafe_load[width=width](),
    )


@always_inline
def store[width: Int](rows: Floats, index: Int, value: Complex[width]):
    var place = rows.unsafe_offset(index * 2 * width)
    place.unsafe_store(value.re)
    place.unsafe_offset(width).unsafe_store(value.im)


def group_of_frames[
    width: Int
](
    features: Floats,
    waveform: Floats,
    filters: Floats,
    bounds: Ints,
    window: Floats,
    turns: Floats,
    mels: Int,
    frames: Int,
    samples: Int,
    padded: Int,
    first: Int,
) -> Float32:
    """Write log10 of the mel energies of frames first to first + width; return their maximum."""
    comptime SPAN = HOP * (width - 1) + LENGTH
    comptime ALIGNMENT = 4 * width
    var copied = unsafe_stack_allocation[SPAN, Float32, alignment=ALIGNMENT]()
    var rows = unsafe_stack_allocation[
        ROWS * COLUMNS * 2 * width, Float32, alignment=ALIGNMENT
    ]()
    var power = unsafe_stack_allocation[
        BINS * width, Float32, alignment=ALIGNMENT
    ]()
    var start = first * HOP - HALF_WINDOW
    var valid = min(width, frames - first)
    var segment = waveform.unsafe_offset(max(start, 0))
    if start < 0 or start + SPAN > samples:
        # Lanes beyond the last frame repeat whatever is there; they are not written.
        for i in range(SPAN):
            copied[unsafe_offset=i] = sample(
                waveform, samples, padded, start + i
            )
        segment = copied.as_unsafe_any_origin()
    power_spectrum[width](
        segment,
        window,
        turns,
        rows.as_unsafe_any_origin(),
        power.as_unsafe_any_origin(),
    )
    # A bin that is not finite makes every energy not a number, as in a dense product.
    var poison = SIMD[DType.float32, width](0)
    for k in range(BINS):
        poison += power.unsafe_offset(k * width).unsafe_load[width=width]() * 0
    var peak = SIMD[DType.float32, width](LEAST_LOG)
    for mel in range(mels):
        var weights = filters.unsafe_offset(mel * BINS)
        var energy = SIMD[DType.float32, width](0)
        for k in range(
            Int(bounds[unsafe_offset=2 * mel]),
            Int(bounds[unsafe_offset=2 * mel + 1]),
        ):
            energy += (
                power.unsafe_offset(k * width).unsafe_load[width=width]()
                * weights[unsafe_offset=k]
            )
        var value = log_energy(energy) + poison
        var place = features.unsafe_offset(mel * frames + first)
        if valid == width:
            peak = max(peak, value)
            place.unsafe_store(value)
        else:
            for lane in range(valid):
                peak[lane] = max(peak[lane], value[lane])
                place[unsafe_offset=lane] = value[lane]
    var result = Float32(0)
    for lane in range(valid):
        result += poison[lane]
    return result + peak.reduce_max()


def log_mel_cpu(
    features: Floats,
    waveform: Floats,
    filters: Floats,
    window: Floats,
    turns: Floats,
    items: Int,
    mels: Int,
    frames: Int,
    samples: Int,
    padded: Int,
) -> Float32:
    """Fill features [items, mels, frames] and return the maximum of log10 before the clamp."""
    comptime WIDTH = simd_width_of[DType.float32]()
    comptime FRAMES_PER_TASK = WIDTH * GROUPS_PER_TASK
    var tasks_per_item = ceildiv(frames, FRAMES_PER_TASK)
    var tasks = items * tasks_per_item
    # Not lists: those end with the last use of their name, and the threads have a pointer.
    var peaks = unsafe_alloc[Float32](tasks)
    var bounds = unsafe_alloc[Int32](2 * mels)
    for mel in range(mels):
        var weights = filters.unsafe_offset(mel * BINS)
        var begin = 0
        var end = 0
        for k in range(BINS):
            if weights[unsafe_offset=k] != 0:
                begin = k if end == 0 else begin
                end = k + 1
        bounds[unsafe_offset=2 * mel] = Int32(begin)
        bounds[unsafe_offset=2 * mel + 1] = Int32(end)

    def analyse(task: Int) {imm}:
        var item = task // tasks_per_item
        var begin = (task % tasks_per_item) * FRAMES_PER_TASK
        var peak = LEAST_LOG
        var bad = Float32(0)
        for first in range(begin, min(begin + FRAMES_PER_TASK, frames), WIDTH):
            var found = group_of_frames[WIDTH](
                features.unsafe_offset(item * mels * frames),
                waveform.unsafe_offset(item * samples),
                filters,
                bounds,
                window,
                turns,
                mels,
                frames,
                samples,
                padded,
                first,
            )
            peak = max(peak, found)
            bad += found - found
        peaks[unsafe_offset=task] = peak + bad

    if tasks == 1:
        analyse(0)
    else:
        sync_parallelize(analyse, tasks)

    var peak = LEAST_LOG
    var bad = Float32(0)
    for task in range(tasks):
        var found = peaks[unsafe_offset=task]
        peak = max(peak, found)
        bad += found - found
    peak += bad
    peaks.unsafe_free()
    bounds.unsafe_free()
    var size = items * mels * frames

    def clamp(task: Int) {imm}:
        var end = min((task + 1) * VALUES_PER_TASK, size)
        var i = task * VALUES_PER_TASK
        while i + WIDTH <= end:
            var place = features.unsafe_offset(i)
            place.unsafe_store(scaled(place.unsafe_load[width=WIDTH](), peak))
            i += WIDTH
        while i < end:
            features[unsafe_offset=i] = scaled(features[unsafe_offset=i], peak)
            i += 1

    if size <= VALUES_PER_TASK:
        clamp(0)
    else:
        sync_parallelize(clamp, ceildiv(size, VALUES_PER_TASK))
    return peak


@extensibility.register("whisper.log_mel")
struct LogMel:
    """Fills features [items, mels, frames] from waveform [items, samples].

    `padded` is the number of samples including the zeros that follow the waveform; frames are
    HOP samples apart, centred on their first sample, and frames = padded // HOP.
    `turns` is exp(-2 pi i k / 400) as [400, 2]. `peak` [1] takes the maximum of log10.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        peak: OutputTensor[dtype=DType.float32, rank=1, ...],
        features: MutableInputTensor[dtype=DType.float32, rank=3, ...],
        waveform: InputTensor[dtype=DType.float32, rank=2, ...],
        filters: InputTensor[dtype=DType.float32, rank=2, ...],
        window: InputTensor[dtype=DType.float32, rank=1, ...],
        turns: InputTensor[dtype=DType.float32, rank=2, ...],
        padded: Int64,
        ctx: DeviceContext,
    ) raises:
        comptime if is_cpu[target]():
            peak.unsafe_ptr().unsafe_store(
                log_mel_cpu(
                    features.unsafe_ptr().as_unsafe_any_origin(),
                    waveform.unsafe_ptr().as_unsafe_any_origin(),
                    filters.unsafe_ptr().as_unsafe_any_origin(),
                    window.unsafe_ptr().as_unsafe_any_origin(),
                    turns.unsafe_ptr().as_unsafe_any_origin(),
                    features.dim_size(0),
                    features.dim_size(1),
                    features.dim_size(2),
                    waveform.dim_size(1),
                    Int(padded),
                )
            )
        else:
            log_mel_gpu(
                features.to_device_buffer(ctx),
                waveform.to_device_buffer(ctx),
                filters.to_device_buffer(ctx),
                window.to_device_buffer(ctx),
                turns.to_device_buffer(ctx),
                peak.to_device_buffer(ctx),
                features.dim_size(0),
                features.dim_size(1),
                features.dim_size(2),
                waveform.dim_size(1),
                Int(padded),
                ctx,
            )
