"""What the log-mel kernels of CPUs and GPUs share: framing, logarithm, clamp."""

from std.math import log

from .rfft400 import N_FFT
from .views import FloatView

comptime HOP_LENGTH = 160
comptime HALF_WINDOW = N_FFT // 2
comptime LOG10_OF_E = Float32(0.4342944819032518)
comptime LEAST_ENERGY = Float32(1e-10)
comptime DYNAMIC_RANGE = Float32(8)
comptime LEAST_LOG = Float32(-10)


@always_inline
def reflect(index: Int, count: Int) -> Int:
    """The index mirrored at both ends of `[0, count)` as often as it takes."""
    if 0 <= index < count:
        return index
    var period = 2 * (count - 1)
    var i = index % period
    return i if i < count else period - i


@always_inline
def sample(waveform: FloatView, samples: Int, padded: Int, position: Int) -> Float32:
    """The sample at a position that may lie outside: zeros follow the waveform up to `padded`
    samples, and the whole is reflected at both ends as often as it takes."""
    var i = reflect(position, padded)
    return waveform[i] if i < samples else Float32(0)


@always_inline
def log_energy(energy: SIMD[DType.float32, _]) -> type_of(energy):
    """The decimal logarithm of a mel energy."""
    return log(max(energy, LEAST_ENERGY)) * LOG10_OF_E


@always_inline
def scaled(value: SIMD[DType.float32, _], peak: Float32) -> type_of(value):
    """The clamped and scaled value; not a number everywhere if the peak is not finite."""
    return (max(value, peak - DYNAMIC_RANGE) + 4) / 4 + (peak - peak)
