"""Log-mel spectrogram on a GPU: a block of threads works on a few frames in shared memory."""

from max.gpu import barrier, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceBuffer, DeviceContext
from std.math import ceildiv
from std.memory import unsafe_stack_allocation

from ..common.frames import (
    Floats,
    HALF_WINDOW,
    HOP,
    LEAST_LOG,
    log_energy,
    sample,
    scaled,
)
from ..common.rfft400 import BINS, COLUMNS, Complex, ROWS, bin_of, dft5, dft16

comptime THREADS = 256
comptime FRAMES = 8
"""Frames that a block works on."""
comptime CELLS = ROWS * COLUMNS
comptime CLAMP_BLOCKS = 1024


def analyse(
    features: Floats,
    peaks: Floats,
    waveform: Floats,
    filters: Floats,
    window: Floats,
    turns: Floats,
    mels_: Int64,
    frames_: Int64,
    samples_: Int64,
    padded_: Int64,
):
    """Write log10 of the mel energies of the block's frames, and their maximum to `peaks`."""
    var mels = Int(mels_)
    var frames = Int(frames_)
    var samples = Int(samples_)
    var padded = Int(padded_)
    var cells = unsafe_stack_allocation[
        FRAMES * CELLS * 2, Float32, address_space=AddressSpace.SHARED
    ]()
    var power = unsafe_stack_allocation[
        FRAMES * BINS, Float32, address_space=AddressSpace.SHARED
    ]()
    var maxima = unsafe_stack_allocation[
        THREADS, Float32, address_space=AddressSpace.SHARED
    ]()
    var thread = Int(thread_idx.x)
    var first = Int(block_idx.x) * FRAMES
    var item = Int(block_idx.y)
    var heard = waveform.unsafe_offset(item * samples)

    for task in range(thread, FRAMES * COLUMNS, THREADS):
        var frame = task // COLUMNS
        var j = task % COLUMNS
        var start = (first + frame) * HOP - HALF_WINDOW + j
        var x = Array[SIMD[DType.float32, 1], 16](fill=0)
        comptime for q in range(16):
            x[q] = (
                sample(heard, samples, padded, start + COLUMNS * q)
                * window[unsafe_offset=j + COLUMNS * q]
            )
        var y = dft16[1](x)
        comptime for p in range(ROWS):
            var z = y[p].turned(
                turns[unsafe_offset=2 * j * p],
                turns[unsafe_offset=2 * j * p + 1],
            )
            var cell = 2 * (frame * CELLS + p * COLUMNS + j)
            cells[unsafe_offset=cell] = z.re
            cells[unsafe_offset=cell + 1] = z.im
    barrier()

    for task in range(thread, FRAMES * ROWS * 5, THREADS):
        var b = task % 5
        var row = task // 5 * COLUMNS
        var z = Array[Complex[1], 5](fill=Complex[1]())
        comptime for a in range(5):
            var cell = 2 * (row + b + 5 * a)
            z[a] = Complex[1](
                cells[unsafe_offset=cell], cells[unsafe_offset=cell + 1]
            )
        z = dft5[1](z)
        comptime for s in range(5):
            var turn = 2 * 16 * b * s
            var turned = z[s].turned(
                turns[unsafe_offset=turn], turns[unsafe_offset=turn + 1]
            )
            var cell = 2 * (row + b + 5 * s)
            cells[unsafe_offset=cell] = turned.re
            cells[unsafe_offset=cell + 1] = turned.im
    barrier()

    for task in range(thread, FRAMES * ROWS * 5, THREADS):
        var s = task % 5
        var p = task // 5 % ROWS
        var frame = task // (5 * ROWS)
        var z = Array[Complex[1], 5](fill=Complex[1]())
        comptime for b in range(5):
            var cell = 2 * (frame * CELLS + p * COLUMNS + 5 * s + b)
            z[b] = Complex[1](
                cells[unsafe_offset=cell], cells[unsafe_offset=cell + 1]
            )
        z = dft5[1](z)
        comptime for t in range(5):
            power[unsafe_offset=frame * BINS + bin_of(p, s, t)] = z[t].power()
    barrier()

    var peak = LEAST_LOG
    var bad = Float32(0)
    for task in range(thread, mels * FRAMES, THREADS):
        var mel = task // FRAMES
        var frame = task % FRAMES
        if first + frame < frames:
            var energy = Float32(0)
            for k in range(BINS):
                energy += (
                    power[unsafe_offset=frame * BINS + k]
                    * filters[unsafe_offset=mel * BINS + k]
                )
            # Energies that are not finite must not be lost in a maximum.
            bad += energy - energy
            var value = log_energy(energy) + (energy - energy)
            peak = max(peak, value)
            features[
                unsafe_offset=(item * mels + mel) * frames + first + frame
            ] = value
    maxima[unsafe_offset=thread] = peak + bad
    barrier()
    if thread == 0:
        var found = LEAST_LOG
        var lost = Float32(0)
        for i in range(THREADS):
            found = max(found, maxima[unsafe_offset=i])
            lost += maxima[unsafe_offset=i] - maxima[unsafe_offset=i]
        peaks[unsafe_offset=item * Int(grid_dim.x) + Int(block_idx.x)] = (
            found + lost
        )


