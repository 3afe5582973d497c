"""`run.py` called in this process: what it says is what a start of its own says, seconds sooner."""

import contextlib
import io
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from unittest import mock

import jax
from jax._src import compilation_cache, compiler

import run
from tests.processes import PROJECT

JAX_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def called(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What `python run.py WORDS` does; an exception is one here, where that prints a trace."""
    argv, out, err = ["run.py", *words], io.StringIO(), io.StringIO()
    with (
        as_before(),
        mock.patch.object(sys, "argv", argv),
        contextlib.chdir(PROJECT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = run.main(argv)
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Gives back what the program sets for its whole process, and keeps the C library's settings.

    Those cannot be given back.
    """
    options = {name: getattr(jax.config, name) for name in JAX_OPTIONS}
    levels = {name: logging.getLogger(name).level for name in ("absl", "asyncio")}
    with (
        mock.patch.object(run, "keep_freed_buffers"),
        mock.patch.object(compiler, "_cache_write", compiler._cache_write),
        mock.patch.object(sys, "unraisablehook", sys.unraisablehook),
    ):
        try:
            yield
        finally:
            for name, value in options.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
