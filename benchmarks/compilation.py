"""How long a program takes to compile, first and from the cache, and what the compiler counts."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental.compilation_cache import compilation_cache


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A program that is ready to run.

    Attributes:
        program: takes the arguments that it was lowered for.
        cold: seconds to trace and compile it.
        warm: seconds to trace it and to read it from the persistent cache, as at a second start.
        flops: operations a call as the compiler counts them, a loop's body once; None if it does
            not.
    """

    program: jax.stages.Compiled
    cold: float
    warm: float
    flops: float | None

    def told(self, name: str, formula: float) -> str:
        """A sentence for a report; `formula` is the number of operations by formula."""
        counted = "does not count its operations"
        if self.flops:
            counted = (
                f"counts {self.flops / 1e12:.4g} TFLOP, {self.flops / formula:.3f} times the "
                "formula's (it counts a loop's body once: the memory read is a loop)"
            )
        return (
            f"{name}: {formula / 1e12:.4g} TFLOP by formula; the compiler {counted}. Tracing and "
            f"compiling took {self.cold:.1f} s, {self.warm:.1f} s with the compilation cache."
        )


def compile_twice(lower: Callable[[], jax.stages.Lowered]) -> Compilation:
    """Compiles with an empty cache on disk, and then once more with what is there.

    Args:
        lower: traces the program; called twice.
    """
    with _empty_cache():
        start = time.perf_counter()
        program = lower().compile()
        cold = time.perf_counter() - start
        jax.clear_caches()
        start = time.perf_counter()
        lower().compile()
        warm = time.perf_counter() - start
    costs = program.cost_analysis()
    return Compilation(program, cold, warm, costs.get("flops") if costs else None)


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A persistent cache of its own, everything is kept in it; the old one is back afterwards."""
    with tempfile.TemporaryDirectory(prefix="compilation-") as directory:
        wanted = {
            "jax_compilation_cache_dir": directory,
            "jax_persistent_cache_min_compile_time_secs": 0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        before = {name: getattr(jax.config, name) for name in wanted}
        _configure(wanted)
        try:
            yield
        finally:
            _configure(before)


def _configure(values: dict[str, object]) -> None:
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
