"""Programs that do the same work, side by side: checked, then timed in turns, then put in a table.

A side that belongs to this project must work; a peer that fails is a row that says so.
"""

import ctypes
import dataclasses
import gc
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.harness import Turn, median_cpu, median_ratio, median_wall, take_turns
from tmanet_jax.errors import UserError

_PROCESS = Path("/proc/self")


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


def device_peak_bytes(call: Callable[[], object]) -> int | None:
    """The most that JAX has ever held on the first device, arguments included, a call later."""
    call()
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def jax_peak_bytes(call: Callable[[], object]) -> int | None:
    """Of the device where it counts its memory, or else of the process."""
    if jax.default_backend() == "cpu":
        return host_peak_bytes(call)
    return device_peak_bytes(call)


class Side(NamedTuple):
    """One program.

    Attributes:
        call: does the work once, to its end, and returns numbers that other sides return too.
        measure_peak: calls it and tells the bytes that it needs.
    """

    call: Callable[[], np.ndarray]
    measure_peak: Callable[[Callable[[], object]], int | None] = jax_peak_bytes


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the sides took; the first one is this project's.

    Attributes:
        taken: turns of each side.
        peaks: bytes that each needs, or None.
        failed: peers that did not work, and why.
        difference: the largest between the first side's numbers and another's, relative to the
            largest number.
    """

    taken: Mapping[str, Sequence[Turn]]
    peaks: Mapping[str, int | None]
    failed: Mapping[str, str]
    difference: float

    @property
    def ours(self) -> str:
        """Name of the first side."""
        return next(iter(self.taken))

    def best_peer(self) -> str | None:
        """The fastest of the others."""
        others = [name for name in self.taken if name != self.ours]
        return min(others, key=lambda name: median_wall(self.taken[name])) if others else None

    def times_ours(self, name: str) -> float:
        """Median ratio of a side's seconds to those of the first."""
        return median_ratio(
            [turn.wall for turn in self.taken[name]], [turn.wall for turn in self.taken[self.ours]]
        )

    def ours_in_times_of(self, name: str) -> float:
        """Median ratio of the first side's seconds to those of another."""
        return median_ratio(
            [turn.wall for turn in self.taken[self.ours]], [turn.wall for turn in self.taken[name]]
        )


def compare(
    ours: str, side: Side, peers: Mapping[str, Side], *, turns: int, tolerance: float
) -> Comparison:
    """Checks that all sides return the same, then measures memory and time.

    Args:
        ours: name of this project's side.
        side: that side.
        peers: other programs.
        turns: counted calls of each.
        tolerance: of the difference, relative to the largest number.

    Raises:
        UserError: a peer computes something else.
    """
    reference = side.call()
    working, failed, largest = {ours: side}, {}, 0.0
    peaks = {ours: side.measure_peak(side.call)}
    for name, peer in peers.items():
        try:
            found = peer.call()
            peak = peer.measure_peak(peer.call)
        except Exception as error:  # another program can fail in any way
            failed[name] = f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
            continue
        difference = float(np.abs(found - reference).max() / np.abs(reference).max())
        if not difference <= tolerance:
            raise UserError(
                f"{name!r} computes something else than {ours!r}: they differ by {difference:.1e} "
                f"of the largest number, {tolerance:.0e} is allowed. No time was taken."
            )
        largest, working[name], peaks[name] = max(largest, difference), peer, peak
    calls = {name: each.call for name, each in working.items()}
    # Each has been called twice, but measuring a peak gave its memory back to the system.
    taken = take_turns(calls, turns=turns, warm_up=1)
    return Comparison(taken, peaks, failed, largest)


class Work(NamedTuple):
    """What one call of each side does.

    Attributes:
        flops: floating point operations by formula.
        num_clips: clips, or frames.
        peak_flops: operations a second that the device can do, or None.
    """

    flops: float
    num_clips: int
    peak_flops: float | None


COLUMNS = (
    *("", "s", "quartiles", "CPU s", "calls/s", "clips/s", "TFLOP/s", "MFU"),
    *("memory, MB", "times ours"),
)


def table_rows(comparison: Comparison, work: Work) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` for each side, and one for each peer that failed."""
    rows = []
    for name, turns in comparison.taken.items():
        seconds, peak = median_wall(turns), comparison.peaks[name]
        low, high = quartiles([turn.wall for turn in turns])
        share = "-" if work.peak_flops is None else f"{mfu(seconds, work):.1%}"
        rows.append(
            (
                name,
                f"{seconds:.3g}",
                f"{low:.3g} to {high:.3g}",
                f"{median_cpu(turns):.3g}",
                f"{1 / seconds:.3g}",
                f"{work.num_clips / seconds:.3g}",
                f"{work.flops / seconds / 1e12:.3g}",
                share,
                "-" if peak is None else f"{peak / 1e6:.0f}",
                f"{comparison.times_ours(name):.2f}",
            )
        )
    empty = ("-",) * (len(COLUMNS) - 2)
    return rows + [(name, f"FAILED: {why}", *empty) for name, why in comparison.failed.items()]


def mfu(seconds: float, work: Work) -> float:
    """Share of the device's peak that the formula's operations are; `peak_flops` must be known."""
    assert work.peak_flops is not None
    return work.flops / seconds / work.peak_flops


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third; of a single value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def load_note() -> str:
    """Whether others were working on this machine."""
    return (
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f} processes. Where others work "
        "beside it, only the ratios mean much."
    )


def _status_bytes(name: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
