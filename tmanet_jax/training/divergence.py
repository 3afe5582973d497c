"""A training that diverges: losses and weights that are not finite, steps skipped, what is safe."""

import collections
import math

import jax
import numpy as np
import optax

from tmanet_jax.checkpoints.store import Checkpoints
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.data.samples import Batch
from tmanet_jax.errors import UserError, counted
from tmanet_jax.training.logs import RunLog
from tmanet_jax.training.step import StepMetrics, TrainState


class LossWatch:
    """Looks at each step's loss two steps later, so that the device never waits for the host.

    Args:
        records: names the clips of a bad batch.
        checkpoints: says what is safe when a run must stop.
        schedule: learning rate of a step.
        log: takes the curves.
        max_skipped: steps that are not finite and that the program has skipped; one more stops.
    """

    _LAG = 2

    def __init__(
        self,
        records: ClipRecords,
        checkpoints: Checkpoints,
        schedule: optax.Schedule,
        log: RunLog,
        max_skipped: int,
    ):
        self._records = records
        self._checkpoints = checkpoints
        self._schedule = schedule
        self._log = log
        self._max_skipped = max_skipped
        self._num_skipped = 0
        self._skipped_since: int | None = None
        self._pending: collections.deque[tuple[int, np.ndarray, StepMetrics]] = collections.deque()
        self._newest: tuple[int, StepMetrics] | None = None
        self._checked = 0

    def add(self, step: int, batch: Batch, metrics: StepMetrics) -> None:
        """Takes the metrics of a step (from 0) and checks those of an earlier one."""
        self._pending.append((step, batch.indices, metrics))
        if len(self._pending) > self._LAG:
            self._check_oldest()

    @property
    def num_skipped_last(self) -> int:
        """How many of the newest checked steps, one after the other, were skipped.

        They changed no weights: these may be lost already, and are no checkpoint to go on from.
        """
        return 0 if self._skipped_since is None else self._checked - self._skipped_since

    def check_all(self) -> None:
        """Waits for every step so far.

        Raises:
            UserError: a loss or a gradient is not finite, and no more steps may be skipped.
        """
        while self._pending:
            self._check_oldest()

    def may_be_saved(self, state: TrainState, done: int, *, is_last: bool) -> bool:
        """Whether a step gets a checkpoint: what skipped steps leave may be lost already.

        Args:
            state: after the step.
            done: steps so far; waits for all of them.
            is_last: the run ends with this step, which is saved in any case.

        Raises:
            UserError: a loss, a gradient or a weight is not finite.
        """
        self.check_all()
        if self.num_skipped_last:
            said = counted(self.num_skipped_last, "skipped step")
            if not is_last:
                self._log.message(f"No checkpoint after step {done}, which ends {said}.")
                return False
            self._log.message(f"The run ends with {said}: its last weights are those before.")
        if not _is_finite(state):
            raise UserError(
                f"The weights after step {done} are not finite: this training has failed, and "
                f"nothing of the step is saved. The newest checkpoint is {self._newest_saved()}. "
                "Lower config.optimizer.learning_rate, and look at the first steps in train.log."
            )
        return True

    def log_newest(self) -> str:
        """Waits for every step so far and logs the newest that is finite; a short text of it.

        Steps are counted from 1 in what people read.
        """
        self.check_all()
        if self._newest is None:
            return ""
        step, metrics = self._newest
        loss, accuracy = float(metrics.losses.total), float(metrics.losses.accuracy)
        rate = float(self._schedule(step))
        self._log.scalars(
            step + 1,
            {
                "train/loss": loss,
                "train/loss_main": float(metrics.losses.main),
                "train/loss_aux": float(metrics.losses.aux),
                "train/accuracy": accuracy,
                "train/grad_norm": float(metrics.grad_norm),
                "train/learning_rate": rate,
            },
        )
        return f"loss {loss:.3f}, accuracy {accuracy:.3f}, rate {rate:.3g}"

    def _check_oldest(self) -> None:
        step, indices, metrics = self._pending.popleft()
        self._checked = step + 1
        loss, grad_norm = float(metrics.losses.total), float(metrics.grad_norm)
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self._newest = (step, metrics)
            self._skipped_since = None
            return
        if self._skipped_since is None:
            self._skipped_since = step
        clip_ids = ", ".join(self._records.clip_id(int(index)) for index in indices)
        found = (
            f"Step {step + 1}: the loss is {loss} and the gradient's norm {grad_norm}, with "
            f"the clips {clip_ids}."
        )
        if self._num_skipped == self._max_skipped:
            raise UserError(f"{found} {self._what_is_safe(self._skipped_since)}")
        self._num_skipped += 1
        self._log.message(f"{found} Skipped: {self._num_skipped} of at most {self._max_skipped}.")

    def _what_is_safe(self, first: int) -> str:
        """Of the steps from `first` (from 0) to the newest, none was finite."""
        if self.num_skipped_last == 1:
            return (
                f"Nothing of this step was saved; the newest checkpoint is {self._newest_saved()}. "
                "Look at these clips, lower config.optimizer.learning_rate, or have a few such "
                f"steps skipped (config.max_skipped_steps, now {self._max_skipped})."
            )
        aside = self._checkpoints.set_lost_aside(first)
        kept = "" if aside is None else f" Its checkpoint is not used, and kept as {aside}."
        return (
            f"So were all {self.num_skipped_last} steps since step {first + 1}, whatever their "
            f"clips: the network of step {first} was lost already.{kept} The newest checkpoint "
            f"is {self._newest_saved()}: the next start goes on from there. Lower "
            "config.optimizer.learning_rate, or more such steps would be skipped in vain "
            f"(config.max_skipped_steps, now {self._max_skipped})."
        )

    def _newest_saved(self) -> str:
        newest = self._checkpoints.newest_in_directory()
        return "none" if newest is None else f"of step {newest}"


def _is_finite(state: TrainState) -> bool:
    """Whether all weights are, which the next step's loss would have shown."""
    arrays = (leaf.addressable_data(0) for leaf in jax.tree.leaves(state.network))
    return all(np.isfinite(np.asarray(array)).all() for array in arrays)
