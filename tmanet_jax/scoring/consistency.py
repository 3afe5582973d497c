"""Segments videos by streaming and scores them: every frame, and over time."""

from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from tmanet_jax.data.classes import IGNORE, void_class
from tmanet_jax.data.records import Clip, ClipRecords
from tmanet_jax.errors import UserError
from tmanet_jax.inference.stream import FrameStream
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.evaluate import Evaluation, Tally, evenly_spread
from tmanet_jax.scoring.metrics import confusion_of
from tmanet_jax.scoring.temporal import SegmentedFrame, TemporalScores, TemporalTotal
from tmanet_jax.scoring.videos import Video, clips_of, find_videos


def frame_stream(model: TMANet, config: EvalConfig) -> FrameStream:
    """Streams as a run's evaluation settings say.

    Raises:
        UserError: the settings ask for several views; a stream has one.
    """
    if config.ratios != (1.0,) or config.flip:
        raise UserError(
            "Videos are segmented frame after frame in one view: leave config.eval.ratios at "
            "(1.0,) and config.eval.flip at False."
        )
    return FrameStream(model, config.protocol)


def evaluate_videos(
    stream: FrameStream, records: ClipRecords, *, num_shown: int, as_published: bool = False
) -> tuple[Evaluation, TemporalScores]:
    """Scores the network on every frame of every video of a split, with one pass a frame.

    The split's clips are neighbouring frames, each with labels; what memory the records hold is
    not read.

    Args:
        stream: the network.
        records: the videos.
        num_shown: frames to keep for pictures.
        as_published: see `VideoConsistency`.

    Raises:
        UserError: there are no videos, or one with frames of several sizes.
    """
    classes = records.info.classes
    void = void_class(classes)
    total = TemporalTotal(
        classes.num_classes,
        void=(IGNORE,) if void is None else (IGNORE, void),
        as_published=as_published,
    )
    videos = find_videos(records)
    scored = _Scored(records, num_shown)
    with tqdm(
        total=len(records), desc="videos", unit="frame", leave=False, disable=None
    ) as progress:
        for video in videos:
            segmented = segment_video(stream, clips_of(records, video, num_memory=0))
            total.add_video(_followed(segmented, video, scored, progress))
    return scored.evaluation(), total.result()


def segment_video(stream: FrameStream, clips: Iterable[Clip]) -> Iterator[SegmentedClip]:
    """Segments the frames of a video, the queries of some clips, one after the other.

    Raises:
        UserError: the frames are of several sizes.
    """
    num_classes = stream.model_config.head.num_classes
    state, size, first = None, None, True
    for clip in clips:
        frame_HxWx3 = clip.frames_SxHxWx3[-1]
        if state is None:
            size = clip.labels_HxW.shape
            state = stream.start(1, (size[0], size[1]))
        if clip.labels_HxW.shape != size:
            raise UserError(
                f"The frame {clip.id} is of {clip.labels_HxW.shape} pixels, the frames before it "
                f"of {size}: the frames of a video must have one size."
            )
        state, output = stream.step(state, frame_HxWx3[None], np.array([first]))
        first = False
        predicted_HxW = np.asarray(output.labels_BxHxW[0])
        yield SegmentedClip(
            clip, predicted_HxW, confusion_of(predicted_HxW, clip.labels_HxW, num_classes)
        )


class _Scored:
    """The frames' scores, and some frames to show."""

    def __init__(self, records: ClipRecords, num_shown: int):
        self._tally = Tally.of_split(records)
        self._wanted = evenly_spread(range(len(records)), num_shown)
        self._shown: list[SegmentedClip] = []

    def add(self, index: int, segmented: SegmentedClip) -> None:
        self._tally.add(index, segmented.confusion_CxC)
        if index in self._wanted:
            self._shown.append(segmented)

    def evaluation(self) -> Evaluation:
        return self._tally.evaluation(self._shown)


def _followed(
    segmented: Iterable[SegmentedClip], video: Video, scored: _Scored, progress: "tqdm[None]"
) -> Iterator[SegmentedFrame]:
    for index, one in zip(video.indices, segmented, strict=True):
        scored.add(index, one)
        progress.update()
        yield SegmentedFrame(one.clip.frames_SxHxWx3[-1], one.clip.labels_HxW, one.predicted_HxW)
