"""Transforms of training clips, given what the original drew.

The original draws from numpy's old global generator; this project from `numpy.random.Generator`, so
that its own draws differ. Pictures are BGR there and RGB here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np

from tests.parity.goldens import Case, at_least_one, every_nth
from tmanet_jax.data import augment
from tmanet_jax.data.augment import Augmentation, GeometricDraw, PhotometricDraw
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import (
    Box,
    keep_ratio_size,
    resize_frame,
    resize_labels,
    scaled_size,
)
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB, normalize

SAME_EVERYWHERE_WIDTH = 64
"""OpenCV's HSV -> BGR of rows of a multiple of this does not depend on version and processor."""
ONE_HSV_TRIP, HSV_AND_MORE = 1, 4
"""Grey levels that other rows may differ by: after saturation or hue; after both, or contrast."""

RATIO_RANGE = (0.5, 2.0)
CAT_MAX_RATIO = 0.75


class LegacyGenerator(np.random.Generator):
    """The original's draws: numpy's old generator behind the new one's interface."""

    def __init__(self, seed: int):
        bits = np.random.MT19937()
        self.legacy = np.random.RandomState(bits)
        self.legacy.seed(seed)
        super().__init__(bits)

    def integers(self, high: int) -> int:  # type: ignore[override] # the one form that is called
        return int(self.legacy.randint(0, high))


def check_resize(case: Case) -> None:
    """Sizes, rounding, bilinear pictures and nearest labels."""
    sources: dict[int, int] = {}
    for facts in case.facts["cases"]:
        source = facts["src"]
        index = sources.setdefault(source, 0)
        sources[source] += 1
        size = Size(*case.arrays[f"src{source}_img"].shape[:2])
        width, height = facts["img_scale"]
        assert [int(width * facts["ratio"]), int(height * facts["ratio"])] == facts["scale"]
        out = keep_ratio_size(size, tuple(facts["scale"]))
        assert [*out, 3] == facts["out"]
        if tuple(size) == (height, width):
            assert scaled_size(size, facts["ratio"]) == out
        for what, expected in at_least_one(case.expected(f"src{source}_u{index}_")).items():
            picture = case.arrays[f"src{source}_{what}"]
            resize = resize_labels if what == "seg" else resize_frame
            np.testing.assert_array_equal(resize(picture, out), expected)
    for height, width, *scale_and_out in at_least_one(case.facts["shape_table_HWscale_hw"]):
        scale, out_size = tuple(scale_and_out[:2]), tuple(scale_and_out[2:])
        assert keep_ratio_size(Size(height, width), scale) == out_size
    for index, facts in enumerate(at_least_one(case.facts["keep_ratio_cases"])):
        _check_keep_ratio(case, index, facts)


def _check_keep_ratio(case: Case, index: int, facts: Mapping[str, Any]) -> None:
    size = Size(facts["H"], facts["W"])
    frame = _coarse_frame(size)
    out = keep_ratio_size(size, tuple(facts["scale"]))
    assert [*out, 3] == facts["out"]
    assert (out == size) == facts["identity"]
    for name, expected in at_least_one(case.expected(f"test{index}_")).items():
        source = frame[:, ::-1] if name.startswith("seq") else frame
        resized = resize_frame(np.ascontiguousarray(source), out)
        np.testing.assert_array_equal(_thinned(resized, expected), expected)


