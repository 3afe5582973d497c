"""What a run tells: its log and curves, how far it is, where its time goes, traces of steps."""

import contextlib
import enum
import json
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import jax
import numpy as np
from tqdm import tqdm

from tmanet_jax.compilation_cache import compiling
from tmanet_jax.errors import UserError
from tmanet_jax.parallel import distributed
from tmanet_jax.progress import pace
from tmanet_jax.scoring.evaluate import Evaluation
from tmanet_jax.training.loggers import LOGGERS
from tmanet_jax.workdir import RunDescription

PROFILE_DIR = "profile"
_STEP_NAME = "train"

OnMetrics = Callable[[int, Mapping[str, float]], object]
"""Given a step and its metrics by name; True ends the training."""


class RunLog:
    """Log of one run; a context manager.

    Writes `train.log` in the workdir, and to the loggers. Messages also go to the terminal, above
    the progress bar. Of several processes the first one writes, and the others do nothing here.

    Args:
        workdir: of the run.
        first_step: where the run begins.
        to: names of loggers.
        on_metrics: called in every process with a step and what is told of it, by name.

    Attributes:
        stops: whether it has returned True.
    """

    def __init__(
        self,
        workdir: Path,
        first_step: int,
        to: Sequence[str] = ("tensorboard",),
        on_metrics: OnMetrics | None = None,
    ):
        self.stops = False
        self._on_metrics = on_metrics
        self._logger = logging.getLogger(f"tmanet_jax.run.{workdir}")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._workdir, self._writes = workdir, distributed.is_first()
        self._file = (
            logging.FileHandler(workdir / "train.log") if self._writes else logging.NullHandler()
        )
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logger.addHandler(self._file)
        self._loggers = [LOGGERS[name](workdir, first_step) for name in to if self._writes]

    def message(self, text: str) -> None:
        """To the terminal and the file."""
        distributed.tell(text)
        self._logger.info(text)

    def description(self, description: RunDescription) -> None:
        """What the run is: to the file and, with its configuration, to the loggers."""
        self._logger.info("%s", description)
        content = json.dumps(description.to_json(), indent=2)
        for logger in self._loggers:
            logger.text("run", f"```json\n{content}\n```")

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """To the loggers."""
        for logger in self._loggers:
            logger.scalars(step, values)

    def line(self, text: str) -> None:
        """To the file."""
        self._logger.info(text)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """To the curves and to who listens.

        Raises:
            UserError: the workdir was removed, so that nothing of the run can be saved.
        """
        if self._writes and not self._workdir.is_dir():
            raise UserError(
                f"The workdir {self._workdir} was removed; the run had come to step {step}. "
                "Nothing of it is left: start it again."
            )
        self.curves(step, values)
        if self._on_metrics is not None and self._on_metrics(step, values):
            self.stops = True

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        """RGB uint8, to the loggers."""
        for logger in self._loggers:
            logger.picture(step, name, picture_HxWx3)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """The scores after a step, everywhere, and the clips to show."""
        overall = evaluation.overall
        self.scalars(
            step,
            {
                "eval/mIoU": overall.mean_iou,
                "eval/mAcc": overall.mean_accuracy,
                "eval/aAcc": overall.all_accuracy,
                "eval/mDice": overall.mean_dice,
                **{f"eval/mIoU_{name}": g.mean_iou for name, g in evaluation.groups.items()},
            },
        )
        of_classes = zip(evaluation.classes.names, overall.iou_C.tolist(), strict=True)
        self.curves(step, {f"IoU/{name}": iou for name, iou in of_classes if math.isfinite(iou)})
        for clip_id, picture_HxWx3 in evaluation.overlays.items():
            self.picture(step, f"prediction/{clip_id}", picture_HxWx3)
        self.message(f"step {step}: mIoU {100 * overall.mean_iou:.2f}")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._logger.error("stopped: %s: %s", type(error).__name__, error)
        for logger in self._loggers:
            logger.close()
        self._logger.removeHandler(self._file)
        self._file.close()


