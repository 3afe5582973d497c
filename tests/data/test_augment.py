"""Augmentation: against OpenCV on whole frames and the original's colours, draws in bounds."""

from itertools import count

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmanet_jax.data import augment, samples
from tmanet_jax.data.augment import Augmentation, GeometricDraw, PhotometricDraw
from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import Box, keep_ratio_size
from tmanet_jax.models.normalize import normalize


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def cv2_resize(picture, size, interpolation):
    return cv2.resize(picture, (size.width, size.height), interpolation=interpolation)


@st.composite
def crops(draw):
    """A frame's size and how it is resized and cropped, boxes over the edge included."""
    size = Size(draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    ratio = draw(st.one_of(st.sampled_from([0.5, 1.0, 1.5, 2.0]), st.floats(0.5, 2.0)))
    scaled = Size(*(max(1, round(length * ratio)) for length in size))
    height, width = draw(st.integers(1, 180)), draw(st.integers(1, 180))
    top = draw(st.integers(0, max(scaled.height - height, 0)))
    left = draw(st.integers(0, max(scaled.width - width, 0)))
    flips = draw(st.booleans()), draw(st.booleans())
    return size, GeometricDraw(scaled, Box(top, left, height, width), *flips)


def flipped(picture, draw):
    rows, columns = (
        slice(None, None, -1 if flip else 1) for flip in (draw.flip_vertically, draw.flip)
    )
    return picture[rows, columns]


@settings(max_examples=300, deadline=None)
@given(crops(), st.integers(0, 99))
def test_a_window_is_resized_as_the_whole_frame_would_be(size_and_draw, seed):
    size, draw = size_and_draw
    frame = noise(seed, *size, 3)
    expected = flipped(draw.box.of(cv2_resize(frame, draw.scaled_size, cv2.INTER_LINEAR)), draw)
    window = augment.source_window(size, draw)
    result = augment.apply_geometry_to_window(window.of(frame), window, size, draw)
    np.testing.assert_array_equal(result, expected)
    whole = Box(0, 0, *size)
    result = augment.apply_geometry_to_window(frame, whole, size, draw)
    np.testing.assert_array_equal(result, expected)


@settings(max_examples=300, deadline=None)
@given(crops(), st.integers(0, 99))
def test_labels_are_resized_to_the_nearest_neighbour(size_and_draw, seed):
    size, draw = size_and_draw
    labels = noise(seed, *size)
    expected = flipped(draw.box.of(cv2_resize(labels, draw.scaled_size, cv2.INTER_NEAREST)), draw)
    np.testing.assert_array_equal(augment.apply_geometry_to_labels(labels, draw), expected)


def test_frames_and_labels_are_rotated_together_around_the_middle_of_a_crop():
    """By a right angle a pixel goes where exact arithmetic says; corners come from outside."""
    labels = np.zeros((5, 7), np.uint8)
    labels[1, 3] = 9
    frame = np.repeat(labels[..., None], 3, axis=2)
    size = Size(5, 7)
    draw = GeometricDraw(size, Box(0, 0, 5, 7), flip=False, angle=90.0)
    turned = augment.apply_geometry_to_window(frame, Box(0, 0, *size), size, draw)
    assert np.argwhere(turned[..., 0] == 9).tolist() == [[2, 2]]
    labels = augment.apply_geometry_to_labels(labels, draw)
    assert np.argwhere(labels == 9).tolist() == [[2, 2]]
    assert (labels[:, [0, -1]] == 255).all() and (turned[:, [0, -1]] == 0).all()


def test_what_is_off_takes_no_random_number():
    labels = noise(1, 60, 90) % 19
    usual, more = (
        Augmentation((64, 64), vertical_flip_probability=p, rotation_probability=p) for p in (0, 1)
    )
    rngs = [np.random.default_rng(0) for _ in range(2)]
    first, second = map(augment.draw_geometry, rngs, (labels, labels), (usual, more))
    assert (second.scaled_size, second.box, second.flip) == (
        first.scaled_size,
        first.box,
        first.flip,
    )
    assert (first.flip_vertically, first.angle) == (False, 0) and second.flip_vertically
    assert 0 < abs(second.angle) <= 10


def test_a_window_in_the_middle_leaves_the_edges_undecoded():
    size = Size(1024, 2048)
    draw = GeometricDraw(Size(1536, 3072), Box(600, 1200, 300, 300), flip=False)
    window = augment.source_window(size, draw)
    assert 396 <= window.top <= 399
    assert 796 <= window.left <= 799
    assert window.height <= 206
    assert window.width <= 206


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((1024, 2048), (2048, 1024), (1024, 2048)),
        ((1024, 2048), (960, 720), (480, 960)),
        ((1024, 2048), (641, 480), (321, 641)),
        ((720, 960), (960, 720), (720, 960)),
    ],
)
def test_sizes_keep_their_aspect_ratio(size, scale, expected):
    assert keep_ratio_size(Size(*size), scale) == expected


