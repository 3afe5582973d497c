"""Pictures that the street is covered with: sky, ground, house fronts, foliage.

All are drawn at the resolution that the frame asks for (pixels per metre), so larger frames show
more detail rather than larger pixels.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np

from data_prep.street.scene import Colour

WALL_HEIGHT = 14.0  # metres that a wall's picture is tall
GROUND_TILE = 4.0  # metres after which the ground's grain repeats
GROUND_PATCHES = 24.0  # metres after which its patches repeat
_LEVELS = 4


@dataclasses.dataclass(frozen=True)
class Sprite:
    """A flat cut-out picture at several sizes, each half of the one before.

    Channels are BGR, multiplied by alpha, and alpha.
    """

    levels_HxWx4: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Wall:
    """The fronts along one side of the street.

    Level 0 has `pixels_per_metre` both ways.  A wall seen along the street shrinks with depth in
    height and with depth squared in length, so level n is 2**n less tall and 4**n shorter.
    Row 0 is WALL_HEIGHT; alpha is 0 where the sky shows.
    """

    levels_HxWx4: tuple[np.ndarray, ...]
    pixels_per_metre: float
    is_green_W: np.ndarray  # level 0's columns that show plants rather than a house


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], coarsest: float, finest: float = 2.0
) -> np.ndarray:
    """Noise of many scales, -1..1 or a little more, as float32 of `shape`.

    Args:
        rng: source of randomness.
        shape: height and width in pixels.
        coarsest: size of the largest blobs in pixels.
        finest: size of the smallest blobs in pixels.
    """
    height, width = shape
    total_HxW = np.zeros(shape, np.float32)
    cell, amplitude = coarsest, 0.6
    while True:
        cells = (max(2, math.ceil(height / cell) + 1), max(2, math.ceil(width / cell) + 1))
        grid = rng.random(cells, dtype=np.float32) * (2 * amplitude) - amplitude
        total_HxW += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        if cell <= finest:
            return total_HxW
        cell, amplitude = max(cell / 2.5, finest), amplitude * 0.72


@functools.lru_cache(maxsize=4)
def ground_tile(size: int) -> np.ndarray:
    """A grey tile, size x size, float32 around 1, that repeats without a seam."""
    rng = np.random.default_rng(size)
    tile = np.zeros((size, size), np.float32)
    for cell in (1, 2, 6):
        grid = rng.standard_normal((size // cell, size // cell), dtype=np.float32)
        wrapped = np.pad(grid, 2, mode="wrap")
        pad = 2 * cell
        side = (size // cell) * cell
        full = cv2.resize(wrapped, (side + 2 * pad, side + 2 * pad), interpolation=cv2.INTER_LINEAR)
        tile += cv2.resize(full[pad : pad + side, pad : pad + side], (size, size))
    return 1 + 0.045 * tile


@functools.lru_cache(maxsize=4)
def noise_sheet(height: int, width: int) -> np.ndarray:
    """White noise of unit variance, float32 height x width x 3."""
    rng = np.random.default_rng((height, width))
    return rng.standard_normal((height, width, 3), dtype=np.float32)


def sky(rng: np.random.Generator, height: int, width: int, haze: Colour, sun: float) -> np.ndarray:
    """The sky above the horizon: uint8 height x width x 3, clouds and all."""
    blue = np.array([225, 178, 122], np.float32) * rng.uniform(0.9, 1.08)
    grey = np.array([212, 206, 200], np.float32) * rng.uniform(0.9, 1.08)
    zenith = grey + (blue - grey) * min(1.0, 1.6 * sun)
    low_H = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 1.3
    clear_Hx1x3 = zenith + (np.array(haze, np.float32) - zenith) * low_H
    noise_HxW = smooth_noise(rng, (height, width), width / 5, max(2.0, width / 60))
    cover = rng.uniform(-0.25, 0.45)
    cloud_HxWx1 = np.clip((noise_HxW - cover) * 2.2, 0, 1)[..., None]
    shade_HxWx1 = np.clip(1 - 0.3 * (noise_HxW - cover), 0.78, 1)[..., None]
    white = np.array([250, 248, 246], np.float32) * (0.55 + 0.45 * shade_HxWx1)
    return np.clip(clear_Hx1x3 + (white - clear_Hx1x3) * 0.85 * cloud_HxWx1, 0, 255).astype(
        np.uint8
    )


def foliage(
    rng: np.random.Generator, shape: tuple[int, int], colour: Colour, pixels_per_metre: float
) -> np.ndarray:
    """Leaves: float32 height x width x 3, dark gaps, light tips."""
    clumps_HxW = smooth_noise(rng, shape, 0.9 * pixels_per_metre, 0.3 * pixels_per_metre)
    leaves_HxW = smooth_noise(rng, shape, 0.22 * pixels_per_metre, 0.05 * pixels_per_metre + 1)
    bright_HxW = np.clip(0.92 + 0.3 * clumps_HxW + 0.5 * leaves_HxW, 0.28, 1.75)
    yellow_HxW = np.clip(0.16 * leaves_HxW + 0.12 * clumps_HxW, -0.1, 0.25)
    picture_HxWx3 = bright_HxW[..., None] * np.array(colour, np.float32)
    picture_HxWx3[..., 2] *= 1 + yellow_HxW
    return picture_HxWx3


def plant_sprite(
    rng: np.random.Generator, colour: Colour, height: int, pixels_per_metre: float, tree: bool
) -> Sprite:
    """A tree (crown above a trunk) or a bush, `height` pixels tall."""
    width = round(height * (0.72 if tree else 1.4))
    crown = 0.74 if tree else 1.0
    rows_Hx1 = np.linspace(0, 1 / crown, height, dtype=np.float32)[:, None]
    columns_1xW = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    field_HxW = np.full((height, width), -1.0, np.float32)
    for _ in range(9 if tree else 7):
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.26)
        x, y = 0.5 + reach * math.cos(angle), 0.52 + reach * math.sin(angle)
        if not tree:
            x, y = rng.uniform(0.2, 0.8), rng.uniform(0.45, 0.9)
        radius = rng.uniform(0.18, 0.27)
        blob_HxW = 1 - ((columns_1xW - x) ** 2 + (rows_Hx1 - y) ** 2) / radius**2
        np.maximum(field_HxW, blob_HxW, out=field_HxW)
    ragged_HxW = smooth_noise(rng, (height, width), 0.35 * pixels_per_metre)
    alpha_HxW = np.clip((field_HxW + 0.55 * ragged_HxW) * 6 + 0.5, 0, 1)
    light_HxW = 1.22 - 0.5 * rows_Hx1 * crown - 0.14 * (columns_1xW - 0.5)
    picture_HxWx3 = foliage(rng, (height, width), colour, pixels_per_metre) * light_HxW[..., None]
    if tree:
        half = 0.055 + 0.03 * np.maximum(rows_Hx1 * crown - 0.8, 0)
        offset_HxW = np.abs(columns_1xW - 0.5)
        trunk_HxW = (offset_HxW < half) & (rows_Hx1 > 0.5) & (alpha_HxW < 0.5)
        bark = np.array([44, 60, 76], np.float32)
        grain_HxWx1 = (1 + 0.4 * ragged_HxW - 2.5 * (columns_1xW - 0.5))[..., None]
        picture_HxWx3 = np.where(trunk_HxW[..., None], bark * grain_HxWx1, picture_HxWx3)
        alpha_HxW = np.maximum(alpha_HxW, trunk_HxW)
    picture_HxWx3 = np.clip(picture_HxWx3, 0, 255) * alpha_HxW[..., None]
    level = np.dstack([picture_HxWx3, 255 * alpha_HxW]).astype(np.uint8)
    level_count = max(1, int(math.log2(min(height, width) / 8)))
    return Sprite(_pyramid(level, level_count, (2, 2)))


def _pyramid(
    picture_HxWx4: np.ndarray, level_count: int, shrinkage: tuple[int, int]
) -> tuple[np.ndarray, ...]:
    """A picture at several sizes, each less tall and less wide by the factors `shrinkage`."""
    levels: list[np.ndarray] = [picture_HxWx4]
    while len(levels) < level_count:
        height, width = levels[-1].shape[:2]
        size = (max(1, width // shrinkage[1]), max(1, height // shrinkage[0]))
        levels.append(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA))
    return tuple(levels)


_FRONTS: tuple[Colour, ...] = (
    (96, 112, 158),
    (78, 92, 140),
    (150, 186, 206),
    (176, 196, 206),
    (128, 160, 190),
    (120, 150, 200),
    (150, 160, 166),
    (172, 168, 158),
    (110, 118, 128),
    (140, 178, 214),
)
_AWNINGS: tuple[Colour, ...] = (
    (50, 40, 140),
    (90, 60, 30),
    (50, 90, 40),
    (40, 110, 180),
    (60, 60, 60),
    (120, 50, 80),
)


def _rows(height_m: float, pixels_per_metre: float) -> int:
    return max(1, round(height_m * pixels_per_metre))


def house_front(
    rng: np.random.Generator, width: int, height: int, pixels_per_metre: float
) -> np.ndarray:
    """A front with rows of windows over shops or a plinth: float32 height x width x 3."""
    ppm = pixels_per_metre
    colour = np.array(_FRONTS[rng.integers(len(_FRONTS))], np.float32) * rng.uniform(0.8, 1.12)
    stain_HxW = 1 + 0.09 * smooth_noise(rng, (height, width), 3 * ppm)
    front_HxWx3 = stain_HxW[..., None] * colour
    if rng.random() < 0.45:
        _lay_bricks(front_HxWx3, ppm)
    floor, bay = _rows(rng.uniform(2.8, 3.4), ppm), _rows(rng.uniform(1.9, 3.2), ppm)
    ground = _rows(rng.uniform(3.2, 4.0), ppm)
    glass = np.array([104, 88, 74], np.float32) * rng.uniform(0.55, 1.0)
    frame = colour * 0.6 if rng.random() < 0.4 else np.array([215, 222, 226], np.float32)
    wide, tall = rng.uniform(0.42, 0.72), rng.uniform(0.5, 0.66)
    border = max(1, round(0.09 * ppm))
    for bottom in range(height - ground, floor, -floor):
        top = bottom - floor + round(0.5 * (1 - tall) * floor)
        for left in range(round(0.2 * bay), width - bay, bay):
            right, low = left + round(wide * bay), top + round(tall * floor)
            front_HxWx3[top - border : low + border, left - border : right + border] = frame
            shine = np.linspace(rng.uniform(0.9, 1.9), 0.75, low - top)[:, None, None]
            front_HxWx3[top:low, left:right] = glass * shine
            if rng.random() < 0.3:
                curtain = round(rng.uniform(0.2, 0.6) * (low - top))
                front_HxWx3[top : top + curtain, left:right] = (150, 180, 196)
            middle = (left + right) // 2
            front_HxWx3[top:low, middle : middle + max(1, border // 2)] = frame
        front_HxWx3[bottom - floor : bottom - floor + border] *= 0.82
    _dress_ground_floor(rng, front_HxWx3[height - ground :], glass, ppm)
    front_HxWx3[: _rows(0.35, ppm)] *= 0.7
    front_HxWx3[:, : max(1, border)] *= 0.72
    return front_HxWx3


def _lay_bricks(front_HxWx3: np.ndarray, pixels_per_metre: float) -> None:
    course = max(2, round(0.16 * pixels_per_metre))
    brick = 3 * course
    front_HxWx3[::course] *= 0.86
    if course > 4:
        for shift, first in ((0, 0), (brick // 2, course)):
            for row in range(1, course):
                front_HxWx3[first + row :: 2 * course, shift::brick] *= 0.86


def _dress_ground_floor(
    rng: np.random.Generator, part_HxWx3: np.ndarray, glass: np.ndarray, pixels_per_metre: float
) -> None:
    ppm = pixels_per_metre
    height, width = part_HxWx3.shape[:2]
    if rng.random() < 0.6:
        awning = np.array(_AWNINGS[rng.integers(len(_AWNINGS))], np.float32)
        part_HxWx3[_rows(0.2, ppm) : _rows(0.9, ppm)] = awning * rng.uniform(0.8, 1.3)
        pane = _rows(rng.uniform(1.8, 3.0), ppm)
        for left in range(_rows(0.3, ppm), width - pane // 2, pane + _rows(0.3, ppm)):
            part = part_HxWx3[_rows(1.0, ppm) : height - _rows(0.45, ppm), left : left + pane]
            shine = np.linspace(1.5, 0.7, part.shape[0], dtype=np.float32)[:, None, None]
            part[:] = glass * rng.uniform(0.7, 1.2) * shine
    else:
        gap = _rows(rng.uniform(2.2, 3.4), ppm)
        for left in range(_rows(0.8, ppm), width - gap // 2, gap):
            door = rng.random() < 0.3
            top, low = _rows(0.9, ppm), height - (1 if door else _rows(1.0, ppm))
            colour = np.array([40, 52, 74], np.float32) if door else glass
            part_HxWx3[top:low, left : left + _rows(1.1, ppm)] = colour
    part_HxWx3[height - _rows(0.35, ppm) :] *= 0.62


def _roof(
    rng: np.random.Generator, shape: tuple[int, int], top: int, pixels_per_metre: float
) -> np.ndarray:
    """Alpha of what rises above the front's row `top`: nothing, or a row of gables."""
    alpha_HxW = np.zeros(shape, np.uint8)
    width = shape[1]
    if rng.random() < 0.35:
        gables = max(1, round(width / (6 * pixels_per_metre)))
        rise = min(top, _rows(2.0, pixels_per_metre))
        for edges in np.array_split(np.arange(width), gables):
            peak = (edges[0] + edges[-1]) // 2
            corners = [[edges[0], top], [peak, top - rise], [edges[-1], top]]
            cv2.fillConvexPoly(alpha_HxW, np.array(corners, np.int32), 255, cv2.LINE_AA)
    return alpha_HxW[:top]


