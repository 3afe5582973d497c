"""Where the time of a program goes on a device: a trace, and the kernels in it as a table."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
from jax.profiler import ProfileData

from benchmarks.findings import Findings

MOST_ROWS = 30
_NAME_LENGTH = 90

_LINES = {"gpu": ("/device:GPU", "Stream"), "cpu": ("/host:CPU", "tf_XLA")}
"""How the names of a trace's planes begin whose lines, with such names, are of a device's work."""

Kernel = tuple[str, float]
"""Name and seconds of one of its calls."""


def measure(call: Callable[[], object], calls: int, folder: Path) -> Findings:
    """Traces calls, and keeps the trace: `perfetto_trace.json.gz` is for https://ui.perfetto.dev.

    Args:
        call: does its work to the end; it has been compiled.
        calls: that many.
        folder: of the trace.
    """
    with jax.profiler.trace(folder, create_perfetto_trace=True):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        seconds = (time.perf_counter() - began) / calls
    trace = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    rows, busy = table(kernels_of(ProfileData.from_file(str(trace))), calls)
    return Findings(
        title=f"Kernels of a call, {1e3 * seconds:.1f} ms by the clock",
        columns=("kernel", "calls", "ms", "share"),
        rows=rows,
        notes=(
            f"Of {calls} calls; {1e3 * busy:.1f} ms of each in kernels, all streams together; the "
            f"{MOST_ROWS} largest are listed.",
            f"The trace: {trace.parent}.",
        ),
    )


def kernels_of(trace: ProfileData) -> Iterator[Kernel]:
    """What the device did."""
    of_plane, of_line = _LINES[jax.default_backend()]
    for plane in trace.planes:
        if plane.name.startswith(of_plane):
            for line in plane.lines:
                if line.name.startswith(of_line):
                    yield from ((event.name, event.duration_ns / 1e9) for event in line.events)


def table(kernels: Iterable[Kernel], calls: int) -> tuple[list[Sequence[str]], float]:
    """The kernels by the time of all their calls, the largest first; and the time of all."""
    taken: defaultdict[str, float] = defaultdict(float)
    count = Counter[str]()
    for name, seconds in kernels:
        taken[name] += seconds
        count[name] += 1
    total = sum(taken.values())
    rows: list[Sequence[str]] = [
        (
            name[:_NAME_LENGTH].replace("|", "/"),
            f"{count[name] / calls:.3g}",
            f"{1e3 * seconds / calls:.3g}",
            f"{seconds / total:.1%}",
        )
        for name, seconds in sorted(taken.items(), key=lambda item: -item[1])[:MOST_ROWS]
    ]
    return rows, total / calls
