"""Compiled programs are kept on disk, so that the second start of a run compiles nothing."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache, compiler  # who writes has no public name

DIRECTORY = Path(
    os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/tmanet_jax/compilation")
).expanduser()
MOST_BYTES = 4 * 2**30
"""Some hundred programs of the published networks. jax's own limit needs another package."""


def use_compilation_cache() -> None:
    """Every program is kept, in whichever of a run's processes.

    jax (0.10.2) itself writes those of process 0 alone. On CPUs and TPUs a program's key depends on
    the process besides, so the others would find nothing, ever.
    """
    make_room(DIRECTORY, MOST_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(DIRECTORY))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compiler._cache_write = _write


def compiling(what: str) -> str:
    """What to say before a program is compiled, or read from what earlier starts have kept."""
    return (
        f"Compiling {what}: half a minute or more, unless an earlier start kept it in "
        f"{DIRECTORY} ..."
    )


def make_room(directory: Path, most_bytes: int) -> None:
    """Removes the programs of earlier starts that were not used for longest, beyond a size."""
    with contextlib.suppress(OSError):  # another start does the same, or there is none yet
        files = [(path, path.stat()) for path in directory.iterdir()]
        left = most_bytes
        for path, facts in sorted(files, key=lambda file: -max(file[1].st_atime, file[1].st_mtime)):
            left -= facts.st_size
            if left < 0:
                path.unlink()


def _write(
    cache_key: str,
    compile_time_secs: float,
    module_name: str,
    backend: Any,
    executable: Any,
    host_callbacks: Sequence[Any] = (),
) -> None:
    """What jax does in process 0; from 0.11 on it does not hand over callbacks."""
    if host_callbacks:  # they are addresses within this process
        return
    try:
        compilation_cache.put_executable_and_time(
            cache_key, module_name, executable, backend, int(compile_time_secs)
        )
    except Exception as error:  # of any file system; the program is there all the same
        warnings.warn(f"{module_name} cannot be kept in {DIRECTORY}: {error}", stacklevel=1)
