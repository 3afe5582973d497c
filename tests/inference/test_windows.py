"""Sliding windows and views, with a `segment` whose results can be worked out."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tmanet_jax.inference.windows import (
    Segment,
    each_view,
    mean_probabilities,
    segment_windows,
    windows_of,
)
from tmanet_jax.models import upsampling
from tmanet_jax.models.upsampling import (
    HalfUpsampled,
    labels_by_columns,
    labels_by_rows,
    map_columns,
)
from tmanet_jax.protocol import EvalConfig, Protocol

PROTOCOL = Protocol("slide", (10, 16), (8, 12))


def last_frame(frames_BxSxHxWx3: jax.Array) -> jax.Array:
    """Logits that are the pixels of the query: every window agrees with the whole."""
    return frames_BxSxHxWx3[:, -1]


def frames(batch: int = 2, height: int = 23, width: int = 37) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((batch, 2, height, width, 3)), jnp.float32)


def test_the_last_windows_are_shifted_back_inside() -> None:
    origins = windows_of(PROTOCOL, (23, 37)).origins_Wx2
    assert sorted({int(top) for top, _ in origins}) == [0, 8, 13]
    assert sorted({int(left) for _, left in origins}) == [0, 12, 21]
    assert len(origins) == 9


def test_a_frame_smaller_than_the_window_is_one_window() -> None:
    windows = windows_of(PROTOCOL, (9, 12))
    np.testing.assert_array_equal(windows.origins_Wx2, [[0, 0]])
    assert windows.crop == (9, 12)


def segmented(
    segment: Segment, whole: jax.Array, protocol: Protocol, windows_per_call: int = 1
) -> jax.Array:
    """The logits of all windows put together at the frames' size."""
    size = (whole.shape[2], whole.shape[3])
    windows = windows_of(protocol, size)
    logits = segment_windows(segment, whole, windows, windows_per_call)
    return windows.half_upsampled(logits, size, align_corners=True).whole()


@pytest.mark.parametrize("size", [(23, 37), (10, 16), (7, 50), (3, 4)])
@pytest.mark.parametrize("windows_per_call", [1, 2, 4, 100])
def test_windows_put_together_are_the_whole(size, windows_per_call) -> None:
    whole = frames(2, *size)
    logits = segmented(last_frame, whole, PROTOCOL, windows_per_call)
    np.testing.assert_allclose(logits, whole[:, -1], atol=1e-6)


def test_where_windows_overlap_their_logits_are_averaged() -> None:
    def mean_of_window(windows: jax.Array) -> jax.Array:
        return jnp.broadcast_to(windows[:, -1].mean((1, 2), keepdims=True), windows[:, -1].shape)

    whole = frames(1, 4, 6)
    logits = segmented(mean_of_window, whole, Protocol("slide", (4, 4), (4, 2)))
    left, right = whole[0, -1, :, :4].mean((0, 1)), whole[0, -1, :, 2:].mean((0, 1))
    np.testing.assert_allclose(logits[0, 0, 0], left, atol=1e-6)
    np.testing.assert_allclose(logits[0, 0, 5], right, atol=1e-6)
    np.testing.assert_allclose(logits[0, 3, 3], (left + right) / 2, atol=1e-6)


def views(whole: jax.Array, size: tuple[int, int]) -> list[HalfUpsampled]:
    config = EvalConfig(PROTOCOL, flip=True)
    return each_view(last_frame, [whole], config, size=size, align_corners=True)


def test_a_flipped_view_is_flipped_back() -> None:
    view, flipped = (each.whole() for each in views(frames(1), (23, 37)))
    np.testing.assert_allclose(flipped, view, atol=1e-6)
    np.testing.assert_allclose(mean_probabilities([view, flipped]).sum(-1), 1.0, atol=1e-5)


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the eight blocks of seven columns has one."""

    def probability(logits: list[jax.Array]) -> jax.Array:
        return mean_probabilities(logits)[..., 0]

    both = views(frames(2), (30, 50))
    whole = map_columns(probability, both)
    np.testing.assert_allclose(whole, probability([view.whole() for view in both]), atol=1e-6)
    monkeypatch.setattr(upsampling, "FLOATS_AT_A_TIME", 2 * 2 * 30 * 7 * 3)
    np.testing.assert_allclose(map_columns(probability, both), whole, atol=1e-6)


@pytest.mark.parametrize(("width", "align_corners"), [(300, True), (300, False), (11, True)])
def test_labels_have_the_largest_logit(width: int, align_corners: bool) -> None:
    """Of windows side by side, and of a frame that is resized on the way, or to fewer columns."""
    rng = np.random.default_rng(0)
    for protocol in (PROTOCOL, replace(PROTOCOL, mode="whole")):
        windows = windows_of(protocol, (23, 37))
        logits_WxBxhxwxC = jnp.asarray(
            rng.standard_normal((len(windows), 2, 6, 29, 5)), jnp.float32
        )
        half = windows.half_upsampled(logits_WxBxhxwxC, (37, width), align_corners=align_corners)
        for part in (half, replace(half, matrix_WxK=half.matrix_WxK[::-1])):
            logits_BxHxWxC = np.asarray(part.whole())
            for labels_of in (labels_by_rows, labels_by_columns):
                labels_BxHxWx1 = np.asarray(jax.jit(labels_of)(part))[..., None]
                largest_BxHxWx1 = np.take_along_axis(logits_BxHxWxC, labels_BxHxWx1, -1)
                np.testing.assert_allclose(
                    largest_BxHxWx1, logits_BxHxWxC.max(-1, keepdims=True), atol=1e-6
                )


@pytest.mark.parametrize(
    ("largest", "shape"), [(100, (1, 9)), (8, (2, 5)), (4, (3, 3)), (1, (9, 1))]
)
def test_windows_come_in_the_fewest_equal_groups(largest: int, shape: tuple[int, int]) -> None:
    windows = windows_of(PROTOCOL, (23, 37))
    origins_KxGx2 = windows.in_groups(largest)
    assert origins_KxGx2.shape == (*shape, 2)
    np.testing.assert_array_equal(origins_KxGx2.reshape(-1, 2)[:9], windows.origins_Wx2)
