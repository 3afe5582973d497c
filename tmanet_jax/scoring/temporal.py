"""Temporal consistency of segmented videos: VC (video consistency) and TC (temporal consistency).

Sources: VC_n, Miao et al., "VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild", CVPR
2021, and its published script `VC_perclip.py`. TC, Liu et al., "Efficient Semantic Video
Segmentation with Per-frame Inference", ECCV 2020; the test for occlusion, Sundaram et al., "Dense
Point Trajectories by GPU-accelerated Large Displacement Optical Flow", ECCV 2010.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.scoring.metrics import confusion_of, scores

FLOW = "DIS, medium preset (OpenCV)"
"""What mTC's optical flow is; papers use others, mostly FlowNet2 or RAFT."""

_MIN_FLOW_SIZE = 64
"""Pixels each way; OpenCV 5.0 segfaults on pictures of 8x64."""

_PUBLISHED_VIDEOS = 100
"""Of the list, that VSPW's script of mTC reads."""


Summed = Callable[[np.ndarray], np.ndarray]


class SegmentedFrame(NamedTuple):
    """A segmented frame of a video.

    Attributes:
        frame_HxWx3: uint8 RGB.
        labels_HxW: uint8 train ids.
        predicted_HxW: uint8 train ids.
    """

    frame_HxWx3: np.ndarray
    labels_HxW: np.ndarray
    predicted_HxW: np.ndarray


class VideoConsistency:
    """VC_n of one video, frame after frame; it keeps counters and no frames.

    For each run of n frames, of the pixels whose label stays the same through all n, the share that
    is predicted right in all n. Its mean over all runs of all videos is VC_n.

    The published script differs, and `as_published` follows it: the last run of a video is left
    out (so is a video of n frames), pixels of no class count as a class, and a prediction need not
    be right, only stay the same.

    Args:
        length: n, frames of a run.
        void: label values that are no class; they do not count.
        as_published: compute what VSPW's script computes.
    """

    def __init__(self, length: int, void: Sequence[int] = (IGNORE,), as_published: bool = False):
        self._length = length
        self._void = () if as_published else tuple(void)
        self._as_published = as_published
        self._previous: SegmentedFrame | None = None
        self._same_label_HxW = self._good_HxW = np.zeros(())
        self._shares: list[float] = []

    def add(self, frame: SegmentedFrame) -> None:
        """Adds the next frame of the video."""
        labels_HxW, predicted_HxW = frame.labels_HxW, frame.predicted_HxW
        counts_HxW = ~np.isin(labels_HxW, self._void)
        if self._as_published:
            good_HxW = np.ones(labels_HxW.shape, bool)
            goes_on_HxW = self._unchanged(predicted_HxW, "predicted_HxW")
        else:
            good_HxW = predicted_HxW == labels_HxW
            goes_on_HxW = good_HxW
        label_goes_on_HxW = self._unchanged(labels_HxW, "labels_HxW")
        self._same_label_HxW = _run_length(self._same_label_HxW, label_goes_on_HxW, counts_HxW)
        self._good_HxW = _run_length(self._good_HxW, goes_on_HxW, good_HxW)
        self._previous = frame
        same_label_HxW = self._same_label_HxW >= self._length
        if same_label_HxW.any():
            good_HxW = same_label_HxW & (self._good_HxW >= self._length)
            self._shares.append(float(good_HxW.sum() / same_label_HxW.sum()))
        else:
            self._shares.append(float("nan"))

    def shares(self) -> list[float]:
        """The share of each run of n frames; nan where no label stays the same."""
        runs = self._shares[self._length - 1 :]
        return runs[:-1] if self._as_published else runs

    def _unchanged(self, map_HxW: np.ndarray, name: str) -> np.ndarray:
        if self._previous is None:
            return np.zeros(map_HxW.shape, bool)
        return map_HxW == getattr(self._previous, name)


def _run_length(
    length_HxW: np.ndarray, goes_on_HxW: np.ndarray, counts_HxW: np.ndarray
) -> np.ndarray:
    """For how many frames a pixel is as it is: one more, or 1 anew, or 0 if it does not count."""
    return np.where(counts_HxW, np.where(goes_on_HxW, length_HxW, 0) + 1, 0)


def temporal_consistency(frames: Iterable[SegmentedFrame], num_classes: int) -> list[float]:
    """TC of each pair of neighbouring frames of a video.

    The mIoU between the prediction of a frame and the prediction of the frame before it, carried
    along by the optical flow between the two, where that flow can be trusted. No label is read.
    TC of a video is the mean over its pairs; mTC is the mean over the videos.
    """
    return [_agreement(previous, current, num_classes) for previous, current in _neighbours(frames)]