def _coarse_frame(size: Size) -> np.ndarray:
    """The input picture, by the case's recipe."""
    height, width = size
    rng = np.random.default_rng(height * 10000 + width)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    blocks = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noisy = blocks + rng.integers(-30, 31, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def _thinned(picture: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Every so many rows and columns, as many as were kept."""
    height, width = expected.shape[:2]
    return every_nth(every_nth(picture, height, axis=0), width, axis=1)


def check_crop(case: Case) -> None:
    """The boxes drawn, the one used, what is inside, and the draws that this took."""
    match = re.search(r"cat_max_ratio=([\d.]+)", case.facts["what"])
    cat_max_ratio = float(match[1]) if match else CAT_MAX_RATIO
    for index, facts in enumerate(case.facts["cases"]):
        labels = case.arrays[f"seg_{facts['seg']}"]
        size = Size(*labels.shape)
        rng = LegacyGenerator(facts["legacy_seed"])
        boxes = _Recorded(augment.draw_boxes(rng, size, tuple(facts["crop_size"])))
        box = augment.choose_box(labels, size, boxes, cat_max_ratio)
        assert [_ends(drawn) for drawn in boxes.taken] == facts["boxes_drawn_y1_y2_x1_x2"]
        assert len(boxes.taken) == facts["n_drawn"]
        assert _ends(box) == facts["used"]
        assert rng.legacy.randint(2**31) == facts["state_after"]
        crop = box.of(case.arrays["img"])
        assert list(crop.shape) == facts["out"]
        expected = case.arrays[f"out{index}_img"]
        np.testing.assert_array_equal(_thinned(crop, expected), expected)
        np.testing.assert_array_equal(box.of(labels), case.arrays[f"out{index}_seg"])


class _Recorded(Iterator[Box]):
    """Boxes, with those that were taken."""

    def __init__(self, boxes: Iterator[Box]):
        self._boxes = boxes
        self.taken: list[Box] = []

    def __next__(self) -> Box:
        self.taken.append(next(self._boxes))
        return self.taken[-1]


def _ends(box: Box) -> list[int]:
    return [box.top, box.top + box.height, box.left, box.left + box.width]


def _box(y1: int, y2: int, x1: int, x2: int) -> Box:
    return Box(y1, x1, y2 - y1, x2 - x1)


def check_flip_normalize_pad(case: Case) -> None:
    """Mirroring, normalising, padding. This project flips left and right only, and keeps HxWxC."""
    arrays, facts = case.arrays, case.facts
    np.testing.assert_allclose(facts["norm"]["mean"], MEAN_RGB)
    np.testing.assert_allclose(facts["norm"]["std"], STD_RGB)
    for what in ("img", "seq", "seg"):
        flipped = augment.flip(arrays[what])
        np.testing.assert_array_equal(flipped, arrays[f"flip_horizontal_{what}"])
        turned = augment.flip(arrays[what].swapaxes(0, 1)).swapaxes(0, 1)
        np.testing.assert_array_equal(turned, arrays[f"flip_vertical_{what}"])
    augmentation = Augmentation(crop_size=(8, 8))
    for seed, is_flipped in at_least_one(facts["flip_by_legacy_seed"]):
        drawn = np.random.RandomState(seed).rand() < augmentation.flip_probability
        assert drawn == is_flipped
    np.testing.assert_array_equal(_normalized(arrays["img"]), arrays["norm_bgr_img"])
    pad_size = tuple(facts["pad_size"])
    for what in ("img", "seq"):
        rgb = arrays[what][..., ::-1]
        np.testing.assert_array_equal(_normalized(rgb), arrays[f"norm_{what}"])
        np.testing.assert_array_equal(_normalized(rgb, pad_size), arrays[f"pad_{what}"])
    labels = _padded(arrays["seg"], pad_size, IGNORE)
    np.testing.assert_array_equal(labels, arrays["pad_seg"])
    np.testing.assert_array_equal(labels[None], arrays["bundle_seg"])
    network_input = np.moveaxis(_normalized(arrays["img"][..., ::-1], pad_size), -1, 0)
    np.testing.assert_array_equal(network_input, arrays["bundle_img"])


def _padded(picture_HxW: np.ndarray, size: tuple[int, ...], value: int) -> np.ndarray:
    """The picture in the corner of a larger one, as it lies in a batch."""
    padded = np.empty((*size, *picture_HxW.shape[2:]), np.uint8)
    padded[: picture_HxW.shape[0], : picture_HxW.shape[1]] = picture_HxW
    augment.fill_padding(padded, Size(*picture_HxW.shape[:2]), value)
    return padded


def _normalized(frame_HxWx3: np.ndarray, pad_size: tuple[int, ...] | None = None) -> np.ndarray:
    """Padded as uint8, then normalised and blanked, as training does."""
    size = frame_HxWx3.shape[:2]
    height, width = pad_size or size
    padded_1x1xHxWx3 = _padded(frame_HxWx3, (height, width), 0)[None, None]
    normalized = normalize(jnp.asarray(padded_1x1xHxWx3), jnp.array([size]))
    return np.asarray(normalized)[0, 0]


def check_photometric(case: Case) -> None:
    """Colours distorted by given draws, under the running OpenCV's version."""
    for facts in case.facts["cases"]:
        (draw,) = photometric_draws(facts["draws"])
        expected = case.arrays[f"out_{facts['name']}"]
        if cv2.__version__.startswith("4."):
            expected = case.arrays.get(f"out_cv4_{facts['name']}", expected)
        _check_distorted(case.arrays["img"], draw, expected)
    draws = photometric_draws(case.facts["seeded"]["draws"])
    seeded_in = at_least_one(case.arrays["seeded_in"])
    frames = zip(seeded_in, draws, case.arrays["seeded_out"], strict=True)
    for frame, draw, expected in frames:
        _check_distorted(frame, draw, expected)


def _check_distorted(frame_bgr: np.ndarray, draw: PhotometricDraw, expected: np.ndarray) -> None:
    distorted = frame_bgr[..., ::-1].copy()
    augment.distort(distorted, draw)
    difference = np.abs(distorted[..., ::-1].astype(int) - expected).max()
    assert difference <= _grey_levels(draw, frame_bgr.shape[1]), f"{draw} off by {difference}"


def _grey_levels(draw: PhotometricDraw, width: int) -> int:
    """How far OpenCVs may lie apart after this draw, on rows of this width."""
    trips = (draw.saturation is not None) + (draw.hue is not None)
    if not trips or width % SAME_EVERYWHERE_WIDTH == 0:
        return 0
    return ONE_HSV_TRIP if trips == 1 and draw.contrast_after is None else HSV_AND_MORE


def photometric_draws(log: Iterable[Sequence[Any]]) -> list[PhotometricDraw]:
    """The original's log of draws, ['randint', args, value], as one draw a frame."""
    values = [value for _, _, value in log]

    def maybe() -> Any:
        return values.pop(0) if values.pop(0) else None

    draws = []
    while values:
        brightness = maybe()
        contrast_is_first = values.pop(0)
        before = maybe() if contrast_is_first else None
        saturation, hue = maybe(), maybe()
        after = None if contrast_is_first else maybe()
        draws.append(PhotometricDraw(brightness, before, saturation, hue, after))
    return draws


def check_pipeline(case: Case) -> None:
    """Everything from clip to network input: resize, crop, flip, colours, normalise, pad."""
    counts: dict[str, int] = {}
    for facts in case.facts["cases"]:
        config = facts["config"]
        index = counts.setdefault(config, 0)
        counts[config] += 1
        labels = case.arrays[f"{config}_seg"]
        crop_size = tuple(case.facts["crops"][config])
        draw = _geometry(facts, Size(*labels.shape), crop_size)
        if tuple(case.facts["img_scale"][config]) == labels.shape[::-1]:
            rng = LegacyGenerator(facts["legacy_seed"])
            augmentation = Augmentation(crop_size, RATIO_RANGE, CAT_MAX_RATIO)
            assert augment.draw_geometry(rng, labels, augmentation) == draw
        padded = _padded(augment.apply_geometry_to_labels(labels, draw), crop_size, IGNORE)
        outputs = case.expected(f"{config}_out{index}_")
        np.testing.assert_array_equal(padded[None], outputs["seg"])
        frames = [case.arrays[f"{config}_img"], *case.arrays[f"{config}_seq"]]
        expected = [outputs["img"], *outputs["sequence"]]
        colours = photometric_draws(facts["photometric_draws"])
        for frame, colour, out in zip(frames, colours, expected, strict=True):
            _check_network_input(frame[..., ::-1], draw, colour, crop_size, out)


def _geometry(facts: Mapping[str, Any], size: Size, crop_size: tuple[int, int]) -> GeometricDraw:
    box = _box(*facts["crop_boxes"][-1])
    assert (box.height, box.width) == crop_size
    return GeometricDraw(keep_ratio_size(size, tuple(facts["scale"])), box, facts["flip"])


def _check_network_input(
    frame_HxWx3: np.ndarray,
    draw: GeometricDraw,
    colours: PhotometricDraw,
    crop_size: tuple[int, int],
    expected_3xHxW: np.ndarray,
) -> None:
    size = Size(*frame_HxWx3.shape[:2])
    window = augment.source_window(size, draw)
    crop = augment.apply_geometry_to_window(window.of(frame_HxWx3), window, size, draw)
    augment.distort(crop, colours)
    network_input_3xHxW = np.moveaxis(_normalized(crop, crop_size), -1, 0)
    grey_levels = _grey_levels(colours, crop.shape[1])
    if grey_levels:
        difference = np.abs(network_input_3xHxW - expected_3xHxW).max()
        assert difference <= grey_levels / STD_RGB.min() + 1e-6
    else:
        np.testing.assert_array_equal(network_input_3xHxW, expected_3xHxW)
