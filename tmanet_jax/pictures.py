"""Pictures for people: labels in the classes' colours over a frame, captions, a legend. RGB."""

from collections.abc import Sequence

import cv2
import numpy as np

from tmanet_jax.data.classes import ClassSet

_OPACITY = 0.6
_MIN_PANEL_WIDTH = 512
_CAPTION_HEIGHT = 28
_LEGEND_COLUMNS = 10
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def blend(frame_HxWx3: np.ndarray, labels_HxW: np.ndarray, classes: ClassSet) -> np.ndarray:
    """The frame with the labels' colours over it, RGB uint8 HxWx3."""
    return cv2.addWeighted(classes.paint(labels_HxW), _OPACITY, frame_HxWx3, 1 - _OPACITY, 0)


def under_caption(panel_HxWx3: np.ndarray, caption: str) -> np.ndarray:
    """Writes a caption above a panel, in black on white."""
    strip = np.full((_CAPTION_HEIGHT, panel_HxWx3.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (8, 20), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, panel_HxWx3], axis=0)


def legend(present: Sequence[int], classes: ClassSet, width: int) -> np.ndarray:
    """A strip of that width with the colours and names of these classes, RGB uint8 hxWx3."""
    widths = [cv2.getTextSize(classes.names[index], _FONT, 0.45, 1)[0][0] for index in present]
    cell = max(widths, default=0) + 40
    columns = min(max(width // cell, 1), _LEGEND_COLUMNS)
    rows = max(-(-len(present) // columns), 1)
    strip = np.full((rows * _CAPTION_HEIGHT, width, 3), 255, np.uint8)
    for place, index in enumerate(present):
        left = place % columns * (width // columns) + 8
        top = place // columns * _CAPTION_HEIGHT + 6
        colour = tuple(int(value) for value in classes.palette_Cx3[index])
        cv2.rectangle(strip, (left, top), (left + 16, top + 16), colour, cv2.FILLED)
        cv2.putText(
            strip, classes.names[index], (left + 22, top + 14), _FONT, 0.45, (0, 0, 0), 1,
            cv2.LINE_AA,
        )  # fmt: skip
    return strip


def three_panels(
    frame_HxWx3: np.ndarray, labels_HxW: np.ndarray, predicted_HxW: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Frame | labels | prediction with captions, and a legend of the classes that occur, RGB."""
    panels = {
        "frame": frame_HxWx3,
        "labels": blend(frame_HxWx3, labels_HxW, classes),
        "prediction": blend(frame_HxWx3, predicted_HxW, classes),
    }
    factor = -(-_MIN_PANEL_WIDTH // frame_HxWx3.shape[1])  # so that captions can be read
    row = np.concatenate(
        [
            under_caption(panel.repeat(factor, axis=0).repeat(factor, axis=1), name)
            for name, panel in panels.items()
        ],
        axis=1,
    )
    occurring = np.union1d(labels_HxW, predicted_HxW)
    present = [c for c in occurring if c < classes.num_classes]
    return np.concatenate([row, legend(present, classes, row.shape[1])], axis=0)


def joined(pictures: Sequence[np.ndarray], axis: int, gap: int = 4) -> np.ndarray:
    """Pictures side by side (axis 1) or one above the other (axis 0), white between them."""
    shape = list(pictures[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, white)]
    return np.concatenate(parts[:-1], axis=axis)
