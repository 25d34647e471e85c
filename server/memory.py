"""The allocator's memory. Knows nothing of what it was used for."""

import ctypes


def give_back() -> None:
    """What this process has freed goes back to the system, where the C library is glibc.

    By itself it keeps what a thread's own pool has freed: a prompt of two million characters left 200 MB behind for good.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
