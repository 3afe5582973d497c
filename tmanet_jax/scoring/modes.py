"""Modes `eval` and `consistency`: scores of a trained network, result files, a report."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flax import nnx

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.clips import Clip
from tmanet_jax.errors import UserError
from tmanet_jax.inference.engine import Computation, ExportedNetwork
from tmanet_jax.inputs import open_split
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import local_mesh, to_default_device
from tmanet_jax.scoring.clips import SegmentedClip, SegmentsClips, compile_segmenter
from tmanet_jax.scoring.evaluate import Assessment, Evaluation, assess, evaluate, segment_split
from tmanet_jax.scoring.report import write_report
from tmanet_jax.scoring.stream_clips import StreamClipSegmenter
from tmanet_jax.scoring.submission import Submission
from tmanet_jax.scoring.trained_network import (
    TrainedNetwork,
    load_trained,
    named_file,
    scored_as_before,
    without_what_it_began_with,
)
from tmanet_jax.scoring.videos import (
    clips_of,
    evaluate_videos,
    find_videos,
    segment_video,
    streaming_network,
)
from tmanet_jax.settings import Settings
from tmanet_jax.workdir import check_processes_agree, make_workdir

CONSISTENCY_DIR = "consistency"
MAX_PLAYER_FRAMES = 60
"""Each takes some 300 kB of the page at Cityscapes' size."""


def evaluate_run(
    settings: Settings,
    workdir: str | os.PathLike[str] | None = None,
    *,
    submit: str | os.PathLike[str] | None = None,
    on_clip: Callable[[SegmentedClip], object] | None = None,
    computation: Computation | None = None,
) -> Evaluation | None:
    """Scores `settings.init.checkpoint`, or else the best checkpoint of the workdir.

    A file that the workdir's run has begun with is not scored in place of what became of it. A file
    of weights says itself what network it is of. Process 0 writes the report.

    Args:
        settings: of the run.
        workdir: of the run; None: the weights are a file, and no report is written.
        submit: a directory for the predictions, in the format of the data set's server; then the
            split may be one without labels, which is segmented and not scored.
        on_clip: called with each clip of this process and what the network says of it.
        computation: what computes; None: jax, as the settings say.

    Returns:
        The scores; None of a split without labels.

    Raises:
        UserError: bad input, or nothing to score.
    """
    computation = computation or Computation.by_jax(settings.model.dtype)
    settings = _computed(settings, computation)
    computation.check_there()
    folder = Path(workdir or "")
    if workdir is not None:
        settings = without_what_it_began_with(settings, folder)
    file = named_file(settings)
    if workdir is None and file is None:
        raise UserError("Name what to score: a workdir, or a file of weights in init.checkpoint.")
    settings = scored_as_before(settings, folder, file)
    records = open_split(
        settings,
        settings.data.eval_split,
        memory_range=settings.model.head.num_memory,
        unlabelled_ok=submit is not None,
    )
    player_clips = _player_clips(settings)
    submission = None if submit is None else Submission.begin(Path(submit), records)
    trained = load_trained(settings, folder, records.info.classes, file)
    if workdir is not None:
        make_workdir(folder)
    check_processes_agree(records, None if settings.init.checkpoint else folder)
    segmenter = _segmenter(trained, records.info.classes, settings, computation)
    evaluation = None

    def take(segmented: SegmentedClip) -> None:
        if submission is not None:
            submission.add(segmented)
        if on_clip is not None:
            on_clip(segmented)

    if not records.labelled:
        for segmented in segment_split(segmenter, records, title="segment"):
            take(segmented)
    else:
        for doubt in records.label_doubts(trains=False):
            distributed.tell(doubt)
        evaluation = evaluate(segmenter, records, take)
        if workdir is not None and distributed.is_first():
            assessed = assess(evaluation, segmenter, records, trained.step, computation.in_words())
            assessed = dataclasses.replace(
                assessed,
                weights=settings.init.checkpoint,
                player=list(segmenter.segment(player_clips)),
            )
            distributed.tell(write_report(assessed, folder))
    if submission is not None:
        distributed.tell(str(submission))
    return evaluation


