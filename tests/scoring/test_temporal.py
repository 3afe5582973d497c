"""VC and TC against what their definitions say, on small arrays and on moving pictures."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.scoring.temporal import (
    PublishedTC,
    SegmentedFrame,
    VideoConsistency,
    carried_as_published,
    optical_flow,
    temporal_consistency,
    visible,
    warp,
)


def random_video(seed: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions FxHxW in which much stays as it is; some pixels have no class."""
    rng = np.random.default_rng(seed)
    labels, predicted = np.repeat(rng.integers(0, 2, (2, 1, 5, 6)), num_frames, axis=1)
    for maps in (labels, predicted):
        maps[rng.random(maps.shape) < 0.1] = 2
    predicted[rng.random(predicted.shape) < 0.05] = 0
    labels[:, 0, :2] = IGNORE
    return labels.astype(np.uint8), predicted.astype(np.uint8)


def shares(
    labels: np.ndarray, predicted: np.ndarray, length: int, as_published: bool = False
) -> list[float]:
    consistency = VideoConsistency(length, as_published=as_published)
    for label, prediction in zip(labels, predicted, strict=True):
        consistency.add(SegmentedFrame(np.zeros(0), label, prediction))
    return consistency.shares()


def defined(labels: np.ndarray, predicted: np.ndarray, n: int) -> list[float]:
    """VC_n as the paper defines it, run by run."""
    result = []
    for first in range(len(labels) - n + 1):
        label, prediction = labels[first : first + n], predicted[first : first + n]
        constant = (label == label[0]).all(0) & (label[0] != IGNORE)
        right = constant & (prediction == label).all(0)
        result.append(right.sum() / constant.sum() if constant.any() else np.nan)
    return result


def published(labels: np.ndarray, predicted: np.ndarray, n: int) -> list[float]:
    """VSPW's `get_common`, pixel for pixel."""
    result = []
    for i in range(len(labels) - n):
        common = np.ones(labels[0].shape, bool)
        predicted_common = np.ones(labels[0].shape, bool)
        for j in range(1, n):
            common &= labels[i] == labels[i + j]
            predicted_common &= predicted[i] == predicted[i + j]
        result.append((common & predicted_common).sum() / common.sum() if common.any() else np.nan)
    return result


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_frames=st.integers(1, 9), length=st.integers(1, 5))
def test_consistency_is_what_the_definition_says(seed: int, num_frames: int, length: int) -> None:
    video = random_video(seed, num_frames)
    np.testing.assert_allclose(shares(*video, length), defined(*video, length))
    np.testing.assert_allclose(shares(*video, length, as_published=True), published(*video, length))


def test_a_video_of_exactly_n_frames_counts_unless_as_published() -> None:
    video = random_video(0, 8)
    assert len(shares(*video, 8)) == 1
    assert shares(*video, 8, as_published=True) == []


def test_a_steady_mistake_is_consistent_only_as_published() -> None:
    labels = np.zeros((8, 4, 4), np.uint8)
    assert shares(labels, labels, 8) == [1.0]
    assert shares(labels, labels + 1, 8) == [0.0]
    assert shares(labels, labels + 1, 7, as_published=True) == [1.0]


def textured(size: tuple[int, int] = (96, 128)) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (size[0], size[1], 3), np.uint8)
    return cv2.blur(noise, (5, 5))


def moving(shift: int, num_frames: int = 4) -> list[SegmentedFrame]:
    """A picture and its class map that move to the right together."""
    picture = textured((96, 128 + shift * num_frames))
    classes = (picture[..., 0] > 128).astype(np.uint8)
    frames = []
    for index in range(num_frames):
        left = (num_frames - index) * shift
        moved, moved_classes = picture[:, left : left + 128], classes[:, left : left + 128]
        frames.append(SegmentedFrame(np.ascontiguousarray(moved), moved_classes, moved_classes))
    return frames


def test_flow_and_warp_follow_a_movement() -> None:
    before, after = moving(3, 2)
    backward = optical_flow(after.frame_HxWx3, before.frame_HxWx3)
    assert np.median(backward[..., 0]) == pytest.approx(-3, abs=0.2)
    inner = np.s_[8:-8, 8:-8]
    agree = warp(before.predicted_HxW, backward)[inner] == after.predicted_HxW[inner]
    assert agree.mean() > 0.95


