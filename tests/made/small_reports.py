"""A report of a few rendered frames, and predictions that are wrong at the edges of things."""

from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.street.render import SnippetFrames
from tmanet_jax.data.classes import (
    CITYSCAPES,
    CITYSCAPES_TRAIN_ID_OF_LABEL_ID,
    IGNORE,
    ClassSet,
)
from tmanet_jax.data.clips import Clip
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.evaluate import Assessment, Tally
from tmanet_jax.scoring.metrics import confusion_of

NUM_FRAMES = 6


def street(num_frames: int = NUM_FRAMES, size: tuple[int, int] = (96, 192)) -> list[SegmentedClip]:
    """Neighbouring frames of a street; the blurred label map is the prediction."""
    frames = SnippetFrames("val", 0, size, seed=0, is_degraded=False)
    return [_segmented(frames, number) for number in range(num_frames)]


def _segmented(frames: SnippetFrames, number: int) -> SegmentedClip:
    picture = frames.draw(number)
    labels_HxW = CITYSCAPES_TRAIN_ID_OF_LABEL_ID[picture.labels_HxW]
    predicted_HxW = np.where(labels_HxW == IGNORE, 0, labels_HxW)
    predicted_HxW = cv2.medianBlur(predicted_HxW, 9)
    clip = Clip(
        f"street_000000_{number:06d}",
        "clean" if number % 2 else "degraded",
        picture.image_HxWx3[None],
        labels_HxW,
    )
    confusion = confusion_of(predicted_HxW, labels_HxW, CITYSCAPES.num_classes)
    return SegmentedClip(clip, predicted_HxW, confusion)


def assessment_of(shown: Sequence[SegmentedClip], classes: ClassSet = CITYSCAPES) -> Assessment:
    """Two of the clips are the worst ones, all are played."""
    clips = [segmented.clip for segmented in shown]
    tally = Tally(classes, [clip.id for clip in clips], [clip.group for clip in clips])
    for index, segmented in enumerate(shown):
        tally.add(index, segmented.confusion_CxC)
    evaluation = tally.evaluation(shown[:2])
    worst = [shown[index] for index in evaluation.worst(2)]
    return Assessment(
        evaluation,
        EvalConfig(),
        step=8,
        split="val",
        computation="float32, engine jax",
        worst=worst,
        player=shown,
    )
