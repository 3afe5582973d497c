"""How things are measured: sides are checked, take turns, and become rows of a table.

Machines are shared and their speed drifts, so the sides of a race run in turns in one process, and
what is quoted is the median of each side and the median of the ratios turn by turn. A side that
belongs to this project must work; a rival that fails is a row that says so.
"""

import ctypes
import dataclasses
import functools
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from tmanet_jax.errors import UserError

_PROCESS = Path("/proc/self")


class Turn(NamedTuple):
    """What one call of a side took, in seconds: by the clock, and of all CPU threads together."""

    wall: float
    cpu: float


def take_turns(
    calls: Mapping[str, Callable[[], object]], *, turns: int, warm_up: int = 1
) -> dict[str, list[Turn]]:
    """Makes the calls one after the other, again and again; each must finish its work.

    Args:
        calls: by name.
        turns: counted ones of each.
        warm_up: of each, before those.
    """
    for _ in range(warm_up):
        for call in calls.values():
            call()
    taken: dict[str, list[Turn]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return taken


def median_wall(turns: Sequence[Turn]) -> float:
    """Median of the seconds by the clock."""
    return statistics.median(turn.wall for turn in turns)


def median_cpu(turns: Sequence[Turn]) -> float:
    """Median of the CPU seconds."""
    return statistics.median(turn.cpu for turn in turns)


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios turn by turn."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))


def host_peak_bytes(call: Callable[[], object]) -> int | None:
    """What a call adds to this process's memory at its highest; None where Linux is not there.

    What freed memory the allocator keeps is given back before; what the call finds in use (weights,
    state, batch) is not counted.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")  # the highest mark falls to what is in use
        before = _status_bytes("VmRSS")
    except (OSError, AttributeError):  # no such file, or no such function
        call()
        return None
    call()
    return _status_bytes("VmHWM") - before


def jax_peak_bytes(call: Callable[[], object]) -> int | None:
    """The most that JAX has ever held on the first device, arguments included, a call later.

    On a CPU, which does not count it, what the call adds to the process.
    """
    if jax.default_backend() == "cpu":
        return host_peak_bytes(call)
    call()
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _status_bytes(name: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


class Side(NamedTuple):
    """One program.

    Attributes:
        call: does the work once, to its end, and returns arrays that other sides return too.
        measure_peak: calls it and tells the bytes that it needs.
    """

    call: Callable[[], Sequence[Any]]
    measure_peak: Callable[[Callable[[], object]], int | None] = jax_peak_bytes


class TorchWay(NamedTuple):
    """A way to run a network in PyTorch.

    Attributes:
        compiler: "eager"; "inductor", `torch.compile`, which needs a C++ compiler on a CPU; or
            "traced" (`torch_run.compiled`).
        read: of the memory, one of `torch_network.READS`.
        is_folded: whether batch norm becomes part of the convolutions.
        channels_last: memory format of weights and activations.
        autocast: bfloat16 if the settings ask for it.
    """

    compiler: Literal["eager", "inductor", "traced"] = "eager"
    read: Literal["whole", "chunks", "fused"] = "fused"
    is_folded: bool = True
    channels_last: bool = True
    autocast: bool = True


def made_late(make: Callable[[], Callable[[], Sequence[Any]]]) -> Callable[[], Sequence[Any]]:
    """A side's call that is made when it is first called: one that cannot be made fails alone."""
    made = functools.cache(make)
    return lambda: made()()


@dataclasses.dataclass(frozen=True)
class Race:
    """What the sides took; the first one is this project's.

    Attributes:
        taken: turns of each side.
        peaks: bytes that each needs, or None.
        failed: rivals that did not work, and why.
        difference: the largest between an array of the first side and another's, relative to the
            array's largest number.
    """

    taken: Mapping[str, Sequence[Turn]]
    peaks: Mapping[str, int | None]
    failed: Mapping[str, str]
    difference: float

    @property
    def ours(self) -> str:
        """Name of the first side."""
        return next(iter(self.taken))

    @property
    def seconds(self) -> float:
        """Median of the first side."""
        return median_wall(self.taken[self.ours])

    def best_rival(self) -> str | None:
        """The fastest of the others."""
        others = [name for name in self.taken if name != self.ours]
        return min(others, key=lambda name: median_wall(self.taken[name])) if others else None

    def ratio(self, numerator: str, denominator: str) -> float:
        """Median ratio of a side's seconds to those of another."""
        above, below = (
            [turn.wall for turn in self.taken[side]] for side in (numerator, denominator)
        )
        return median_ratio(above, below)


def race(
    ours: str,
    side: Side,
    rivals: Mapping[str, Side],
    *,
    turns: int,
    tolerance: float,
    checks: int = 1,
) -> Race:
    """Checks that all sides return the same, then measures memory and time.

    Args:
        ours: name of this project's side.
        side: that side.
        rivals: other programs, or other ways of this one.
        turns: counted calls of each.
        tolerance: of the difference.
        checks: calls that are compared; a side may go on to other work at each.

    Raises:
        UserError: a rival computes something else.
    """
    expected = [side.call() for _ in range(checks)]
    working, failed, largest = {ours: side}, {}, 0.0
    peaks = {ours: side.measure_peak(side.call)}
    for name, rival in rivals.items():
        try:
            found = [rival.call() for _ in range(checks)]
            peak = rival.measure_peak(rival.call)
        except Exception as error:  # another program can fail in any way
            failed[name] = f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
            continue
        difference = largest_difference(found, expected)
        if not difference <= tolerance:
            raise UserError(
                f"{name!r} computes something else than {ours!r}: they differ by {difference:.1e} "
                f"of the largest number, {tolerance:.0e} is allowed. No time was taken."
            )
        largest, working[name], peaks[name] = max(largest, difference), rival, peak
    calls = {name: each.call for name, each in working.items()}
    # Each has been called twice, but measuring a peak gave its memory back to the system.
    return Race(take_turns(calls, turns=turns), peaks, failed, largest)


def largest_difference(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> float:
    """Of the arrays of some calls, each relative to the largest number that is expected of it."""
    pairs = [
        (np.asarray(got, np.float32), np.asarray(right, np.float32))
        for of_call, rights in zip(found, expected, strict=True)
        for got, right in zip(of_call, rights, strict=True)
    ]
    return float(np.max([np.abs(got - right).max() / np.abs(right).max() for got, right in pairs]))


class Work(NamedTuple):
    """What one call of each side does.

    Attributes:
        flops: floating point operations that it needs (`flops.py`).
        num_clips: clips, or frames.
        peak_flops: operations a second that the device can do, or None.
    """

    flops: float
    num_clips: int
    peak_flops: float | None


def columns(item: str = "clips") -> list[str]:
    """Of `table_rows`."""
    return [
        "",
        "s",
        "quartiles",
        "CPU s",
        f"{item}/s",
        "TFLOP/s",
        "MFU",
        "memory, MB",
        "times ours",
    ]


def table_rows(found: Race, work: Work) -> list[Sequence[str]]:
    """A row of `columns` for each side, and one for each rival that failed."""
    rows: list[Sequence[str]] = []
    for name, turns in found.taken.items():
        seconds, peak = median_wall(turns), found.peaks[name]
        low, high = quartiles([turn.wall for turn in turns])
        speed = work.flops / seconds
        rows.append(
            (
                name,
                f"{seconds:.3g}",
                f"{low:.3g} to {high:.3g}",
                f"{median_cpu(turns):.3g}",
                f"{work.num_clips / seconds:.3g}",
                f"{speed / 1e12:.3g}",
                "-" if work.peak_flops is None else f"{speed / work.peak_flops:.1%}",
                "-" if peak is None else f"{peak / 1e6:.0f}",
                f"{found.ratio(name, found.ours):.2f}",
            )
        )
    empty = ("-",) * (len(columns()) - 2)
    return rows + [(name, f"FAILED: {why}", *empty) for name, why in found.failed.items()]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third; of a single value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third