def _house(
    rng: np.random.Generator, shape: tuple[int, int], pixels_per_metre: float, brightness: float
) -> np.ndarray:
    """A house from the wall's full height down to the ground: uint8, premultiplied, alpha last."""
    house_HxWx4 = np.zeros((*shape, 4), np.uint8)
    top = shape[0] - _rows(rng.uniform(5.0, 12.5), pixels_per_metre)
    alpha_RxW = _roof(rng, shape, top, pixels_per_metre)
    tiles = np.array([58, 66, 104]) * rng.uniform(0.7, 1.2) * brightness / 255
    house_HxWx4[:top, :, :3] = alpha_RxW[..., None] * tiles
    house_HxWx4[:top, :, 3] = alpha_RxW
    front_HxWx3 = house_front(rng, shape[1], shape[0] - top, pixels_per_metre)
    house_HxWx4[top:, :, :3] = cv2.convertScaleAbs(front_HxWx3, alpha=brightness)
    house_HxWx4[top:, :, 3] = 255
    return house_HxWx4


def _hedge(
    rng: np.random.Generator,
    shape: tuple[int, int],
    colour: Colour,
    pixels_per_metre: float,
    brightness: float,
) -> np.ndarray:
    """A hedge with an uneven top, like `_house` in kind."""
    height, width = shape
    tall = rng.uniform(2.2, 6.0)
    outline_W = smooth_noise(rng, (2, width), 3 * pixels_per_metre, 0.5 * pixels_per_metre)[0]
    top_W = height - (tall + 0.8 * outline_W) * pixels_per_metre
    first = max(0, int(top_W.min()))
    rows_Rx1 = np.arange(first, height, dtype=np.float32)[:, None]
    alpha_RxW = np.clip(rows_Rx1 - top_W + 0.5, 0, 1)
    leaves_RxWx3 = foliage(rng, (height - first, width), colour, pixels_per_metre)
    leaves_RxWx3 *= alpha_RxW[..., None] * np.float32(brightness * rng.uniform(0.75, 1.0))
    hedge_HxWx4 = np.zeros((height, width, 4), np.uint8)
    hedge_HxWx4[first:, :, :3] = np.minimum(leaves_RxWx3, 255)
    hedge_HxWx4[first:, :, 3] = 255 * alpha_RxW
    return hedge_HxWx4


def wall(
    rng: np.random.Generator,
    length: float,
    pixels_per_metre: float,
    foliage_colour: Colour,
    brightness: float,
    green_share: float,
) -> Wall:
    """Draws the houses and hedges along `length` metres."""
    ppm = pixels_per_metre
    height, width = _rows(WALL_HEIGHT, ppm), _rows(length, ppm)
    picture_HxWx4 = np.empty((height, width, 4), np.uint8)
    is_green_W = np.zeros(width, bool)
    left = 0
    while left < width:
        is_green = rng.random() < green_share
        right = min(left + _rows(rng.uniform(6, 13), ppm), width)
        shape = (height, right - left)
        if is_green:
            part = _hedge(rng, shape, foliage_colour, ppm, brightness)
        else:
            part = _house(rng, shape, ppm, brightness)
        picture_HxWx4[:, left:right] = part
        is_green_W[left:right] = is_green
        left = right
    return Wall(_pyramid(picture_HxWx4, _LEVELS, (2, 4)), ppm, is_green_W)
