"""`run.py` called in this process: what it says is what a start of its own says, seconds sooner."""

import contextlib
import io
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from unittest import mock

import run
from tests.processes import PROJECT
from tmanet_jax import compilation_cache
from tmanet_jax.parallel import distributed


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

    Those cannot be given back. Compiled programs are kept already, by `tests/conftest.py`.
    """
    levels = {name: logging.getLogger(name).level for name in ("absl", "asyncio")}
    with (
        mock.patch.object(run, "keep_freed_buffers"),
        mock.patch.object(compilation_cache, "use_compilation_cache"),
        mock.patch.object(distributed, "tell_news"),
        mock.patch.object(sys, "unraisablehook", sys.unraisablehook),
    ):
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
