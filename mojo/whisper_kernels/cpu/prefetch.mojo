"""How near memory is brought that is asked for before its use."""

from std.sys.intrinsics import PrefetchOptions

comptime NEAR = PrefetchOptions().for_read().high_locality().to_data_cache()
"""Into every cache, for what is used next."""
comptime SOON = PrefetchOptions().for_read().medium_locality().to_data_cache()
"""Into all caches but the first, which is small, for what is used a while later."""
