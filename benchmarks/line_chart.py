"""Curves as a picture: a few series of points over one axis, each axis from 0."""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

Point = tuple[float, float]

_HEIGHT, _WIDTH = 360, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 44, 56
_INK, _GRID = (40, 40, 40), (225, 225, 225)
_COLOURS_RGB = ((31, 119, 180), (214, 93, 14), (44, 140, 44), (130, 80, 170))
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclasses.dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes:
        title: above.
        x_name: below, with the unit.
        y_name: below the title, with the unit.
        series: points in the order of x, by the name that the legend gives them.
    """

    title: str
    x_name: str
    y_name: str
    series: Mapping[str, Sequence[Point]]


def draw(chart: Chart) -> np.ndarray:
    """RGB uint8; points are joined by straight lines."""
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    points = [point for series in chart.series.values() for point in series]
    x_ticks, y_ticks = (ticks(max(point[axis] for point in points)) for axis in (0, 1))

    def place(point: Point) -> tuple[int, int]:
        inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        x = _LEFT + inner_width * point[0] / x_ticks[-1]
        return round(x), round(_HEIGHT - _BOTTOM - inner_height * point[1] / y_ticks[-1])

    for tick in y_ticks:
        cv2.line(picture, place((0, tick)), place((x_ticks[-1], tick)), _GRID)
        _write(picture, f"{tick:g}", (6, place((0, tick))[1] + 4))
    for tick in x_ticks:
        cv2.line(picture, place((tick, 0)), place((tick, y_ticks[-1])), _GRID)
        _write(picture, f"{tick:g}", (place((tick, 0))[0] - 10, _HEIGHT - _BOTTOM + 16))
    for index, (name, series) in enumerate(chart.series.items()):
        colour = _COLOURS_RGB[index % len(_COLOURS_RGB)]
        places = [place(point) for point in series]
        cv2.polylines(picture, [np.array(places)], False, colour, 2, cv2.LINE_AA)
        for each in places:
            cv2.circle(picture, each, 3, colour, cv2.FILLED, cv2.LINE_AA)
        _write(picture, name, (_LEFT + 12, _TOP + 16 * (index + 1)), colour)
    _write(picture, chart.title, (6, 16))
    _write(picture, chart.y_name, (6, 34))
    _write(picture, chart.x_name, (_LEFT, _HEIGHT - 14))
    return picture


def ticks(largest: float) -> list[float]:
    """From 0 to the first round number that is not below `largest`, in three to six steps."""
    power = 10.0 ** np.floor(np.log10(max(largest, 1e-9)))
    step = next(
        float(part * power) for part in (0.2, 0.25, 0.5, 1, 2) if largest <= 6 * part * power
    )
    return [step * index for index in range(int(np.ceil(largest / step - 1e-9)) + 1)]


def _write(
    picture: np.ndarray,
    text: str,
    place: tuple[int, int],
    colour_rgb: tuple[int, int, int] = _INK,
) -> None:
    cv2.putText(picture, text, place, _FONT, 0.42, colour_rgb, 1, cv2.LINE_AA)
