"""Freed memory is kept: an array of megabytes is not paged in anew each time."""

import subprocess
import sys

PROGRAM = """
import resource, numpy as np
from tmanet_jax.data.allocator import keep_freed_memory

def faults(turns):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(turns):
        np.ones(12 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

is_kept = keep_freed_memory()
faults(2)
print(is_kept, faults(20))
"""


def test_pages_are_faulted_in_once():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"NUMPY_MADVISE_HUGEPAGE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    is_kept, faults = done.stdout.split()
    assert is_kept == str(sys.platform == "linux")
    assert is_kept == "False" or int(faults) < 100  # 20 x 3072 pages if they were given back