def test_labels_are_varied_if_no_class_has_the_share():
    three_quarters = np.array([[0, 0, 0, 1]], np.uint8)
    assert not augment.is_varied(three_quarters, 0.75)
    assert augment.is_varied(three_quarters, 0.76)
    assert not augment.is_varied(np.array([[0, 0, 0, 255]], np.uint8), 1.1)
    assert not augment.is_varied(np.array([[255, 255]], np.uint8), 1.1)
    assert augment.is_varied(np.array([[0, 1, 255, 255, 255, 255]], np.uint8), 0.75)


def boxes_by_column():
    return (Box(0, left, 4, 4) for left in count())


def test_the_first_varied_box_is_chosen():
    labels = np.zeros((4, 40), np.uint8)
    labels[:2, 6:] = 1
    boxes = boxes_by_column()
    box = augment.choose_box(labels, Size(4, 40), boxes, 0.75)
    assert box.left == 5  # three columns of the right half: a share of 5/8
    assert next(boxes).left == 6


def test_the_eleventh_box_is_taken_unseen():
    boxes = boxes_by_column()
    box = augment.choose_box(np.zeros((4, 40), np.uint8), Size(4, 40), boxes, 0.75)
    assert box.left == 10
    assert next(boxes).left == 11


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_drawn_geometry_stays_within_its_bounds(seed):
    labels = noise(1, 60, 90) % 19
    augmentation = Augmentation((64, 64), ratio_range=(0.5, 2.0))
    draw = augment.draw_geometry(np.random.default_rng(seed), labels, augmentation)
    assert draw == augment.draw_geometry(np.random.default_rng(seed), labels, augmentation)
    assert 30 <= draw.scaled_size.height <= 120
    assert 0 <= draw.box.top <= max(draw.scaled_size.height - 64, 0)
    assert 0 <= draw.box.left <= max(draw.scaled_size.width - 64, 0)
    assert draw.box[2:] == (64, 64)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flips_follow_their_probability(probability):
    augmentation = Augmentation((8, 8), flip_probability=probability)
    draw = augment.draw_geometry(np.random.default_rng(0), noise(0, 20, 20), augmentation)
    assert draw.flip == bool(probability)


def test_padding_goes_to_the_bottom_and_right():
    padded = noise(0, 5, 6, 3)
    augment.fill_padding(padded, Size(3, 4), 7)
    np.testing.assert_array_equal(padded[:3, :4], noise(0, 5, 6, 3)[:3, :4])
    assert np.all(padded[3:] == 7)
    assert np.all(padded[:, 4:] == 7)


@pytest.mark.parametrize("normalize", [normalize, jax.jit(normalize)], ids=["eager", "jit"])
def test_normalised_pixels_are_those_of_numpy_and_their_padding_is_zero(normalize):
    frames = noise(0, 2, 3, 8, 10, 3)
    normalized = normalize(jnp.asarray(frames), jnp.array([[8, 10], [5, 6]]))
    assert normalized.dtype == np.float32
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    std = np.array([58.395, 57.12, 57.375], np.float32)
    expected = (frames - mean) / std
    np.testing.assert_array_equal(normalized[0], expected[0])
    np.testing.assert_array_equal(normalized[1, :, :5, :6], expected[1, :, :5, :6])
    assert np.all(normalized[1, :, 5:] == 0)
    assert np.all(normalized[1, :, :, 6:] == 0)


def test_memory_offsets_are_oldest_first_and_drawn_anew():
    rng = np.random.default_rng(0)
    draws = {tuple(samples.draw_memory_offsets(rng, 2, 4)) for _ in range(200)}
    assert draws == {(4, 3), (4, 2), (4, 1), (3, 2), (3, 1), (2, 1)}
    assert samples.draw_memory_offsets(rng, 3, 3) == [3, 2, 1]
    assert samples.draw_memory_offsets(rng, 0, 3) == []
    assert samples.draw_memory_offsets(rng, 0, 0) == []


def test_a_draw_of_nothing_changes_nothing():
    frame = noise(0, 9, 64, 3)
    augment.distort(frame, PhotometricDraw())
    np.testing.assert_array_equal(frame, noise(0, 9, 64, 3))


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
    augment.distort(frame, draw)
    np.testing.assert_array_equal(frame, expected)


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
    augment.distort(frame, draw)
    np.testing.assert_array_equal(frame, expected)


def test_colours_are_drawn_within_their_bounds_and_half_of_the_time():
    rng = np.random.default_rng(0)
    draws = [augment.draw_photometry(rng) for _ in range(2000)]
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
    assert len(set(augment.draw_clip_photometry(rng, 4, "frame"))) == 4
    assert len(set(augment.draw_clip_photometry(rng, 4, "clip"))) == 1
    assert set(augment.draw_clip_photometry(rng, 4, "off")) == {PhotometricDraw()}
