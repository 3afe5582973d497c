"""Freed memory is kept: an array of megabytes is not paged in anew each time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tmanet_jax.allocator import computes_on_cpu

PROGRAM = """
import resource, threading, numpy as np
from tmanet_jax import allocator

def touch(turns):
    for _ in range(turns):
        np.ones({size}, np.uint8)

def faults(turns):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=touch, args=[turns])
    thread.start() if {in_thread} else touch(turns)
    thread.join() if {in_thread} else None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

is_kept = allocator.{keep}()
faults(2)
print(is_kept, faults(20))
"""


@pytest.mark.parametrize(
    ("keep", "megabytes", "in_thread"),
    [
        ("keep_freed_memory", 12, False),
        ("keep_freed_buffers", 12, False),
        ("keep_freed_buffers", 200, True),
    ],
)
def test_pages_are_faulted_in_once(keep: str, megabytes: int, in_thread: bool) -> None:
    program = PROGRAM.format(keep=keep, size=megabytes * 2**20, in_thread=in_thread)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"NUMPY_MADVISE_HUGEPAGE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    is_kept, faults = done.stdout.split()
    assert is_kept == str(sys.platform == "linux")
    assert is_kept == "False" or int(faults) < 100  # 20 x 3072 pages if they were given back


@pytest.mark.parametrize(
    ("platforms", "device", "on_cpu"),
    [
        (None, "null", True),
        (None, "nvidia0", False),
        ("", "kfd", False),
        ("", "vfio/0", False),
        ("cpu", "nvidia0", True),
        ("cuda,cpu", "null", False),
    ],
)
def test_what_jax_will_compute_on_is_told_before_it_looks(
    tmp_path: Path, platforms: str | None, device: str, on_cpu: bool
) -> None:
    (tmp_path / device).parent.mkdir(exist_ok=True)
    (tmp_path / device).touch()
    assert computes_on_cpu(platforms, tmp_path) is on_cpu


def test_what_is_loaded_is_not_searched_for_garbage() -> None:
    program = (
        "import gc; from tmanet_jax.program import loading\n"
        "with loading():\n    import jax; assert not gc.isenabled()\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
        "with loading():\n    assert gc.isenabled()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]
    assert done.stderr.startswith("Loading jax")
