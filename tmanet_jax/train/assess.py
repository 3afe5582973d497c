"""Mode `eval`: scores of a trained network, result files for a benchmark's server, a report."""

from pathlib import Path

import jax
from tqdm import tqdm

from tmanet_jax.inference.evaluate import evaluate, segment_split
from tmanet_jax.inference.report import write_report
from tmanet_jax.inference.segment import compile_segmenter
from tmanet_jax.inference.submission import Submission
from tmanet_jax.settings import Settings
from tmanet_jax.train import start
from tmanet_jax.train.trained import load_trained, model_settings


def evaluate_workdir(settings: Settings, workdir: Path, submit: Path | None = None) -> None:
    """Scores `settings.init.checkpoint`, or else the best checkpoint of the workdir.

    A file of weights says itself what network it is of. Process 0 writes the report.

    Args:
        settings: of the run.
        workdir: of the run.
        submit: a directory for the predictions, in the format of the data set's server; then the
            split may be one without labels, which is segmented and not scored.

    Raises:
        UserError: bad input, or nothing to score.
    """
    settings = model_settings(settings)
    source = start.open_split(
        settings,
        settings.data.eval_split,
        memory_range=settings.model.head.num_memory,
        unlabelled_ok=submit is not None,
    )
    submission = None if submit is None else Submission.begin(submit, source)
    trained = load_trained(settings, workdir)
    start.prepare_workdir(workdir)
    program = compile_segmenter(
        trained.graphdef, settings.model.head.num_memory, settings.evaluation
    )
    segmenter = program.with_weights(*trained.state.network)
    if not source.labelled:
        assert submission is not None
        for segmented in segment_split(segmenter, source, title="segment"):
            submission.add(segmented)
    else:
        evaluation = evaluate(segmenter, source, *([] if submission is None else [submission.add]))
        if jax.process_index() == 0:
            step = int(trained.state.step)
            tqdm.write(write_report(evaluation, workdir, step=step, split=source.split))
    if submission is not None:
        tqdm.write(str(submission))
