"""The confusion matrix as a picture."""

import cv2
import numpy as np

from tmanet_jax.data.classes import ClassSet

_CELL = 44
_MARGIN = 170
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)
_FULL_RGB = np.array([8, 81, 156])


def row_shares(confusion_CxC: np.ndarray) -> np.ndarray:
    """Each label's pixels by prediction, as shares of 1; 0 for a label that does not occur."""
    labelled_Cx1 = confusion_CxC.sum(1, keepdims=True)
    return confusion_CxC / np.maximum(labelled_Cx1, 1)


def confusion_picture(confusion_CxC: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Labels in rows, predictions in columns; percent of the label's pixels. RGB uint8."""
    shares_CxC = row_shares(confusion_CxC)
    size = _MARGIN + _CELL * classes.num_classes
    picture = np.full((size, size, 3), 255, np.uint8)
    for row in range(classes.num_classes):
        for column in range(classes.num_classes):
            _draw_cell(picture, row, column, shares_CxC[row, column])
        _draw_names(picture, row, classes)
    _write(picture, "labels (rows), predictions (columns),", (8, 20), 0.38)
    _write(picture, "percent of a row", (8, 38), 0.38)
    return picture


def _draw_cell(picture: np.ndarray, row: int, column: int, share: float) -> None:
    top, left = _MARGIN + row * _CELL, _MARGIN + column * _CELL
    colour = np.round(255 + (0.04 + 0.96 * share) * (_FULL_RGB - 255)).astype(np.uint8)
    picture[top + 1 : top + _CELL, left + 1 : left + _CELL] = colour
    if share >= 0.005:
        ink = (255, 255, 255) if share > 0.5 else _INK
        _write(picture, f"{100 * share:.0f}", (left + 10, top + _CELL // 2 + 5), 0.45, ink)


def _draw_names(picture: np.ndarray, index: int, classes: ClassSet) -> None:
    name, place = classes.names[index], _MARGIN + index * _CELL
    _write(picture, name, (8, place + _CELL // 2 + 5), 0.5)
    upright = np.full((_CELL, _MARGIN - 48, 3), 255, np.uint8)
    _write(upright, name, (4, _CELL // 2 + 5), 0.5)
    turned = np.rot90(upright)
    picture[_MARGIN - turned.shape[0] : _MARGIN, place : place + _CELL] = turned


def _write(
    picture: np.ndarray,
    text: str,
    place: tuple[int, int],
    scale: float,
    ink: tuple[int, int, int] = _INK,
) -> None:
    cv2.putText(picture, text, place, _FONT, scale, ink, 1, cv2.LINE_AA)
