"""Videos among clip records, segmented by streaming and scored: every frame, and over time.

A video is a run of clips whose queries are neighbouring frames: the records of VSPW and KITTI-STEP,
and those that `data_prep.cityscapes` makes with every frame as a query.
"""

import collections
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tmanet_jax.data.classes import IGNORE, void_class
from tmanet_jax.data.clips import Clip
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.errors import UserError
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.parallel import distributed
from tmanet_jax.progress import ProgressBar
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.evaluate import Evaluation, Tally, evenly_spread, sum_over_processes
from tmanet_jax.scoring.metrics import confusion_of
from tmanet_jax.scoring.temporal import SegmentedFrame, TemporalScores, TemporalTotal


@dataclass(frozen=True)
class Video:
    """Neighbouring frames.

    Attributes:
        name: that the records have of it.
        indices: the frames' places among the clips, in the order of time.
    """

    name: str
    indices: tuple[int, ...]


def find_videos(records: ClipRecords) -> list[Video]:
    """The videos of a split, in the order of their names.

    Raises:
        UserError: no two clips are neighbours.
    """
    index = records.index
    frames = sorted((*index.frame(place), clip) for clip, place in enumerate(index.queries))
    runs: list[list[tuple[str, int, int]]] = []
    for frame in frames:
        if runs and runs[-1][-1][0] == frame[0] and runs[-1][-1][1] + 1 == frame[1]:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    if all(len(run) == 1 for run in runs):
        raise UserError(
            f"The split {records.split!r} in {records.data_dir} has no two neighbouring frames, so "
            "no videos. Make records with every frame as a query:\n"
            "  python -m data_prep.cityscapes --source=DIR --out=DIR --memory-range=0 --every-frame"
        )
    return [Video(run[0][0], tuple(clip for _, _, clip in run)) for run in runs]


def clips_of(records: ClipRecords, video: Video, num_memory: int) -> Iterator[Clip]:
    """Each frame of a video with the frames before it, whatever memory the records hold.

    The first frame stands in for those before it, as in `data_prep`.
    """
    newest: collections.deque[np.ndarray] = collections.deque(maxlen=num_memory + 1)
    for index in video.indices:
        clip = records.read(index, ())
        newest.append(clip.frames_SxHxWx3[-1])
        frames = [newest[0]] * (num_memory + 1 - len(newest)) + list(newest)
        yield Clip(clip.id, clip.group, np.stack(frames), clip.labels_HxW)


def streaming_network(model: TMANet, config: EvalConfig) -> StreamingNetwork:
    """Streams as a run's evaluation settings say.

    Raises:
        UserError: the settings ask for several views; a stream has one.
    """
    if config.ratios != (1.0,) or config.flip:
        raise UserError(
            "Videos are segmented frame after frame in one view: leave config.eval.ratios at "
            "(1.0,) and config.eval.flip at False."
        )
    return StreamingNetwork(model, config.protocol)


def evaluate_videos(
    network: StreamingNetwork, records: ClipRecords, *, num_shown: int, as_published: bool = False
) -> tuple[Evaluation, TemporalScores]:
    """Scores the network on every frame of every video of a split, with one pass a frame.

    The split's clips are neighbouring frames, each with labels; what memory the records hold is
    not read. Each process of a run scores the videos i, i + n, ...; their sums are exchanged at the
    end. Frames to show are the process's own.

    Args:
        network: that segments.
        records: the videos.
        num_shown: frames to keep for pictures.
        as_published: see `VideoConsistency`.

    Raises:
        UserError: there are no videos, or one with frames of several sizes.
    """
    void = void_class(records.info.classes)
    videos = sorted(find_videos(records), key=lambda video: video.indices)
    total = TemporalTotal(
        records.info.classes.num_classes,
        [len(video.indices) for video in videos],
        void=(IGNORE,) if void is None else (IGNORE, void),
        as_published=as_published,
    )
    mine = range(distributed.index(), len(videos), distributed.count())
    frames = [index for place in mine for index in videos[place].indices]
    tally, wanted = Tally.of_split(records), evenly_spread(frames, num_shown)
    shown: list[SegmentedClip] = []
    is_shown = distributed.is_first()
    progress = ProgressBar("videos", "frame", len(frames), is_shown=is_shown, stays=False)

    def scored_frames(video: Video) -> Iterator[SegmentedFrame]:
        segmented = segment_video(network, clips_of(records, video, num_memory=0))
        for index, one in zip(video.indices, segmented, strict=True):
            tally.add(index, one.confusion_CxC)
            if index in wanted:
                shown.append(one)
            progress.update()
            frame_HxWx3, labels_HxW = one.clip.frames_SxHxWx3[-1], one.clip.labels_HxW
            yield SegmentedFrame(frame_HxWx3, labels_HxW, one.predicted_HxW)

    with progress:
        for place in mine:
            total.add_video(place, scored_frames(videos[place]))
    return tally.evaluation(shown), total.result(sum_over_processes)


def segment_video(network: StreamingNetwork, clips: Iterable[Clip]) -> Iterator[SegmentedClip]:
    """Segments the frames of a video, the queries of some clips, one after the other.

    Raises:
        UserError: the frames are of several sizes.
    """
    num_classes = network.model_config.head.num_classes
    state, size, first = None, None, True
    for clip in clips:
        frame_HxWx3 = clip.frames_SxHxWx3[-1]
        if state is None:
            size = clip.labels_HxW.shape
            state = network.start(1, (size[0], size[1]))
        if clip.labels_HxW.shape != size:
            raise UserError(
                f"The frame {clip.id} is of {clip.labels_HxW.shape} pixels, the frames before it "
                f"of {size}: the frames of a video must have one size."
            )
        state, output = network.step(state, frame_HxWx3[None], np.array([first]))
        first = False
        predicted_HxW = np.asarray(output.labels_BxHxW[0])
        yield SegmentedClip(
            clip, predicted_HxW, confusion_of(predicted_HxW, clip.labels_HxW, num_classes)
        )
