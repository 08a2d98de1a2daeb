"""What the log-mel kernels of both kinds of device share: framing, logarithm, clamp."""

from std.math import log

from .rfft400 import LENGTH

comptime HOP = 160
comptime HALF_WINDOW = LENGTH // 2
comptime LOG10_OF_E = Float32(0.4342944819032518)
comptime LEAST_ENERGY = Float32(1e-10)
comptime DYNAMIC_RANGE = Float32(8)
comptime LEAST_LOG = Float32(-10)

comptime Floats = Pointer[Float32, MutAnyOrigin]


@always_inline
def sample(waveform: Floats, samples: Int, padded: Int, position: Int) -> Float32:
    """The sample at a position that may lie outside: zeros follow the waveform up to `padded`
    samples, and the whole is reflected at both ends as often as it takes."""
    var i = position
    if i < 0 or i >= padded:
        var period = 2 * (padded - 1)
        i = i % period
        if i >= padded:
            i = period - i
    return waveform[unsafe_offset=i] if i < samples else Float32(0)


@always_inline
def log_energy(energy: SIMD[DType.float32, _]) -> type_of(energy):
    """The decimal logarithm of a mel energy."""
    return log(max(energy, LEAST_ENERGY)) * LOG10_OF_E


@always_inline
def scaled(value: SIMD[DType.float32, _], peak: Float32) -> type_of(value):
    """The clamped and scaled value; not a number everywhere if the peak is not finite."""
    return (max(value, peak - DYNAMIC_RANGE) + 4) / 4 + (peak - peak)