def reduce(peak: Floats, peaks: Floats, count_: Int64):
    """Write the maximum of the blocks' maxima; not a number if one of them is not."""
    var maxima = unsafe_stack_allocation[
        THREADS, Float32, address_space=AddressSpace.SHARED
    ]()
    var thread = Int(thread_idx.x)
    var found = LEAST_LOG
    var lost = Float32(0)
    for i in range(thread, Int(count_), THREADS):
        found = max(found, peaks[unsafe_offset=i])
        lost += peaks[unsafe_offset=i] - peaks[unsafe_offset=i]
    maxima[unsafe_offset=thread] = found + lost
    barrier()
    if thread == 0:
        found = LEAST_LOG
        lost = 0
        for i in range(THREADS):
            found = max(found, maxima[unsafe_offset=i])
            lost += maxima[unsafe_offset=i] - maxima[unsafe_offset=i]
        peak[unsafe_offset=0] = found + lost


def clamp(features: Floats, peak: Floats, size_: Int64):
    """Clamp and scale the features in place."""
    var greatest = peak[unsafe_offset=0]
    for i in range(
        Int(block_idx.x) * THREADS + Int(thread_idx.x),
        Int(size_),
        Int(grid_dim.x) * THREADS,
    ):
        features[unsafe_offset=i] = scaled(features[unsafe_offset=i], greatest)


def log_mel_gpu(
    features: DeviceBuffer[DType.float32],
    waveform: DeviceBuffer[DType.float32],
    filters: DeviceBuffer[DType.float32],
    window: DeviceBuffer[DType.float32],
    turns: DeviceBuffer[DType.float32],
    peak: DeviceBuffer[DType.float32],
    items: Int,
    mels: Int,
    frames: Int,
    samples: Int,
    padded: Int,
    ctx: DeviceContext,
) raises:
    """Fill features [items, mels, frames] and peak [1]; see the kernel for the CPU."""
    var blocks = ceildiv(frames, FRAMES)
    var size = items * mels * frames
    var peaks = ctx.enqueue_create_buffer[DType.float32](blocks * items)
    ctx.enqueue_function[analyse](
        features,
        peaks,
        waveform,
        filters,
        window,
        turns,
        Int64(mels),
        Int64(frames),
        Int64(samples),
        Int64(padded),
        grid_dim=(blocks, items),
        block_dim=THREADS,
    )
    ctx.enqueue_function[reduce](
        peak, peaks, Int64(blocks * items), grid_dim=1, block_dim=THREADS
    )
    ctx.enqueue_function[clamp](
        features,
        peak,
        Int64(size),
        grid_dim=min(ceildiv(size, THREADS), CLAMP_BLOCKS),
        block_dim=THREADS,
    )
