"""The losses of a run: logged, and watched for one that is not finite."""

import collections
import math

import numpy as np
import optax

from tmanet_jax.checkpoints import Checkpoints
from tmanet_jax.data.pipeline import Batch
from tmanet_jax.data.records import ClipSource
from tmanet_jax.errors import UserError
from tmanet_jax.train.logs import RunLog
from tmanet_jax.train.step import StepMetrics


class LossWatch:
    """Looks at each step's loss two steps later, so that the device never waits for the host.

    Args:
        source: names the clips of a bad batch.
        checkpoints: says what is safe when a run must stop.
        schedule: learning rate of a step.
        log: takes the curves.
        max_skipped: steps that are not finite and that the program has skipped; one more stops.
    """

    _LAG = 2

    def __init__(
        self,
        source: ClipSource,
        checkpoints: Checkpoints,
        schedule: optax.Schedule,
        log: RunLog,
        max_skipped: int,
    ):
        self._source = source
        self._checkpoints = checkpoints
        self._schedule = schedule
        self._log = log
        self._max_skipped = max_skipped
        self._num_skipped = 0
        self._pending: collections.deque[tuple[int, np.ndarray, StepMetrics]] = collections.deque()
        self._newest: tuple[int, StepMetrics] | None = None

    def add(self, step: int, batch: Batch, metrics: StepMetrics) -> None:
        """Takes the metrics of a step (from 0) and checks those of an earlier one."""
        self._pending.append((step, batch.indices, metrics))
        if len(self._pending) > self._LAG:
            self._check_oldest()

    def check_all(self) -> None:
        """Waits for every step so far.

        Raises:
            UserError: a loss or a gradient is not finite, and no more steps may be skipped.
        """
        while self._pending:
            self._check_oldest()

    def log_newest(self) -> str:
        """Waits for every step so far and logs the newest that is finite; a short text of it.

        Steps are counted from 1 in what people read.
        """
        self.check_all()
        if self._newest is None:
            return ""
        step, metrics = self._newest
        loss, rate = float(metrics.losses.total), float(self._schedule(step))
        self._log.scalars(
            step + 1,
            {
                "train/loss": loss,
                "train/loss_main": float(metrics.losses.main),
                "train/loss_aux": float(metrics.losses.aux),
                "train/accuracy": float(metrics.losses.accuracy),
                "train/grad_norm": float(metrics.grad_norm),
                "train/learning_rate": rate,
            },
        )
        return f"loss {loss:.3f}, lr {rate:.4f}"

    def _check_oldest(self) -> None:
        step, indices, metrics = self._pending.popleft()
        loss, grad_norm = float(metrics.losses.total), float(metrics.grad_norm)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            clip_ids = ", ".join(self._source.clip_id(int(index)) for index in indices)
            newest = self._checkpoints.latest_step()
            found = (
                f"Step {step + 1}: the loss is {loss} and the gradient's norm {grad_norm}, with "
                f"the clips {clip_ids}."
            )
            if self._num_skipped < self._max_skipped:
                self._num_skipped += 1
                self._log.message(
                    f"{found} Skipped: {self._num_skipped} of at most {self._max_skipped}."
                )
                return
            raise UserError(
                f"{found} Nothing of this step was saved; the newest checkpoint is "
                f"{'none' if newest is None else f'of step {newest}'}. Look at these clips, "
                "lower config.optimizer.learning_rate, or have a few such steps skipped "
                f"(config.max_skipped_steps, now {self._max_skipped})."
            )
        self._newest = (step, metrics)
