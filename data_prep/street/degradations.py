"""What goes wrong in a camera for one frame: noise, glare, rows and blocks lost in readout."""

import math

import cv2
import numpy as np


def degrade(rng: np.random.Generator, image_HxWx3: np.ndarray) -> np.ndarray:
    """Returns a copy of an image (uint8) with one or two faults, drawn at random."""
    faults = (_glare, _noise, _lost_bands, _lost_blocks)  # from the lens to the stream
    chosen = rng.choice(len(faults), size=2 if rng.random() < 0.5 else 1, replace=False)
    degraded_HxWx3 = image_HxWx3.copy()
    for index in sorted(chosen):
        degraded_HxWx3 = faults[index](rng, degraded_HxWx3)
    return degraded_HxWx3


def _noise(rng: np.random.Generator, image_HxWx3: np.ndarray) -> np.ndarray:
    """A sensor short of light: low contrast under coarse, strong noise."""
    height, width = image_HxWx3.shape[:2]
    cell = max(1, round(width / 512))
    grain_shape = (math.ceil(height / cell), math.ceil(width / cell), 3)
    grain = rng.standard_normal(grain_shape, dtype=np.float32) * rng.uniform(35, 65)
    grain_HxWx3 = cv2.resize(grain, (width, height), interpolation=cv2.INTER_NEAREST)
    dim_HxWx3 = (image_HxWx3 - 100.0) * rng.uniform(0.35, 0.6) + rng.uniform(60, 110)
    return np.clip(dim_HxWx3 + grain_HxWx3, 0, 255).astype(np.uint8)


def _glare(rng: np.random.Generator, image_HxWx3: np.ndarray) -> np.ndarray:
    """A saturated bloom with a veil over the whole picture."""
    height, width = image_HxWx3.shape[:2]
    x = rng.uniform(0.2, 0.8) * width
    y = rng.uniform(0.25, 0.6) * height
    radius = rng.uniform(0.4, 0.65) * height
    columns_1xW = np.arange(width, dtype=np.float32)[None, :]
    rows_Hx1 = np.arange(height, dtype=np.float32)[:, None]
    distance_HxW = np.hypot(columns_1xW - x, rows_Hx1 - y) / radius
    bloom_HxW = np.exp(-(distance_HxW**2)) * rng.uniform(1.5, 2.2) + rng.uniform(0.12, 0.35)
    flare = np.array([225, 245, 255], np.float32)
    return np.clip(image_HxWx3 + bloom_HxW[..., None] * flare, 0, 255).astype(np.uint8)


def _lost_bands(rng: np.random.Generator, image_HxWx3: np.ndarray) -> np.ndarray:
    """Bands of rows that were not read out: black, grey, garbage, or one row repeated."""
    height, width = image_HxWx3.shape[:2]
    image_HxWx3 = image_HxWx3.copy()
    for _ in range(rng.integers(3, 6)):
        tall = round(rng.uniform(0.09, 0.17) * height)
        top = int(rng.integers(0, height - tall))
        band = image_HxWx3[top : top + tall]
        kind = rng.integers(4)
        if kind == 0:
            band[:] = 0
        elif kind == 1:
            band[:] = 128
        elif kind == 2:
            band[:] = rng.integers(0, 256, (1, width, 3), dtype=np.uint8)
        else:
            band[:] = band[:1].copy()
    return image_HxWx3


def _lost_blocks(rng: np.random.Generator, image_HxWx3: np.ndarray) -> np.ndarray:
    """Square blocks without content, as a broken video stream shows them."""
    height, width = image_HxWx3.shape[:2]
    side = max(1, round(height / 8))
    grid = (math.ceil(height / side), math.ceil(width / side))
    is_lost = rng.random(grid) < rng.uniform(0.35, 0.55)
    colours = rng.integers(60, 200, (*grid, 1), dtype=np.uint8).repeat(3, axis=2)
    is_lost_HxW = is_lost.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    colours_HxWx3 = colours.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    return np.where(is_lost_HxW[..., None], colours_HxWx3, image_HxWx3)
