"""Being told to stop: by a scheduler that wants the machine (SIGTERM), or by Ctrl-C (SIGINT)."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Notices SIGTERM and SIGINT instead of ending at once; a context of the main thread.

    A second signal of the same kind ends the process as if this were not here.

    Several processes stop after the same step, whichever of them was told: JAX's preemption service
    has them agree on one. It listens to SIGTERM itself; SIGINT is passed on to it.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._is_one_of_several = jax.distributed.is_initialized()

    @property
    def number(self) -> signal.Signals:
        """The signal that was received; SIGTERM if another process received one."""
        return self._received or signal.SIGTERM

    def stops_before(self, step: int) -> bool:
        """Whether the run must stop now; to be asked before each step, by every process.

        Args:
            step: done so far.
        """
        if self._is_one_of_several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received is not None

    def stops_now(self) -> bool:
        """Whether a run of one process must stop, between two steps; several never do."""
        return self._received is not None and not self._is_one_of_several

    def __enter__(self) -> "StopSignals":
        handled = [signal.SIGINT] if self._is_one_of_several else [signal.SIGINT, signal.SIGTERM]
        self._before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = signal.Signals(number)
        signal.signal(number, self._before[self._received])
        if self._is_one_of_several:
            signal.raise_signal(signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