def _neighbours(
    frames: Iterable[SegmentedFrame],
) -> Iterator[tuple[SegmentedFrame, SegmentedFrame]]:
    previous = None
    for frame in frames:
        if previous is not None:
            yield previous, frame
        previous = frame


def _agreement(previous: SegmentedFrame, current: SegmentedFrame, num_classes: int) -> float:
    backward_HxWx2 = optical_flow(current.frame_HxWx3, previous.frame_HxWx3)
    forward_HxWx2 = optical_flow(previous.frame_HxWx3, current.frame_HxWx3)
    visible_HxW = visible(backward_HxWx2, forward_HxWx2)
    carried_HxW = warp(previous.predicted_HxW, backward_HxWx2)
    cells_N = (carried_HxW.astype(np.int64) * num_classes + current.predicted_HxW)[visible_HxW]
    confusion = np.bincount(cells_N, minlength=num_classes**2)
    return scores(confusion.reshape(num_classes, num_classes)).mean_iou


def optical_flow(from_HxWx3: np.ndarray, to_HxWx3: np.ndarray) -> np.ndarray:
    """Where each pixel of one frame goes in another: float32 HxWx2, pixels right and down.

    OpenCV's DIS flow (Kroeger et al., ECCV 2016), its medium preset, on grey pictures.
    """
    height, width, _ = from_HxWx3.shape
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before, after = (_grey(frame_HxWx3) for frame_HxWx3 in (from_HxWx3, to_HxWx3))
    start_HxWx2 = np.zeros((*before.shape, 2), np.float32)  # DIS begins with what it is given
    return flow.calc(before, after, start_HxWx2)[:height, :width]


def _grey(frame_HxWx3: np.ndarray) -> np.ndarray:
    """A grey picture, continued beyond its edges if it is so small that DIS ends the process."""
    height, width, _ = frame_HxWx3.shape
    below, right = max(_MIN_FLOW_SIZE - height, 0), max(_MIN_FLOW_SIZE - width, 0)
    grey_HxW = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2GRAY)
    return cv2.copyMakeBorder(grey_HxW, 0, below, 0, right, cv2.BORDER_REPLICATE)


def warp(labels_HxW: np.ndarray, flow_HxWx2: np.ndarray) -> np.ndarray:
    """At each pixel the label at the place that the flow points to, the nearest pixel's."""
    height, width = labels_HxW.shape
    x_HxW, y_HxW = _targets(flow_HxWx2)
    rows_HxW = np.clip(np.rint(y_HxW), 0, height - 1).astype(int)
    columns_HxW = np.clip(np.rint(x_HxW), 0, width - 1).astype(int)
    return labels_HxW[rows_HxW, columns_HxW]


