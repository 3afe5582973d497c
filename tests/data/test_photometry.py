"""Photometric augmentation: pixels as the original distorts them, draws within their bounds."""

import cv2
import numpy as np
import pytest

from tmanet_jax.data import photometry
from tmanet_jax.data.photometry import PhotometricDraw


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_a_draw_of_nothing_changes_nothing():
    frame = noise(0, 9, 64, 3)
    np.testing.assert_array_equal(photometry.apply_photometry(frame, PhotometricDraw()), frame)


@pytest.mark.parametrize(
    ("draw", "factor", "offset"),
    [
        (PhotometricDraw(brightness=21.37), 1, 21.37),
        (PhotometricDraw(brightness=-30.9), 1, -30.9),
        (PhotometricDraw(contrast_before=1.387), 1.387, 0),
        (PhotometricDraw(contrast_after=0.613), 0.613, 0),
    ],
)
def test_brightness_and_contrast_truncate(draw, factor, offset):
    frame = noise(0, 9, 64, 3)
    expected = frame.astype(np.float32) * np.float32(factor) + np.float32(offset)
    expected = np.clip(expected, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(photometry.apply_photometry(frame, draw), expected)


@pytest.mark.parametrize("draw", [PhotometricDraw(saturation=1.45), PhotometricDraw(hue=-18)])
def test_rgb_is_distorted_as_the_original_distorts_bgr(draw):
    frame = noise(0, 9, 64, 3)
    hsv = cv2.cvtColor(np.ascontiguousarray(frame[..., ::-1]), cv2.COLOR_BGR2HSV)
    if draw.saturation is not None:
        saturated = hsv[..., 1].astype(np.float32) * np.float32(draw.saturation)
        hsv[..., 1] = np.clip(saturated, 0, 255).astype(np.uint8)
    if draw.hue is not None:
        hsv[..., 0] = (hsv[..., 0].astype(int) + draw.hue) % 180
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[..., ::-1]
    np.testing.assert_array_equal(photometry.apply_photometry(frame, draw), expected)


def test_colours_are_drawn_within_their_bounds_and_half_of_the_time():
    rng = np.random.default_rng(0)
    draws = [photometry.draw_photometry(rng) for _ in range(2000)]
    for name, low, high in (("brightness", -32, 32), ("saturation", 0.5, 1.5), ("hue", -18, 17)):
        values = [getattr(draw, name) for draw in draws if getattr(draw, name) is not None]
        assert 900 < len(values) < 1100
        assert low <= min(values) < max(values) <= high
    contrasts = [(draw.contrast_before, draw.contrast_after) for draw in draws]
    assert not any(None not in pair for pair in contrasts)
    assert 400 < sum(before is not None for before, _ in contrasts) < 600
    assert 400 < sum(after is not None for _, after in contrasts) < 600


def test_the_frames_of_a_clip_share_colours_only_if_asked_to():
    rng = np.random.default_rng(0)
    assert len(set(photometry.draw_clip_photometry(rng, 4, "frame"))) == 4
    assert len(set(photometry.draw_clip_photometry(rng, 4, "clip"))) == 1
    assert set(photometry.draw_clip_photometry(rng, 4, "off")) == {PhotometricDraw()}
