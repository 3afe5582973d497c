"""Where the time of a run goes: the share of steps is what the devices are paid for."""

import contextlib
import enum
import time
from collections.abc import Callable, Iterator


class Part(enum.StrEnum):
    """What a run does at a time, seen from the host.

    Steps run on the devices while the host prepares the next one: a wait for data costs nothing as
    long as steps are in flight, so the share of steps is a lower bound.
    """

    START = "start"
    """Everything before the first step, with its compilation."""
    STEPS = "steps"
    """Handing over steps and waiting for their results, and what is nothing below."""
    DATA = "data"
    """Waiting for a batch."""
    CHECKPOINT = "checkpoint"
    """Copying the state; it is written in the background, so only a wait for that counts."""
    EVALUATION = "evaluation"
    """Scoring, pictures and reports."""


class RunClock:
    """Is in one part at any time, from the moment it is made.

    Args:
        now: seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._part = Part.START
        self._since = now()
        self._seconds = dict.fromkeys(Part, 0.0)
        self._at_last_point = dict(self._seconds)

    def begin_steps(self) -> None:
        """The start is over, if it was not before."""
        if self._part is Part.START:
            self._turn_to(Part.STEPS)

    @contextlib.contextmanager
    def within(self, part: Part) -> Iterator[None]:
        """Counts what happens inside as this part; before the first step, as the start."""
        before = self._part
        if before is Part.START:
            yield
            return
        self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(before)

    def point(self) -> dict[str, float]:
        """Shares of the time since the last point, for the curves; `time/...`, together 1."""
        self._turn_to(self._part)
        spent = {part: self._seconds[part] - self._at_last_point[part] for part in Part}
        self._at_last_point = dict(self._seconds)
        total = sum(spent.values()) or 1.0
        return {f"time/{part}": seconds / total for part, seconds in spent.items()}

    def __str__(self) -> str:
        """One line of the whole run so far."""
        self._turn_to(self._part)
        total = sum(self._seconds.values())
        shares = ", ".join(
            f"{part} {100 * seconds / (total or 1.0):.1f}%"
            for part, seconds in self._seconds.items()
        )
        return f"time:     {total:.0f} s: {shares}"

    def _turn_to(self, part: Part) -> None:
        now = self._now()
        self._seconds[self._part] += now - self._since
        self._part, self._since = part, now