class Progress:
    """Steps that are done, and how long the rest takes; a context manager.

    The first step compiles: it counts for neither rate nor remaining time. Where the output is no
    terminal (a file, a container's log), `point` prints a line instead of the bar. Of several
    processes the first one does all this.

    Args:
        first: steps done before.
        total: steps in the end.
    """

    def __init__(self, first: int, total: int):
        self._first, self._total = first, total
        self._bar: tqdm | None = None
        self._since: float | None = None
        self._is_shown = distributed.is_first()
        self._is_terminal = sys.stderr.isatty()
        if self._is_shown and first < total:
            tqdm.write(compiling("the training step"), file=sys.stderr)

    def step(self, done: int) -> None:
        """Another step is done."""
        if self._since is None:
            self._since, self._first = time.monotonic(), done
            if self._is_shown and self._is_terminal:
                self._bar = tqdm(total=self._total, initial=done, desc="train", unit="step")
        elif self._bar is not None:
            self._bar.update()

    def point(self, done: int, text: str) -> str:
        """Shows what a step's losses say; returns it as a line with the speed and the time left."""
        line = f"step {done} of {self._total}: {text}{self._speed(done)}"
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._is_shown:
            print(line, flush=True)
        return line

    def _speed(self, done: int) -> str:
        if self._since is None:
            return ""
        seconds = time.monotonic() - self._since
        return pace(done - self._first, seconds, self._total - done, "step")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


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
        self._num_clips = 0

    def step_done(self, num_clips: int) -> None:
        """Another step is handed over; with the first one, which compiles, the start is over."""
        if self._part is Part.START:
            self._turn_to(Part.STEPS)
        else:
            self._num_clips += num_clips

    @contextlib.contextmanager
    def within(self, part: Part) -> Iterator[None]:
        """Counts what happens inside as this part.

        Before the first step it counts as the start, unless it is an evaluation.
        """
        before = self._part
        if before is Part.START and part is not Part.EVALUATION:
            yield
            return
        self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(before)

    def point(self) -> dict[str, float]:
        """What happened since the last point, for the curves.

        Shares of the time, `time/...`, together 1; and clips a second of steps and data.
        """
        self._turn_to(self._part)
        spent = {part: self._seconds[part] - self._at_last_point[part] for part in Part}
        self._at_last_point = dict(self._seconds)
        total = sum(spent.values()) or 1.0
        training = spent[Part.STEPS] + spent[Part.DATA] or 1.0
        speed, self._num_clips = self._num_clips / training, 0
        shares = {f"time/{part}": seconds / total for part, seconds in spent.items()}
        return {**shares, "speed/clips_per_second": speed}

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


def memory_held() -> dict[str, float]:
    """The most GiB so far, for the curves: of this process and, if it counts, of its device."""
    unit = 1 if sys.platform == "darwin" else 2**10
    held = {"memory/host_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
    of_device = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in of_device:
        held["memory/device_GiB"] = of_device["peak_bytes_in_use"] / 2**30
    return held


class StepProfiler:
    """Traces the steps that were asked for; of several processes, in the first one.

    `WORKDIR/profile/plugins/profile/TIME/` gets `*.xplane.pb`, which TensorBoard shows (`pip
    install xprof tensorboard`), and `perfetto_trace.json.gz`, which https://ui.perfetto.dev opens.

    Args:
        workdir: of the run.
        steps: the first and the last one, counted from 1; (): nothing is traced.
        num_steps: of the run, at the latest the last one that is traced.
    """

    def __init__(self, workdir: Path, steps: tuple[()] | tuple[int, int], num_steps: int):
        self._directory = workdir / PROFILE_DIR
        wanted = steps if distributed.is_first() else ()
        self._steps = (wanted[0], min(wanted[1], num_steps)) if wanted else None
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