def visible(flow_HxWx2: np.ndarray, back_HxWx2: np.ndarray) -> np.ndarray:
    """Where a flow and the flow back agree, and stay inside the picture: bool HxW.

    They disagree where something is hidden in one of the frames: |w + w'|^2 < 0.01 (|w|^2 + |w'|^2)
    + 0.5, with w' read where w points to (Sundaram et al., equation 5).
    """
    height, width, _ = flow_HxWx2.shape
    x_HxW, y_HxW = _targets(flow_HxWx2)
    inside_HxW = (x_HxW >= 0) & (x_HxW <= width - 1) & (y_HxW >= 0) & (y_HxW <= height - 1)
    back_there_HxWx2 = cv2.remap(
        back_HxWx2, x_HxW, y_HxW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    gap_HxW = np.square(flow_HxWx2 + back_there_HxWx2).sum(-1)
    length_HxW = np.square(flow_HxWx2).sum(-1) + np.square(back_there_HxWx2).sum(-1)
    return inside_HxW & (gap_HxW < 0.01 * length_HxW + 0.5)


def _targets(flow_HxWx2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows that a flow points to, float32."""
    height, width, _ = flow_HxWx2.shape
    y_HxW, x_HxW = np.mgrid[:height, :width].astype(np.float32)
    return x_HxW + flow_HxWx2[..., 0], y_HxW + flow_HxWx2[..., 1]


class PublishedTC:
    """mTC as VSPW's script has it: the next frame's prediction carried back to each frame.

    Unlike `temporal_consistency`, the pixels of all pairs of the first 100 videos count together,
    hidden ones too; what comes from outside the picture is of the first class; and the mean is over
    the classes that are predicted, whatever is carried. The script's own flow is RAFT's.

    Source: VSPW-dataset/VSPW_baseline, `TC_cal.py` and `utils.py`.

    Args:
        num_classes: classes of the predictions.
    """

    def __init__(self, num_classes: int):
        self._confusion_CxC = np.zeros((num_classes, num_classes), np.int64)

    def add_video(self, place: int, frames: Iterable[SegmentedFrame]) -> None:
        """Adds the video at a place of the list, from 0; its frames are read once."""
        for current, following in _neighbours(frames):
            if place < _PUBLISHED_VIDEOS:
                flow_HxWx2 = optical_flow(current.frame_HxWx3, following.frame_HxWx3)
                carried_HxW = carried_as_published(following.predicted_HxW, flow_HxWx2)
                num_classes = len(self._confusion_CxC)
                self._confusion_CxC += confusion_of(carried_HxW, current.predicted_HxW, num_classes)

    def result(self, summed: Summed = lambda array: array) -> float:
        """mTC, a fraction."""
        return scores(summed(self._confusion_CxC)).mean_iou_of_labelled


def carried_as_published(labels_HxW: np.ndarray, flow_HxWx2: np.ndarray) -> np.ndarray:
    """At each pixel the label where the flow points to, missed by up to half a pixel; 0 outside.

    Places are divided by one less than the size (corners at centres of pixels) and read as if by
    the size (corners at corners of pixels): x becomes x W / (W - 1) - 1/2, the nearest of which is
    read, halves to the even.
    """
    height, width = labels_HxW.shape
    x_HxW, y_HxW = _targets(flow_HxWx2)
    columns_HxW, rows_HxW = _place(x_HxW, width), _place(y_HxW, height)
    inside_HxW = (columns_HxW >= 0) & (columns_HxW < width) & (rows_HxW >= 0) & (rows_HxW < height)
    carried_HxW = np.zeros_like(labels_HxW)
    carried_HxW[inside_HxW] = labels_HxW[rows_HxW[inside_HxW], columns_HxW[inside_HxW]]
    return carried_HxW


def _place(target_HxW: np.ndarray, length: int) -> np.ndarray:
    scaled_HxW = np.float32(2) * target_HxW / np.float32(max(length - 1, 1)) - np.float32(1)
    return np.rint(((scaled_HxW + 1) * length - 1) / np.float32(2)).astype(np.int64)


@dataclass(frozen=True)
class TemporalScores:
    """Consistency over time of a set of videos, as fractions; nan where nothing defines one.

    Attributes:
        vc_of_length: VC_n by n.
        mean_tc: mTC.
    """

    vc_of_length: Mapping[int, float]
    mean_tc: float

    def by_name(self) -> dict[str, float]:
        """The scores by the names that papers give them."""
        return {
            **{f"VC{length}": value for length, value in self.vc_of_length.items()},
            "mTC": self.mean_tc,
        }


LENGTHS = (8, 16)
"""Each n of VC_n that is scored."""


class TemporalTotal:
    """The scores over time of videos, in any order; each process may add some of them.

    Args:
        num_classes: classes of the predictions.
        lengths_V: how many frames each video has, in the order of the list.
        void: label values that are no class.
        as_published: see `VideoConsistency` and `PublishedTC`.
    """

    def __init__(
        self,
        num_classes: int,
        lengths_V: Sequence[int],
        *,
        void: Sequence[int] = (IGNORE,),
        as_published: bool = False,
    ):
        self._num_classes = num_classes
        self._void = void
        self._as_published = as_published
        self._published_tc = PublishedTC(num_classes)
        self._first_V = [0, *itertools.accumulate(lengths_V)]
        num_frames = self._first_V[-1]
        self._shares_of_length = {length: np.zeros(num_frames) for length in LENGTHS}
        self._tc_V = np.zeros(len(lengths_V))

    def add_video(self, place: int, frames: Iterable[SegmentedFrame]) -> None:
        """Adds the video at a place of the list; its frames are read once and not kept."""
        counters = {
            length: VideoConsistency(length, self._void, self._as_published)
            for length in self._shares_of_length
        }
        seen = _seen_by(counters.values(), frames)
        if self._as_published:
            self._published_tc.add_video(place, seen)
        else:
            self._tc_V[place] = _mean(temporal_consistency(seen, self._num_classes))
        first, end = self._first_V[place : place + 2]
        for length, counter in counters.items():
            shares = counter.shares()
            self._shares_of_length[length][first:end] = np.nan
            self._shares_of_length[length][first : first + len(shares)] = shares

    def result(self, summed: Summed) -> TemporalScores:
        """The scores of all videos.

        Args:
            summed: adds up what all processes have in an array; 0 is what a process has not added.
        """
        return TemporalScores(
            {length: _mean(summed(shares)) for length, shares in self._shares_of_length.items()},
            self._published_tc.result(summed) if self._as_published else _mean(summed(self._tc_V)),
        )


def _seen_by(
    counters: Iterable[VideoConsistency], frames: Iterable[SegmentedFrame]
) -> Iterator[SegmentedFrame]:
    for frame in frames:
        for counter in counters:
            counter.add(frame)
        yield frame


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values that are defined; nan if none is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