def test_predictions_that_move_with_the_picture_are_consistent_and_others_are_not() -> None:
    still_right = np.mean(temporal_consistency(moving(3), num_classes=2))
    frames = moving(3)
    stuck = [frame._replace(predicted_HxW=frames[0].predicted_HxW) for frame in frames]
    rng = np.random.default_rng(0)
    flickering = [
        frame._replace(predicted_HxW=rng.integers(0, 2, (96, 128)).astype(np.uint8))
        for frame in frames
    ]
    assert still_right > 0.9
    assert np.mean(temporal_consistency(stuck, num_classes=2)) < 0.6
    assert np.mean(temporal_consistency(flickering, num_classes=2)) < 0.4


@pytest.mark.parametrize("size", [(8, 64), (32, 32), (5, 7)])
def test_small_pictures_have_a_flow_too(size: tuple[int, int]) -> None:
    picture = textured(size)
    flow = optical_flow(picture, picture)
    assert flow.shape == (*size, 2)
    np.testing.assert_allclose(flow, 0, atol=0.1)


def test_the_flow_does_not_depend_on_what_memory_held_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DIS begins with the flow that it is given, and not-a-numbers there end the process."""
    before, after = moving(3, 2)
    expected = optical_flow(after.frame_HxWx3, before.frame_HxWx3)
    monkeypatch.setattr(np, "empty", lambda shape, dtype=float: np.full(shape, -3, dtype))
    found = optical_flow(after.frame_HxWx3, before.frame_HxWx3)
    np.testing.assert_array_equal(found, expected)


def test_what_is_hidden_or_comes_from_outside_is_not_visible() -> None:
    flow = np.zeros((8, 10, 2), np.float32)
    flow[..., 0] = 2
    assert visible(flow, -flow)[:, :8].all()
    assert not visible(flow, -flow)[:, 8:].any()
    back = -flow
    back[:, 4:6] = 3  # lands elsewhere: what came from columns 2 and 3 is hidden there
    assert not visible(flow, back)[:, 2:4].any()
    assert visible(flow, back)[:, [0, 1, 5, 6]].all()


def carried_by_the_script(labels: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`flowwarp` of VSPW's script pixel by pixel: torch's `grid_sample`, nearest, corners apart."""
    height, width = labels.shape
    result = np.zeros_like(labels)
    for y, x in np.ndindex(height, width):
        grid_x = 2 * (x + float(flow[y, x, 0])) / (width - 1) - 1
        grid_y = 2 * (y + float(flow[y, x, 1])) / (height - 1) - 1
        column, row = round(((grid_x + 1) * width - 1) / 2), round(((grid_y + 1) * height - 1) / 2)
        if 0 <= column < width and 0 <= row < height:
            result[y, x] = labels[row, column]
    return result


@pytest.mark.parametrize("still", [True, False])
def test_the_scripts_warp_misses_by_half_a_pixel_and_fills_with_zeros(still: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 5, (9, 12)).astype(np.uint8)
    flow = np.zeros((9, 12, 2), np.float32) if still else rng.normal(0, 3, (9, 12, 2))
    expected = carried_by_the_script(labels, flow.astype(np.float32))
    np.testing.assert_array_equal(carried_as_published(labels, flow.astype(np.float32)), expected)
    assert (expected == 0).any() and (expected != labels).any()


def test_the_scripts_mtc_is_of_all_pairs_of_the_first_hundred_videos_together() -> None:
    videos = [moving(3, 3), moving(5, 2)]
    pairs = [
        (now.predicted_HxW, carried_by_the_script(after.predicted_HxW, optical_flow(*pictures)))
        for video in videos
        for now, after in itertools.pairwise(video)
        for pictures in [(now.frame_HxWx3, after.frame_HxWx3)]
    ]
    predicted, carried = (np.stack(maps) for maps in zip(*pairs, strict=True))
    iou = [((predicted == c) & (carried == c)).sum() / ((predicted == c) | (carried == c)).sum()
           for c in range(2)]  # fmt: skip
    total = PublishedTC(num_classes=3)
    for place, video in zip((99, 3), videos, strict=True):
        total.add_video(place, video)
    assert total.result() == pytest.approx(np.mean(iou))
    total.add_video(100, videos[0][::-1])  # the 101st
    assert total.result() == pytest.approx(np.mean(iou))
