"""Tells how frames and labels are numbered, and notices where they are shifted by one throughout.

ffmpeg counts the frames that it extracts from 1, annotation tools often count from 0.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.labels import LabelFile, LabelPicture
from data_prep.source import SourceFile, read_frame
from tmanet_jax.errors import UserError, abridged

_FIRST_TIME = 10**9
"""Seconds since 1970 in 2001; no video has so many frames."""

_SAMPLE = 12
_ENOUGH = 4
_BETTER = 1.15
"""How much stronger a frame's edges are below those of the labels that belong to it, at least."""

SHIFT_ADVICE = (
    "Do frames count from 1, as those that ffmpeg extracts, and labels from 0? Then extract the "
    "frames again, with -start_number 0, or rename one of the two."
)


@dataclass(frozen=True)
class NumberedVideo:
    """The pictures of a video by number.

    Attributes:
        name: the video's.
        frames: its frames.
        labels: the labels of some of them.
        is_timed: whether the numbers are times put in order.
    """

    name: str
    frames: Mapping[int, SourceFile]
    labels: Mapping[int, LabelFile]
    is_timed: bool = False

    def __str__(self) -> str:
        frames, labels = (
            f"{min(numbers)}..{max(numbers)}" if numbers else "none"
            for numbers in (self.frames, self.labels)
        )
        timed = ", in the order of the times in their names" if self.is_timed else ""
        return f"{self.name} (frames {frames}, labels {labels}{timed})"


def in_order_of_time(video: NumberedVideo) -> NumberedVideo:
    """The video with its frames numbered from 0 if their numbers are times, such as 1638316800123.

    Labels of a time that no frame has get numbers that none has.
    """
    if not video.frames or min(video.frames) < _FIRST_TIME:
        return video
    times = sorted(video.frames) + sorted(video.labels.keys() - video.frames.keys())
    place_of = {time: place for place, time in enumerate(times)}
    frames = {place_of[time]: file for time, file in video.frames.items()}
    labels = {place_of[time]: file for time, file in video.labels.items()}
    return NumberedVideo(video.name, frames, labels, is_timed=True)


def notes_on_numbers(split: str, videos: Sequence[NumberedVideo]) -> list[str]:
    """How the frames and labels of a split are numbered, and a warning if they are shifted."""
    videos = [video for video in videos if video.labels]
    if not videos:
        return []
    notes = [f"Numbers in {split}: {abridged([str(video) for video in videos], 8)}"]
    for shift in (1, -1):
        place = f"{'after' if shift > 0 else 'before'} the one of its number"
        if _is_shifted(videos, shift):
            notes.append(
                f"Warning: not every label of {split} has a frame of its number, but each has the "
                f"frame {place}. {SHIFT_ADVICE}"
            )
        elif (better := _fitting_better(videos, shift))[0] * 5 >= max(better[1], _ENOUGH) * 4:
            notes.append(
                f"Warning: {better[0]} of {better[1]} sampled labels of {split} fit the frame "
                f"{place} better. {SHIFT_ADVICE}"
            )
    return notes


def _is_shifted(videos: Sequence[NumberedVideo], shift: int) -> bool:
    """Whether all labels have a frame if they are shifted, and not all as they are."""
    lacking = any(video.labels.keys() - video.frames.keys() for video in videos)
    return lacking and all(
        number + shift in video.frames for video in videos for number in video.labels
    )


def _fitting_better(videos: Sequence[NumberedVideo], shift: int) -> tuple[int, int]:
    """How many of a sample of labels fit the shifted frame clearly better, and the sample's size.

    Labels fit where their edges are edges of the frame.
    """
    candidates = [
        (video.labels[number], video.frames[number], video.frames[number + shift])
        for video in videos
        for number in video.labels
        if {number, number + shift} <= video.frames.keys()
    ]
    sample = itertools.islice(candidates[:: len(candidates) // _SAMPLE + 1], _SAMPLE)
    ratios = [ratio for each in sample if (ratio := _edges_of_other(*each)) is not None]
    return sum(ratio > _BETTER for ratio in ratios), len(ratios)


def _edges_of_other(labels: LabelFile, frame: SourceFile, other: SourceFile) -> float | None:
    """How much stronger another frame's edges are along the labels'; None if that is not known."""
    try:
        labels_HxW = labels.train_ids(LabelPicture.read(labels.file))
        pictures = [read_frame(file) for file in (frame, other)]
    except UserError:
        return None  # told when its clip is loaded
    if any(picture_HxWx3.shape[:2] != labels_HxW.shape for picture_HxWx3 in pictures):
        return None
    own, others = (_strength(picture_HxWx3, labels_HxW) for picture_HxWx3 in pictures)
    return others / own if own > 0 else None


def _strength(frame_HxWx3: np.ndarray, labels_HxW: np.ndarray) -> float:
    """Mean step of the grey values from one label to another, against that of all neighbours."""
    grey_HxW = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    steps = [np.abs(np.diff(grey_HxW, axis=axis)) for axis in (0, 1)]
    is_edge = [np.diff(labels_HxW.astype(int), axis=axis) != 0 for axis in (0, 1)]
    along = np.concatenate([step[edge] for step, edge in zip(steps, is_edge, strict=True)])
    everywhere = np.concatenate([step.reshape(-1) for step in steps])
    return float(along.mean() / everywhere.mean()) if along.size and everywhere.any() else 0.0
