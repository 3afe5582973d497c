"""Keeps glibc from giving memory back to the system between one clip, or step, and the next.

A clip takes tens of megabytes for milliseconds. By default glibc maps each large array anew and
unmaps it when it is freed, so that the system clears, and the processor faults in, every page for
every clip: reading a record of 18 MB alone took 51 ms of CPU instead of 15.

A program of XLA's on a CPU takes all that it holds between its operations as one buffer: 1.9 GB for
a training step of two 257x257 clips, of whose 16.8 s of CPU 1.2 s were such faults, and 5 s just
after another program had held the memory.

And keeps Python from searching for garbage, again and again, while a program is traced: Cityscapes'
training step leaves 170,000 objects, a quarter of them garbage.
"""

import contextlib
import ctypes
import gc
from collections.abc import Iterator, Mapping
from pathlib import Path

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # more is refused
_NEVER = -1  # the largest size
_GROWTH = 64 * 2**20
_ACCELERATORS = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg", "accel[0-9]*", "vfio/[0-9]*")
_KEEPING = {_M_TRIM_THRESHOLD: _NEVER, _M_TOP_PAD: _GROWTH}


def keep_freed_memory() -> bool:
    """Tells the C library to keep what is freed for later; for the whole process, and for good.

    Returns:
        Whether the library is glibc and has taken it; elsewhere nothing is changed.
    """
    return _set({_M_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, **_KEEPING})


def keep_freed_buffers() -> bool:
    """The same for buffers of any size and of every thread, which then share one heap.

    Only threads that start afterwards share it: before JAX has looked for its devices. It is for
    programs on a CPU; beside an accelerator, where many threads feed it, it was never measured.
    """
    return _set({_M_MMAP_MAX: 0, _M_ARENA_MAX: 1, **_KEEPING})


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Python does not search for garbage within, which takes longer the more there is."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def computes_on_cpu(platforms: str | None, dev: Path = Path("/dev")) -> bool:
    """Whether JAX will find no accelerator, told before it looks.

    Args:
        platforms: those that JAX_PLATFORMS asks for, if it is set; JAX takes the first one.
        dev: the system's devices: of GPUs from NVIDIA or AMD, and of TPUs.
    """
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(any(dev.glob(name)) for name in _ACCELERATORS)


def _set(settings: Mapping[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018, other libraries have another mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(taken)
