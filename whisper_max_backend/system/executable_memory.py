"""Whether the system lets this process run compiled graphs, which takes executable memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys


def require_executable_memory() -> None:
    """Ask the system to make a page executable, on Linux.

    Raises:
        RuntimeError: It refuses.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    page = mmap.mmap(-1, mmap.PAGESIZE)
    view = ctypes.c_char.from_buffer(page)
    executable = mmap.PROT_READ | mmap.PROT_EXEC
    refused = library.mprotect(
        ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(mmap.PAGESIZE), executable
    )
    reason = os.strerror(ctypes.get_errno())
    del view  # the mapping cannot be closed under it
    page.close()
    if refused:
        raise RuntimeError(
            f"this process may not make memory executable ({reason}), which MAX needs to run a "
            "compiled model; remove MemoryDenyWriteExecute= from the service's systemd unit, or "
            "whatever else forbids it here (prctl PR_SET_MDWE, seccomp, SELinux's execmem)"
        )
