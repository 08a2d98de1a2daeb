"""Log-mel spectrogram on a GPU: a block of threads works on a few frames in shared memory."""

from max.gpu import barrier, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceBuffer, DeviceContext
from std.math import ceildiv

from ..common.log_mel import HALF_WINDOW, HOP_LENGTH, LEAST_LOG, log_energy, sample, scaled
from ..common.rfft400 import BINS, COLUMNS, Complex, ROWS, bin_of, dft5, dft16
from ..common.views import FloatView
from .thread_block import shared
from .launch import Kernel, launch

comptime LOG_MEL_THREADS = 256


@fieldwise_init
struct EnergiesKernel(Kernel):
    """Writes log10 of the mel energies of the block's frames, and their maximum to `peaks`.

    A block has `frames_per_block` frames of the item that is `block_idx.y`.
    """

    comptime threads = LOG_MEL_THREADS
    comptime frames_per_block = 8
    comptime cells = ROWS * COLUMNS
    """Complex numbers of a frame between the stages of its transform."""
    var features: FloatView
    var peaks: FloatView
    var waveform: FloatView
    var filters: FloatView
    var window: FloatView
    var twiddles: FloatView
    var mels: Int
    var frames: Int
    var samples: Int
    var padded: Int

    @always_inline
    def __call__(self, block: Int):
        comptime THREADS = Self.threads
        comptime FRAMES = Self.frames_per_block
        comptime CELLS = Self.cells
        var cells = shared[FRAMES * CELLS * 2]()
        var power = shared[FRAMES * BINS]()
        var maxima = shared[THREADS]()
        var thread = Int(thread_idx.x)
        var first = block * FRAMES
        var item = Int(block_idx.y)
        var heard = self.waveform.slice(item * self.samples, self.samples)

        for task in range(thread, FRAMES * COLUMNS, THREADS):
            var frame = task // COLUMNS
            var j = task % COLUMNS
            var start = (first + frame) * HOP_LENGTH - HALF_WINDOW + j
            var x = Array[SIMD[DType.float32, 1], 16](fill=0)
            comptime for q in range(16):
                x[q] = (
                    sample(
                        heard,
                        self.samples,
                        self.padded,
                        start + COLUMNS * q,
                    )
                    * self.window[j + COLUMNS * q]
                )
            var y = dft16[1](x)
            comptime for p in range(ROWS):
                var z = y[p].turned(self.twiddles[2 * j * p], self.twiddles[2 * j * p + 1])
                var cell = 2 * (frame * CELLS + p * COLUMNS + j)
                cells[cell] = z.re
                cells[cell + 1] = z.im
        barrier()

        for task in range(thread, FRAMES * ROWS * 5, THREADS):
            var b = task % 5
            var row = task // 5 * COLUMNS
            var z = Array[Complex[1], 5](fill=Complex[1]())
            comptime for a in range(5):
                var cell = 2 * (row + b + 5 * a)
                z[a] = Complex[1](cells[cell], cells[cell + 1])
            z = dft5[1](z)
            comptime for s in range(5):
                var twiddle = 2 * 16 * b * s
                var turned = z[s].turned(self.twiddles[twiddle], self.twiddles[twiddle + 1])
                var cell = 2 * (row + b + 5 * s)
                cells[cell] = turned.re
                cells[cell + 1] = turned.im
        barrier()

        for task in range(thread, FRAMES * ROWS * 5, THREADS):
            var s = task % 5
            var p = task // 5 % ROWS
            var frame = task // (5 * ROWS)
            var z = Array[Complex[1], 5](fill=Complex[1]())
            comptime for b in range(5):
                var cell = 2 * (frame * CELLS + p * COLUMNS + 5 * s + b)
                z[b] = Complex[1](cells[cell], cells[cell + 1])
            z = dft5[1](z)
            comptime for t in range(5):
                power[frame * BINS + bin_of(p, s, t)] = z[t].power()
        barrier()

        var peak = LEAST_LOG
        var bad = Float32(0)
        for task in range(thread, self.mels * FRAMES, THREADS):
            var mel = task // FRAMES
            var frame = task % FRAMES
            if first + frame < self.frames:
                var energy = Float32(0)
                for k in range(BINS):
                    energy += power[frame * BINS + k] * self.filters[mel * BINS + k]
                # Energies that are not finite must not be lost in a maximum.
                bad += energy - energy
                var value = log_energy(energy) + (energy - energy)
                peak = max(peak, value)
                self.features[(item * self.mels + mel) * self.frames + first + frame] = value
        maxima[thread] = peak + bad
        barrier()
        if thread == 0:
            self.peaks[item * Int(grid_dim.x) + block] = maximum(maxima, 0, 1)


@fieldwise_init
struct PeakKernel(Kernel):
    """Writes the maximum of the blocks' maxima; not a number if one of them is not."""

    comptime threads = LOG_MEL_THREADS
    var peak: FloatView
    var peaks: FloatView

    @always_inline
    def __call__(self, block: Int):
        var maxima = shared[Self.threads]()
        var thread = Int(thread_idx.x)
        maxima[thread] = maximum(self.peaks, thread, Self.threads)
        barrier()
        if thread == 0:
            self.peak[0] = maximum(maxima, 0, 1)


@fieldwise_init
struct ClampKernel(Kernel):
    """Clamps and scales the features in place."""

    comptime threads = LOG_MEL_THREADS
    comptime max_blocks = 1024
    var features: FloatView
    var peak: FloatView

    @always_inline
    def __call__(self, block: Int):
        var peak = self.peak[0]
        for i in range(
            block * Self.threads + Int(thread_idx.x),
            self.features.count,
            Int(grid_dim.x) * Self.threads,
        ):
            self.features[i] = scaled(self.features[i], peak)


@always_inline
def maximum(values: FloatView, first: Int, step: Int) -> Float32:
    """Of every `step`-th value from the first on; not a number if one of them is not."""
    var found = LEAST_LOG
    var lost = Float32(0)
    for i in range(first, values.count, step):
        found = max(found, values[i])
        lost += values[i] - values[i]
    return found + lost


def view(buffer: DeviceBuffer[DType.float32]) -> FloatView:
    """The numbers of a buffer, which has to live on."""
    return FloatView(
        buffer.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
        len(buffer),
    )


def log_mel_gpu(
    features: DeviceBuffer[DType.float32],
    waveform: DeviceBuffer[DType.float32],
    filters: DeviceBuffer[DType.float32],
    window: DeviceBuffer[DType.float32],
    twiddles: DeviceBuffer[DType.float32],
    peak: DeviceBuffer[DType.float32],
    items: Int,
    mels: Int,
    frames: Int,
    samples: Int,
    padded: Int,
    ctx: DeviceContext,
) raises:
    """Fill features [items, mels, frames] and peak [1]; see the kernel for the CPU."""
    comptime target = "gpu"
    var blocks = ceildiv(frames, EnergiesKernel.frames_per_block)
    var peaks = ctx.enqueue_create_buffer[DType.float32](blocks * items)
    var find_energies = EnergiesKernel(
        view(features),
        view(peaks),
        view(waveform),
        view(filters),
        view(window),
        view(twiddles),
        mels,
        frames,
        samples,
        padded,
    )
    launch[target](find_energies, blocks, ctx, high=items)
    launch[target](PeakKernel(view(peak), view(peaks)), 1, ctx)
    var clamp = ClampKernel(view(features), view(peak))
    launch[target](
        clamp,
        min(ceildiv(items * mels * frames, clamp.threads), clamp.max_blocks),
        ctx,
    )
    _ = peaks^
