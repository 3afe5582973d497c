"""A trace of some steps of a run, for TensorBoard or Perfetto."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from tmanet_jax.parallel import distributed

PROFILE_DIR = "profile"
_STEP_NAME = "train"


class StepProfiler:
    """Traces the steps that were asked for; of several processes, in the first one.

    `WORKDIR/profile/plugins/profile/TIME/` gets `*.xplane.pb`, which TensorBoard shows (`pip
    install xprof tensorboard`), and `perfetto_trace.json.gz`, which https://ui.perfetto.dev opens.

    Args:
        workdir: of the run.
        steps: the first and the last one, counted from 1; None: nothing is traced.
        num_steps: of the run, at the latest the last one that is traced.
    """

    def __init__(self, workdir: Path, steps: tuple[int, int] | None, num_steps: int):
        self._directory = workdir / PROFILE_DIR
        wanted = steps if distributed.is_first() else None
        self._steps = None if wanted is None else (wanted[0], min(wanted[1], num_steps))
        self._is_on = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around a step, counted from 1. A run that goes on within the steps traces the rest."""
        if self._steps is None or not self._steps[0] <= number <= self._steps[1]:
            yield
            return
        if not self._is_on:
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
            self._is_on = True
        with jax.profiler.StepTraceAnnotation(_STEP_NAME, step_num=number):
            yield

    def end_after(self, number: int, result: object) -> str | None:
        """Ends the trace if this step was the last of it.

        Args:
            number: of the step, from 1.
            result: of the step; it is waited for.

        Returns:
            Where the trace is, as a message, if it has just ended.
        """
        if not self._is_on or self._steps is None or number < self._steps[1]:
            return None
        jax.block_until_ready(result)
        self.close()
        return f"trace of steps {self._steps[0]} to {self._steps[1]}: {self._directory}/"

    def close(self) -> None:
        """Ends a trace that is on."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
