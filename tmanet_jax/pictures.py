"""Pictures for people, RGB: labels over a frame, captions, a legend, a confusion matrix."""

import base64
from collections.abc import Collection, Sequence

import cv2
import numpy as np

from tmanet_jax.data.classes import ClassSet

_OPACITY = 0.6
_MIN_PANEL_WIDTH = 512
_MAX_PANEL_WIDTH = 1024
_WRONG_RGB = np.array([214, 40, 40], np.uint8)
_CAPTION_HEIGHT = 28
_LEGEND_COLUMNS = 10
_FAINT = 0.3
_FONT = cv2.FONT_HERSHEY_SIMPLEX

_CELL = 44
_LEAST_MARGIN = 170
_INK = (40, 40, 40)
_FULL_RGB = np.array([8, 81, 156])


def blend(frame_HxWx3: np.ndarray, labels_HxW: np.ndarray, classes: ClassSet) -> np.ndarray:
    """The labels' colours over the frame in pale grey, RGB uint8 HxWx3.

    Over colours they would mix with an object's, and be taken for those of another class.
    """
    painted_HxWx3 = classes.paint(labels_HxW)
    return cv2.addWeighted(painted_HxWx3, _OPACITY, pale(frame_HxWx3), 1 - _OPACITY, 0)


def visible(labels_HxW: np.ndarray, classes: ClassSet) -> tuple[int, ...]:
    """The classes that have a thousandth of a picture's pixels or more, in their order."""
    pixels_256 = cv2.calcHist([labels_HxW], [0], None, [256], [0, 256]).ravel()
    is_visible_C = pixels_256[: classes.num_classes] >= labels_HxW.size / 1000
    return tuple(np.flatnonzero(is_visible_C).tolist())


def under_caption(panel_HxWx3: np.ndarray, caption: str) -> np.ndarray:
    """Writes a caption above a panel, in black on white."""
    strip = np.full((_CAPTION_HEIGHT, panel_HxWx3.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (8, 20), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, panel_HxWx3], axis=0)


