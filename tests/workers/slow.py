"""`run.py`, compiling its first large program for longer than it takes.

python -m tests.workers.slow SECONDS run.py FLAGS...
"""

import sys
import time
from typing import Any

import jax
from jax._src import compiler

import run

LARGE = "jit_traced"
"""Name of a step, and of a segmenter (`sharding.on_mesh`)."""


def main(seconds: float, argv: list[str]) -> int:
    """The exit status of `run.py`."""
    backend_compile, left = compiler.backend_compile_and_load, [seconds]

    def compile_slowly(backend: Any, module: Any, *args: Any) -> Any:
        if LARGE in str(module.operation.attributes["sym_name"]) and left:
            time.sleep(left.pop())
        return backend_compile(backend, module, *args)

    compiler.backend_compile_and_load = compile_slowly
    jax.config.update("jax_enable_compilation_cache", False)
    return run.main(argv)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
