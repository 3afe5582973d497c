"""Sliding windows, and the views of multi-scale and flip testing."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.goldens import (
    Case,
    assert_features_close,
    assert_same_arg_max,
    at_least_one,
    every_nth,
    nchw,
)
from tests.parity.network import build, compiled, precision
from tmanet_jax.inference.windows import (
    each_view,
    resized_frames,
    segment_windows,
    windows_of,
)
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB, normalize
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import EvalConfig, Protocol

PROBABILITY_ABSOLUTE = 1e-4
INPUT_ABSOLUTE = 1e-6

MARGIN = "margin"
AUG_GIVEN = ("img_bgr", "sequence_bgr", MARGIN)
"""Arrays that are no results: what multi-scale testing was given, and where arg-maxes are clear."""


def check_slide(case: Case, dtype: str) -> None:
    """Windows' logits summed and divided, then rescaled, then the arg-max."""
    with precision(dtype):
        model = build(case, dtype)
        for given in case.inputs(dtype):
            facts = given.facts
            clip = case.clip(facts).astype(dtype)
            crop, stride = tuple(facts["crop_size"]), tuple(facts["stride"])
            _check_windows(clip.shape[2:4], crop, stride, facts)
            raw = compiled(model, functools.partial(_slide, crop=crop, stride=stride))(clip)
            rescaled = resize_bilinear(
                raw, tuple(facts["ori_shape"]), align_corners=model.config.align_corners
            )
            computed = {"raw": nchw(raw), "rescaled": nchw(rescaled)}
            for name in at_least_one(sorted(given.expected.keys() - {MARGIN})):
                expected, what = given.expected[name], f"{given.name}_{name}"
                if name == "pred":
                    predicted = np.asarray(rescaled.argmax(-1))
                    margin = case.arrays[f"{given.name}_{MARGIN}"]
                    assert_same_arg_max(predicted, expected, margin, what)
                else:
                    assert_features_close(computed[name], expected, what)


def _slide(
    model: TMANet, frames: jax.Array, crop: tuple[int, int], stride: tuple[int, int]
) -> jax.Array:
    size = (frames.shape[2], frames.shape[3])
    windows = windows_of(Protocol("slide", crop, stride), size)
    logits = segment_windows(lambda clips: model(clips).main, frames, windows)
    align_corners = model.config.align_corners
    return windows.half_upsampled(logits, size, align_corners=align_corners).whole()


def _check_windows(
    size: tuple[int, ...],
    crop: tuple[int, int],
    stride: tuple[int, int],
    facts: Mapping[str, Any],
) -> None:
    windows = windows_of(Protocol("slide", crop, stride), (size[0], size[1]))
    assert len(windows) == facts["n_windows"]
    assert [list(windows.crop)] * len(windows) == facts["window_shapes"]
    assert (windows.origins_Wx2 >= 0).all()
    assert (windows.origins_Wx2 + np.array(windows.crop) <= size).all()


def check_aug(case: Case, dtype: str) -> None:
    """Every view, and the mean of their probabilities, at the picture's own size."""
    facts, arrays = case.facts, case.arrays
    np.testing.assert_allclose(facts["norm"]["mean"], MEAN_RGB)
    np.testing.assert_allclose(facts["norm"]["std"], STD_RGB)
    assert facts["norm"]["to_rgb"]
    assert facts["flip"] == "horizontal"
    _check_scales(facts)
    with precision(dtype):
        order = facts["order"]
        frames_SxHxWx3 = np.concatenate([arrays["sequence_bgr"], arrays["img_bgr"][None]])
        resized = _network_inputs(frames_SxHxWx3[..., ::-1], facts)
        views = _view_probabilities(case, dtype, [clip.astype(dtype) for clip in resized])
        mean = jnp.stack(views).mean(0)
        flipped = [index for index, view in enumerate(order) if view["flip"]]
        probabilities = {
            "prob": mean,
            "prob_half": views[0],
            "prob_half_flipped": views[flipped[0]],
            "prob_last_flipped": views[flipped[-1]],
        }
        results = case.expected_in(dtype)
        for name in at_least_one(sorted(results.keys() - AUG_GIVEN)):
            expected = results[name]
            match name:
                case "pred":
                    predicted = np.asarray(mean.argmax(-1))
                    assert_same_arg_max(predicted, expected, arrays[MARGIN], name)
                case "pred_single_scale1":
                    single = np.asarray(views[2 * facts["ratios"].index(1.0)])
                    second, first = np.sort(single)[..., -2:].transpose(3, 0, 1, 2)
                    assert_same_arg_max(single.argmax(-1), expected, first - second, name)
                case "net_input_half_flipped":
                    network_input = nchw(resized[0][:, :, :, ::-1])[:, -1]
                    np.testing.assert_allclose(network_input, expected, rtol=0, atol=INPUT_ABSOLUTE)
                case _:
                    _assert_probabilities_close(nchw(probabilities[name]), expected, name)


def _view_probabilities(case: Case, dtype: str, resized: list[jax.Array]) -> list[jax.Array]:
    model = build(case, dtype)
    height, width = case.arrays["img_bgr"].shape[:2]
    facts = case.facts["test_cfg"]
    windows: dict[str, Any] = {
        name: tuple(facts[name]) for name in ("crop_size", "stride") if name in facts
    }
    views = each_view(
        compiled(model, lambda model, clips: model(clips).main),
        resized,
        EvalConfig(Protocol(facts["mode"], **windows), flip=True),
        size=(height, width),
        align_corners=model.config.align_corners,
    )
    return [jax.nn.softmax(view.whole()) for view in views]


def _check_scales(facts: Mapping[str, Any]) -> None:
    """For each ratio comes the picture as it is, then mirrored."""
    width, height = facts["img_scale"]
    assert [(view["scale"], view["flip"]) for view in facts["order"]] == [
        ([int(width * ratio), int(height * ratio)], flip)
        for ratio in facts["ratios"]
        for flip in (False, True)
    ]


def _network_inputs(frames_SxHxWx3: np.ndarray, facts: Mapping[str, Any]) -> list[jax.Array]:
    """What the network sees at each ratio: 1xSxhxwx3, resized and normalised."""
    inputs = []
    unflipped = (view for view in facts["order"] if not view["flip"])
    width, height = facts["img_scale"]
    protocol = Protocol(scale=(height, width))
    _, *size, _ = frames_SxHxWx3.shape
    for ratio, view in zip(facts["ratios"], unflipped, strict=True):
        resized = protocol.size_of((size[0], size[1]), ratio)
        assert [1, 3, *resized] == view["net_input"]
        resized_SxhxwxC = resized_frames(np.ascontiguousarray(frames_SxHxWx3), resized)
        inputs.append(normalize(jnp.asarray(resized_SxhxwxC)[None]))
    return inputs


def _assert_probabilities_close(computed: np.ndarray, expected: np.ndarray, name: str) -> None:
    error = np.abs(every_nth(computed, expected.shape[1], axis=1) - expected).max()
    assert error <= PROBABILITY_ABSOLUTE, f"{name}: off by {error}"
