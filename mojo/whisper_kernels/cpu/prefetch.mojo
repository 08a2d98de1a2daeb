"""Software prefetch, into the nearest cache or into the outer ones."""

from std.sys.intrinsics import PrefetchOptions
from std.sys.intrinsics import prefetch as prefetch_address

from ..common.views import View

comptime NEAR = PrefetchOptions().for_read().high_locality().to_data_cache()
"""Into every cache, for what is used next."""
comptime SOON = PrefetchOptions().for_read().medium_locality().to_data_cache()
"""Into all caches but the first, which is small, for what is used a while later."""


@always_inline
def prefetch[how: PrefetchOptions](view: View[_]):
    """Asks for the line that a view begins with, which may lie behind all that there is."""
    prefetch_address[how](view.data)
