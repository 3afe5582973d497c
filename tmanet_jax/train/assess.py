"""Modes `eval` and `consistency`: scores of a trained network, result files, a report."""

from pathlib import Path

import jax
from flax import nnx
from tqdm import tqdm

from tmanet_jax.data.records import ClipSource, open_clips
from tmanet_jax.inference.consistency import evaluate_videos, frame_stream, segment_video
from tmanet_jax.inference.evaluate import Evaluation, evaluate, segment_split
from tmanet_jax.inference.report import Report, write_report
from tmanet_jax.inference.segment import ClipSegmenter, SegmentedClip, compile_segmenter
from tmanet_jax.inference.submission import Submission
from tmanet_jax.inference.videos import clips_of, find_videos
from tmanet_jax.settings import Settings
from tmanet_jax.train import start
from tmanet_jax.train.trained import load_trained, model_settings

CONSISTENCY_DIR = "consistency"


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
            report = _report(evaluation, segmenter, source, int(trained.state.step))
            tqdm.write(write_report(report, workdir))
    if submission is not None:
        tqdm.write(str(submission))


def evaluate_consistency(settings: Settings, workdir: Path) -> None:
    """Scores a trained network on videos, every frame and over time, in WORKDIR/consistency.

    The clips of the split are neighbouring frames with labels; the network is that of
    `evaluate_workdir`.

    Raises:
        UserError: bad input, or nothing to score.
    """
    settings = model_settings(settings)
    source = start.open_split(settings, settings.data.eval_split, memory_range=0, num_memory=0)
    first = find_videos(source)[0]
    trained = load_trained(settings, workdir)
    start.prepare_workdir(workdir / CONSISTENCY_DIR)
    model = nnx.merge(trained.graphdef, *trained.state.network)
    stream = frame_stream(model, settings.evaluation)
    evaluation, temporal = evaluate_videos(
        stream,
        source,
        num_shown=settings.evaluation.num_overlays,
        as_published=settings.evaluation.vspw_published,
    )
    report = Report(
        evaluation=evaluation,
        step=int(trained.state.step),
        split=source.split,
        player=list(segment_video(stream, clips_of(source, first, num_memory=0))),
        temporal=temporal,
    )
    tqdm.write(write_report(report, workdir / CONSISTENCY_DIR))


def _report(
    evaluation: Evaluation, segmenter: ClipSegmenter, source: ClipSource, step: int
) -> Report:
    """With the worst clips and the player's frames, which are segmented once more."""
    worst = evaluation.worst(segmenter.config.num_worst)
    offsets = range(segmenter.num_memory, 0, -1)
    return Report(
        evaluation=evaluation,
        step=step,
        split=source.split,
        worst=list(segmenter.segment(source.read(index, offsets) for index in worst)),
        player=_video(segmenter, source.split),
    )


def _video(segmenter: ClipSegmenter, split: str) -> list[SegmentedClip]:
    """The frames of the first video of `config.eval.video_dir`, if there is one."""
    if not segmenter.config.video_dir:
        return []
    videos = open_clips(segmenter.config.video_dir, split)
    first = find_videos(videos)[0]
    return list(segmenter.segment(clips_of(videos, first, segmenter.num_memory)))
