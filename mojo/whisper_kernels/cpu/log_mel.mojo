"""Log-mel spectrogram: reflected framing, Hann window, 400-point FFT, mel filters, log10, clamp.

Two passes, because the clamp needs the maximum over everything: the first writes log10 of the mel
energies and the maximum of each group of frames, the second clamps and scales in place. Frames are
worked on in groups, so nothing grows with the audio but the output.
"""

from max.algorithm import sync_parallelize
from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys import simd_width_of

from ..common.log_mel import HALF_WINDOW, HOP_LENGTH, LEAST_LOG, log_energy, sample, scaled
from ..common.rfft400 import BINS, COLUMNS, N_FFT, ROWS, Complex, bin_of, dft16, dft5
from ..common.views import FloatView, IntView

# On the CPU: a lane is a frame, a group is as many frames as a vector has lanes.

comptime GROUPS_PER_TASK = 8
comptime VALUES_PER_TASK = 1 << 16


@always_inline
def power_spectrum[
    width: Int
](segment: FloatView, window: FloatView, twiddles: FloatView, rows: FloatView, power: FloatView):
    """Power of bins 0 to 200 of `width` frames that begin HOP_LENGTH samples apart in `segment`.

    `rows` is scratch for ROWS * COLUMNS complex vectors, `power` takes BINS vectors.
    """
    comptime C = Complex[width]
    for j in range(COLUMNS):
        var x = Array[SIMD[DType.float32, width], 16](fill=0)
        comptime for q in range(16):
            var n = j + COLUMNS * q
            x[q] = segment.strided_load[width](n, HOP_LENGTH) * window[n]
        var y = dft16(x)
        comptime for p in range(ROWS):
            store(
                rows,
                p * COLUMNS + j,
                y[p].turned(
                    twiddles[2 * j * p],
                    twiddles[2 * j * p + 1],
                ),
            )
    for p in range(ROWS):
        var row = rows.offset(p * COLUMNS * 2 * width)
        for b in range(5):
            var z = Array[C, 5](fill=C())
            comptime for a in range(5):
                z[a] = load[width](row, b + 5 * a)
            z = dft5(z)
            comptime for s in range(5):
                var twiddle = 2 * 16 * b * s
                store(
                    row,
                    b + 5 * s,
                    z[s].turned(
                        twiddles[twiddle],
                        twiddles[twiddle + 1],
                    ),
                )
        for s in range(5):
            var z = Array[C, 5](fill=C())
            comptime for b in range(5):
                z[b] = load[width](row, 5 * s + b)
            z = dft5(z)
            comptime for t in range(5):
                power.store(bin_of(p, s, t) * width, z[t].power())


@always_inline
def load[width: Int](rows: FloatView, index: Int) -> Complex[width]:
    var place = rows.offset(index * 2 * width)
    return Complex[width](
        place.load[width](),
        place.load[width](width),
    )


@always_inline
def store[width: Int](rows: FloatView, index: Int, value: Complex[width]):
    var place = rows.offset(index * 2 * width)
    place.store(value.re)
    place.store(width, value.im)


@always_inline
def on_stack[count: Int]() -> FloatView:
    """Room for numbers until the caller returns."""
    var place = unsafe_stack_allocation[count, Float32, alignment=64]()
    return FloatView(place.unsafe_origin_cast[MutUntrackedOrigin](), count)


def group_of_frames[
    width: Int
](
    features: FloatView,
    waveform: FloatView,
    filters: FloatView,
    bounds: IntView,
    window: FloatView,
    twiddles: FloatView,
    mels: Int,
    frames: Int,
    samples: Int,
    padded: Int,
    first: Int,
) -> Float32:
    """Write log10 of the mel energies of frames first to first + width; return their maximum."""
    comptime SPAN = HOP_LENGTH * (width - 1) + N_FFT
    var copied = on_stack[SPAN]()
    var rows = on_stack[ROWS * COLUMNS * 2 * width]()
    var power = on_stack[BINS * width]()
    var start = first * HOP_LENGTH - HALF_WINDOW
    var valid = min(width, frames - first)
    var segment = waveform.offset(max(start, 0))
    if start < 0 or start + SPAN > samples:
        # Lanes beyond the last frame repeat whatever is there; they are not written.
        for i in range(SPAN):
            copied[i] = sample(waveform, samples, padded, start + i)
        segment = copied
    power_spectrum[width](
        segment,
        window,
        twiddles,
        rows,
        power,
    )
    # A bin that is not finite makes every energy not a number, as in a dense product.
    var poison = SIMD[DType.float32, width](0)
    for k in range(BINS):
        poison += power.load[width](k * width) * 0
    var peak = SIMD[DType.float32, width](LEAST_LOG)
    for mel in range(mels):
        var weights = filters.slice(mel * BINS, BINS)
        var energy = SIMD[DType.float32, width](0)
        for k in range(
            Int(bounds[2 * mel]),
            Int(bounds[2 * mel + 1]),
        ):
            energy += power.load[width](k * width) * weights[k]
        var value = log_energy(energy) + poison
        var place = features.offset(mel * frames + first)
        if valid == width:
            peak = max(peak, value)
            place.store(value)
        else:
            for lane in range(valid):
                peak[lane] = max(peak[lane], value[lane])
                place[lane] = value[lane]
    var result = Float32(0)
    for lane in range(valid):
        result += poison[lane]
    return result + peak.reduce_max()


def log_mel_cpu(
    features: FloatView,
    waveform: FloatView,
    filters: FloatView,
    window: FloatView,
    twiddles: FloatView,
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
    var peaks = FloatView.allocate(tasks)
    var bounds = IntView.allocate(2 * mels)
    for mel in range(mels):
        var weights = filters.slice(mel * BINS, BINS)
        var begin = 0
        var end = 0
        for k in range(BINS):
            if weights[k] != 0:
                begin = k if end == 0 else begin
                end = k + 1
        bounds[2 * mel] = Int32(begin)
        bounds[2 * mel + 1] = Int32(end)

    def analyse(task: Int) {imm}:
        var item = task // tasks_per_item
        var begin = (task % tasks_per_item) * FRAMES_PER_TASK
        var peak = LEAST_LOG
        var bad = Float32(0)
        for first in range(begin, min(begin + FRAMES_PER_TASK, frames), WIDTH):
            var found = group_of_frames[WIDTH](
                features.slice(item * mels * frames, mels * frames),
                waveform.slice(item * samples, samples),
                filters,
                bounds,
                window,
                twiddles,
                mels,
                frames,
                samples,
                padded,
                first,
            )
            peak = max(peak, found)
            bad += found - found
        peaks[task] = peak + bad

    if tasks == 1:
        analyse(0)
    else:
        sync_parallelize(analyse, tasks)

    var peak = LEAST_LOG
    var bad = Float32(0)
    for task in range(tasks):
        var found = peaks[task]
        peak = max(peak, found)
        bad += found - found
    peak += bad
    peaks.free()
    bounds.free()
    var size = items * mels * frames

    def clamp(task: Int) {imm}:
        var end = min((task + 1) * VALUES_PER_TASK, size)
        var i = task * VALUES_PER_TASK
        while i + WIDTH <= end:
            var place = features.offset(i)
            place.store(scaled(place.load[WIDTH](), peak))
            i += WIDTH
        while i < end:
            features[i] = scaled(features[i], peak)
            i += 1

    if size <= VALUES_PER_TASK:
        clamp(0)
    else:
        sync_parallelize(clamp, ceildiv(size, VALUES_PER_TASK))
    return peak
