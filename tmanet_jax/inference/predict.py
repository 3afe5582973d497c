"""Segments videos, pictures or a camera into files: overlays with a legend, label pictures.

A browser may watch meanwhile. Several processes of a run share out the inputs.

The folder of an output says what it was made of (`predict.json`). A run that was interrupted, be
it by a kill, goes on where it was, and ends in the same files.
"""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tmanet_jax.errors import Stopped, UserError, counted
from tmanet_jax.inference.engine import Computation
from tmanet_jax.inference.job import Job, done, open_job
from tmanet_jax.inference.outputs import Manifest, fingerprint_weights
from tmanet_jax.inference.prediction import Input, Prediction
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.segmenter import OpenVideo, Segmenter
from tmanet_jax.inference.serve import LiveView, served
from tmanet_jax.parallel import distributed
from tmanet_jax.progress import ProgressBar
from tmanet_jax.stop_signals import StopSignals
from tmanet_jax.video.frames import fingerprint_input


def predict(prediction: Prediction) -> None:
    """Writes what is not there yet, and tells broken frames and where the results are.

    Of several inputs, one that fails is told, and the others go on. Each process takes the inputs
    i, i + n, ... and waits for the others at the end.

    Args:
        prediction: what is to be segmented, and where to.

    Raises:
        UserError: bad input, or a port in use; or a broken frame that is to stop the run, after
            what was done so far is saved.
        Stopped: it was interrupted; what was done so far is saved.
    """
    if prediction.serve is not None and distributed.count() > 1:
        raise UserError("One process shows its input in a browser: leave --serve out in several.")
    failures = _Failures(prediction.inputs)
    with contextlib.ExitStack() as stack:
        view = None
        if prediction.serve is not None:
            view, address = stack.enter_context(served(prediction.serve))
            tqdm.write(f"{address} shows it in a browser of this machine.")
        _predict(prediction, failures, view)
    failures.tell()


def _predict(prediction: Prediction, failures: "_Failures", view: LiveView | None) -> None:
    prints: dict[Input, str] = {}
    for one in prediction.inputs[distributed.index() :: distributed.count()]:
        with failures.of(one):
            prints[one] = fingerprint_input(one.source)
    weights_print = ""
    if prediction.output is not None:  # whose manifest names them
        align_corners = prediction.settings.init.align_corners
        weights_print = fingerprint_weights(prediction.checkpoint, align_corners)
    segmenter = _load(prediction)
    distributed.tell(prediction.settings.evaluation.compared_with(segmenter.protocol))
    how = f"{segmenter.protocol}, {_computation_in_words(prediction)}"
    there = list(prints)
    for first in range(0, len(there), segmenter.videos_at_once):
        some = there[first : first + segmenter.videos_at_once]
        wanted = {one: Manifest(prints[one], weights_print, how) for one in some}
        _predict_together(prediction, segmenter, wanted, failures, view)


def _predict_together(
    prediction: Prediction,
    segmenter: Segmenter,
    wanted: Mapping[Input, Manifest],
    failures: "_Failures",
    view: LiveView | None,
) -> None:
    with contextlib.ExitStack() as stack:
        jobs: dict[Input, Job] = {}
        for one, manifest in wanted.items():
            with failures.of(one):
                jobs[one] = stack.enter_context(
                    open_job(prediction, one, manifest, segmenter.classes, view)
                )
        signals = stack.enter_context(StopSignals())
        stopped = _write_results(prediction, segmenter, list(jobs.values()), signals)
        for one, job in jobs.items():
            with failures.of(one):
                job.close(is_stopped=stopped is not None)
                if job.error is not None:
                    raise job.error
        if stopped is not None:
            raise stopped


class _Failures:
    """Inputs that failed: a single one ends the run at once, one of several is told at its end."""

    def __init__(self, inputs: Sequence[Input]):
        self._num_inputs = len(inputs)
        self._failed: list[str] = []

    @contextlib.contextmanager
    def of(self, one: Input) -> Iterator[None]:
        """What fails within is told."""
        try:
            yield
        except UserError as error:
            if self._num_inputs == 1:
                raise
            tqdm.write(f"{one.source}: {error}")
            self._failed.append(str(one.source))

    def tell(self) -> None:
        """Raises UserError, in each process, if there are any in all of them."""
        of_each = distributed.exchange("failed inputs", json.dumps(self._failed))
        failed = [name for texts in of_each for name in json.loads(texts)]
        if failed:
            raise UserError(
                f"{len(failed)} of {counted(self._num_inputs, 'input')} failed, as told "
                f"above: {', '.join(failed)}."
            )


def _load(prediction: Prediction) -> Segmenter:
    run, computation = prediction.settings, _computation(prediction)
    of_jax: dict[str, Any] = {}
    if computation.engine == "jax":
        of_jax = {"products": run.model.precision, "attention": run.model.attention}
    return Segmenter.load(
        prediction.checkpoint,
        align_corners=run.init.align_corners,
        otherwise=run.evaluation.protocol,
        **of_jax,
        **vars(computation),
        **run.evaluation.overrides(),
    )


def _computation(prediction: Prediction) -> Computation:
    return prediction.computation or Computation.by_jax(prediction.settings.model.dtype)


def _computation_in_words(prediction: Prediction) -> str:
    model, computation = prediction.settings.model, _computation(prediction)
    if computation.engine != "jax":
        return computation.in_words()
    return f"{computation.precision}, precision {model.precision}, attention {model.attention}"


def _write_results(
    prediction: Prediction, segmenter: Segmenter, jobs: Sequence[Job], signals: StopSignals
) -> Stopped | None:
    """Writes until the frames end, or it is told to stop."""
    interrupted = f"Interrupted; the same command goes on.{done(prediction.output)}"
    results = segmenter.segment([OpenVideo(job.frames, job.wants) for job in jobs])
    begun: set[int] = set()
    with ProgressBar("predict", "frame", _total(jobs)) as bar, contextlib.closing(results):
        try:
            for number, result in results:
                if isinstance(result, FrameResult) and number not in begun:
                    begun.add(number)
                    bar.skip(result.index)
                jobs[number].take(result)
                bar.update()
                if signals.stops_now():
                    return Stopped(interrupted, signals.number)
        except KeyboardInterrupt:  # the second one
            return Stopped(interrupted, signal.SIGINT)
    return None


def _total(jobs: Sequence[Job]) -> int | None:
    numbers = [job.num_expected for job in jobs if job.num_expected is not None]
    return sum(numbers) if len(numbers) == len(jobs) else None
