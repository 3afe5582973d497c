"""Keeps glibc from giving memory back to the system between one clip and the next.

A clip takes tens of megabytes for milliseconds. By default glibc maps each large array anew and
unmaps it when it is freed, so that the system clears, and the processor faults in, every page for
every clip: reading a record of 18 MB alone took 51 ms of CPU instead of 15.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # more is refused
_KEPT = 2**31 - 1
_GROWTH = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells the C library to keep what is freed for later; for the whole process, and for good.

    Returns:
        Whether the library is glibc and has taken it; elsewhere nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018, other libraries have another mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {
        _M_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD,
        _M_TRIM_THRESHOLD: _KEPT,
        _M_TOP_PAD: _GROWTH,
    }
    taken = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(taken)