def legend(
    present: Sequence[int], classes: ClassSet, width: int, faint: Collection[int] = ()
) -> np.ndarray:
    """A strip of that width with the colours and names of these classes, RGB uint8 hxWx3.

    Args:
        present: the classes.
        classes: their names and colours.
        width: in pixels.
        faint: those of them that are only just shown.
    """
    widths = [cv2.getTextSize(classes.names[index], _FONT, 0.45, 1)[0][0] for index in present]
    cell = max(widths, default=0) + 40
    columns = min(max(width // cell, 1), _LEGEND_COLUMNS)
    rows = max(-(-len(present) // columns), 1)
    strip = np.full((rows * _CAPTION_HEIGHT, width, 3), 255, np.uint8)
    for place, index in enumerate(present):
        share = _FAINT if index in faint else 1.0
        left = place % columns * (width // columns) + 8
        top = place // columns * _CAPTION_HEIGHT + 6
        colour = tuple(255 - share * (255 - value) for value in classes.palette_Cx3[index])
        cv2.rectangle(strip, (left, top), (left + 16, top + 16), colour, cv2.FILLED)
        cv2.putText(
            strip, classes.names[index], (left + 22, top + 14), _FONT, 0.45,
            (255 - share * 255,) * 3, 1, cv2.LINE_AA,
        )  # fmt: skip
    return strip


def comparison(
    frames_SxHxWx3: np.ndarray, labels_HxW: np.ndarray, predicted_HxW: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Memory frames, frame, labels, prediction and errors in two rows, over a legend. RGB uint8.

    An error is red, and a pixel without a label is left out.
    """
    memory_TxHxWx3, frame_HxWx3 = frames_SxHxWx3[:-1], frames_SxHxWx3[-1]
    is_labelled_HxW = labels_HxW < classes.num_classes
    is_wrong_HxW = is_labelled_HxW & (labels_HxW != predicted_HxW)
    panels = [
        *((f"memory {place}", memory) for place, memory in enumerate(memory_TxHxWx3, start=1)),
        ("frame", frame_HxWx3),
        ("labels", blend(frame_HxWx3, labels_HxW, classes)),
        ("prediction", blend(frame_HxWx3, predicted_HxW, classes)),
        (f"errors: {_percent(is_wrong_HxW.sum(), is_labelled_HxW.sum())}",
         np.where(is_wrong_HxW[..., None], _WRONG_RGB, pale(frame_HxWx3))),
    ]  # fmt: skip
    rows = grid(panels)
    occurring = np.union1d(labels_HxW, predicted_HxW)
    present = [c for c in occurring if c < classes.num_classes]
    return joined([rows, legend(present, classes, rows.shape[1])], axis=0)


def grid(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Panels of one size under their captions, in two rows, RGB uint8."""
    drawn = [under_caption(_of_shown_width(panel), caption) for caption, panel in panels]
    columns = -(-len(drawn) // 2)
    drawn += [np.full_like(drawn[0], 255)] * (2 * columns - len(drawn))
    return joined(
        [joined(drawn[:columns], axis=1), joined(drawn[columns:], axis=1)],
        axis=0,
    )


def pale(frame_HxWx3: np.ndarray) -> np.ndarray:
    """In grey, of half the contrast, between middle grey and white."""
    grey_HxW = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(128 + grey_HxW // 2, cv2.COLOR_GRAY2RGB)


def _of_shown_width(panel_HxWx3: np.ndarray) -> np.ndarray:
    """Wide enough for its caption, and no wider than a screen shows."""
    height, width, _ = panel_HxWx3.shape
    factor = -(-_MIN_PANEL_WIDTH // width)
    if factor > 1:
        return panel_HxWx3.repeat(factor, axis=0).repeat(factor, axis=1)
    if width <= _MAX_PANEL_WIDTH:
        return panel_HxWx3
    size = (_MAX_PANEL_WIDTH, max(1, round(height * _MAX_PANEL_WIDTH / width)))
    return cv2.resize(panel_HxWx3, size, interpolation=cv2.INTER_AREA)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "no labels"


def joined(pictures: Sequence[np.ndarray], axis: int, gap: int = 4) -> np.ndarray:
    """Pictures side by side (axis 1) or one above the other (axis 0), white between them."""
    shape = list(pictures[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, white)]
    return np.concatenate(parts[:-1], axis=axis)


def confusion(shares_KxK: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Labels in rows, predictions in columns; percent of the label's pixels. RGB uint8.

    Args:
        shares_KxK: of each label's pixels by prediction, from 0 to 1.
        names: of the K classes.
    """
    widest = max((cv2.getTextSize(name, _FONT, 0.5, 1)[0][0] for name in names), default=0)
    margin = max(_LEAST_MARGIN, widest + _CAPTION_HEIGHT * 2)
    size = margin + _CELL * len(names)
    picture = np.full((size, size, 3), 255, np.uint8)
    for row, name in enumerate(names):
        for column in range(len(names)):
            _draw_cell(picture, margin, (row, column), shares_KxK[row, column])
        _draw_names(picture, margin + row * _CELL, margin, name)
    _write(picture, "labels (rows), predictions (columns),", (8, 20), 0.38)
    _write(picture, "percent of a row", (8, 38), 0.38)
    return picture


def _draw_cell(picture: np.ndarray, margin: int, cell: tuple[int, int], share: float) -> None:
    top, left = (margin + place * _CELL for place in cell)
    colour = np.round(255 + (0.04 + 0.96 * share) * (_FULL_RGB - 255)).astype(np.uint8)
    picture[top + 1 : top + _CELL, left + 1 : left + _CELL] = colour
    if share >= 0.005:
        ink = (255, 255, 255) if share > 0.5 else _INK
        text = f"{100 * share:.0f}"
        width = cv2.getTextSize(text, _FONT, 0.45, 1)[0][0]
        _write(picture, text, (left + (_CELL - width) // 2, top + _CELL // 2 + 5), 0.45, ink)


def _draw_names(picture: np.ndarray, place: int, margin: int, name: str) -> None:
    _write(picture, name, (8, place + _CELL // 2 + 5), 0.5)
    upright = np.full((_CELL, margin - 48, 3), 255, np.uint8)
    _write(upright, name, (4, _CELL // 2 + 5), 0.5)
    turned = np.rot90(upright)
    picture[margin - turned.shape[0] : margin, place : place + _CELL] = turned


def _write(
    picture: np.ndarray,
    text: str,
    place: tuple[int, int],
    scale: float,
    ink: tuple[int, int, int] = _INK,
) -> None:
    cv2.putText(picture, text, place, _FONT, scale, ink, 1, cv2.LINE_AA)


def jpeg_uri(picture_HxWx3: np.ndarray) -> str:
    """An RGB picture as the address of an image in a page."""
    return _data_uri("jpeg", ".jpg", picture_HxWx3, [cv2.IMWRITE_JPEG_QUALITY, 85])


def png_uri(picture_HxWx3: np.ndarray) -> str:
    """The same without loss."""
    return _data_uri("png", ".png", picture_HxWx3, [])


def _data_uri(kind: str, suffix: str, picture_HxWx3: np.ndarray, options: list[int]) -> str:
    _, encoded = cv2.imencode(suffix, picture_HxWx3[:, :, ::-1], options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