def _computed(settings: Settings, computation: Computation) -> Settings:
    """The settings with the network's numbers as they are computed; exports are of float32."""
    if computation.device is not None and computation.engine == "jax":
        raise UserError("Mode eval computes on all of jax's devices: JAX_PLATFORMS=cpu chooses.")
    own = {"dtype": computation.precision}
    exported = {"dtype": "float32", "attention": "chunked"}
    fields: dict[str, Any] = own if computation.engine == "jax" else exported
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, **fields))


def _segmenter(
    trained: TrainedNetwork,
    classes: ClassSet,
    settings: Settings,
    computation: Computation,
) -> SegmentsClips:
    if computation.engine != "jax":
        model = nnx.merge(trained.graphdef, *to_default_device(trained.weights))
        neighbours = dataclasses.replace(settings.evaluation.protocol, memory_stride=1)
        network = ExportedNetwork(model, classes, neighbours, computation)
        return StreamClipSegmenter(network, settings.evaluation)
    num_memory, mesh = settings.model.head.num_memory, local_mesh(settings.mesh)
    program = compile_segmenter(trained.graphdef, num_memory, settings.evaluation, mesh)
    return program.with_weights(*trained.weights)


def evaluate_consistency(settings: Settings, workdir: Path) -> None:
    """Scores a trained network on videos, every frame and over time, in WORKDIR/consistency.

    The clips of the split are neighbouring frames with labels; the network is that of
    `evaluate_run`. One stream runs on one device; processes share out the videos.

    Raises:
        UserError: bad input, or nothing to score.
    """
    settings = without_what_it_began_with(settings, workdir)
    file = named_file(settings)
    settings = scored_as_before(settings, workdir, file)
    records = open_split(settings, settings.data.eval_split, memory_range=0, num_memory=0)
    first = find_videos(records)[0]
    trained = load_trained(settings, workdir, records.info.classes, file)
    weights = to_default_device(trained.weights)
    network = streaming_network(nnx.merge(trained.graphdef, *weights), settings.evaluation)
    make_workdir(workdir / CONSISTENCY_DIR)
    check_processes_agree(records, None if settings.init.checkpoint else workdir)
    evaluation, temporal = evaluate_videos(
        network,
        records,
        num_shown=settings.evaluation.num_overlays,
        as_published=settings.evaluation.vspw_published,
    )
    if not distributed.is_first():
        return
    clips = clips_of(records, first, num_memory=0)
    assessed = Assessment(
        evaluation=evaluation,
        how=settings.evaluation,
        step=trained.step,
        split=records.split,
        computation=Computation.by_jax(settings.model.dtype).in_words(),
        weights=settings.init.checkpoint,
        player=list(itertools.islice(segment_video(network, clips), MAX_PLAYER_FRAMES)),
        temporal=temporal,
    )
    distributed.tell(write_report(assessed, workdir / CONSISTENCY_DIR))


def _player_clips(settings: Settings) -> Iterable[Clip]:
    """The first frames of the first video of `eval.video_dir`, if there is one.

    Raises:
        UserError: there are no videos, or ones of other classes.
    """
    video_dir, num_memory = settings.evaluation.video_dir, settings.model.head.num_memory
    if not video_dir:
        return ()
    of_videos = dataclasses.replace(settings.data, dir=video_dir)
    records = open_split(
        dataclasses.replace(settings, data=of_videos),
        settings.data.eval_split,
        memory_range=0,
        num_memory=0,
        unlabelled_ok=True,
    )
    clips = clips_of(records, find_videos(records)[0], num_memory)
    return itertools.islice(clips, MAX_PLAYER_FRAMES)
