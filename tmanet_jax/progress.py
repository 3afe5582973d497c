"""How far a long loop is: a bar on a terminal, and a line now and then in a file or a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_T = TypeVar("_T")
_LINE_EVERY_S = 30.0


def pace(done: int, seconds: float, left: int | None, unit: str) -> str:
    """What a loop did in some time, and how long the rest takes: ", 4.1 frames/s, 01:57 left".

    Args:
        done: rounds in that time; 0: nothing is known, and nothing said.
        seconds: the time.
        left: rounds; None: nobody knows.
        unit: what a round does one of.
    """
    if not done or seconds <= 0:
        return ""
    rest = "" if left is None else f", {tqdm.format_interval(left * seconds / done)} left"
    return f", {done / seconds:.3g} {unit}s/s{rest}"


class ProgressBar:
    """A bar on a terminal; elsewhere a line on stderr every half minute. A context manager.

    The first round compiles: the speed in a line does not count it.

    Args:
        title: what is done.
        unit: what a round does one of, such as "frame".
        total: rounds, where they are known.
        is_shown: whether it says anything.
        stays: whether the bar stays when it is full.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        title: str,
        unit: str,
        total: int | None = None,
        *,
        is_shown: bool = True,
        stays: bool = True,
        now: Callable[[], float] = time.monotonic,
    ):
        self._title, self._unit, self._total, self._now = title, unit, total, now
        self._bar: tqdm[None] = tqdm(
            total=total, desc=title, unit=unit, leave=stays, disable=None if is_shown else True
        )
        self._writes_lines = is_shown and self._bar.disable
        self._skipped = self._done = self._first = 0
        self._since = self._told = 0.0

    def skip(self, count: int) -> None:
        """Rounds that were done before, by an earlier start."""
        self._skipped += count
        self._bar.n, self._bar.initial = self._bar.n + count, self._skipped
        self._bar.refresh()

    def update(self, count: int = 1) -> None:
        """Another round is done, or several."""
        self._bar.update(count)
        now, is_first = self._now(), not self._done
        self._done += count
        if is_first:
            self._since, self._told, self._first = now, now, self._done
        elif self._writes_lines and now - self._told >= _LINE_EVERY_S:
            self._told = now
            tqdm.write(self._line(now), file=sys.stderr)

    def _line(self, now: float) -> str:
        done = self._skipped + self._done
        of, left = ("", None) if self._total is None else (f" of {self._total}", self._total - done)
        speed = pace(self._done - self._first, now - self._since, left, self._unit)
        return f"{self._title}: {self._unit} {done}{of}{speed}"

    def close(self) -> None:
        """The loop has ended."""
        self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_progress(
    items: Iterable[_T],
    title: str,
    unit: str,
    total: int,
    *,
    is_shown: bool = True,
    stays: bool = True,
) -> Iterator[_T]:
    """Each of some items, `total` of them; told as `ProgressBar` does."""
    with ProgressBar(title, unit, total, is_shown=is_shown, stays=stays) as bar:
        for item in items:
            yield item
            bar.update()
