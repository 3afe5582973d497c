"""Pictures of predictions: frame, labels and prediction side by side."""

import numpy as np

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.inference.clips import SegmentedClip
from tmanet_jax.pictures import blend, captioned, legend


def comparison(
    frame_HxWx3: np.ndarray, labels_HxW: np.ndarray, predicted_HxW: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Frame | labels | prediction with captions, and a legend of the classes that occur, RGB."""
    panels = {
        "frame": frame_HxWx3,
        "labels": blend(frame_HxWx3, labels_HxW, classes),
        "prediction": blend(frame_HxWx3, predicted_HxW, classes),
    }
    row = np.concatenate([captioned(panel, name) for name, panel in panels.items()], axis=1)
    occurring = np.union1d(labels_HxW, predicted_HxW)
    present = [c for c in occurring if c < classes.num_classes]
    return np.concatenate([row, legend(present, classes, row.shape[1])], axis=0)


def comparison_of(segmented: SegmentedClip, classes: ClassSet) -> np.ndarray:
    """Query frame, labels and prediction of a clip, RGB."""
    clip = segmented.clip
    return comparison(clip.frames_SxHxWx3[-1], clip.labels_HxW, segmented.predicted_HxW, classes)
