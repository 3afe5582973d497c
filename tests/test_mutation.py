"""The parity tests, and those of streaming, can fail: each of these mistakes makes one do so.

python -m pytest -m mutation
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.test_stream import assert_stream_is_clip, no_resets, video
from tests.models.test_tmanet import small_config, trained
from tests.parity.checks import checks_of, kind_of
from tests.parity.goldens import Case, load_cases
from tmanet_jax.data import augment, resize
from tmanet_jax.data.augment import PhotometricDraw
from tmanet_jax.inference import stream
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.models import layers, losses, memory, memory_kernels, tmanet
from tmanet_jax.models.layers import BatchNorm
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHead
from tmanet_jax.protocol import Protocol
from tmanet_jax.scoring import metrics

pytestmark = pytest.mark.mutation

Mutation = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def structures_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mistakes in them."""
    monkeypatch.setattr(tmanet, "_abstract", tmanet._abstract.__wrapped__)


def reversed_memory(patch: pytest.MonkeyPatch) -> None:
    remember = TMAHead.remember
    patch.setattr(
        TMAHead,
        "remember",
        lambda self, features, position, *, train: remember(
            self, features, self.config.num_memory - 1 - position, train=train
        ),
    )


def scaled_scores(patch: pytest.MonkeyPatch) -> None:
    read = memory_kernels.read_memory
    patch.setattr(
        memory,
        "read_memory",
        lambda query, key, value, *, scale, **how: read(
            query, key, value, scale=scale * query.shape[-1] ** -0.5, **how
        ),
    )


def flipped_align_corners(patch: pytest.MonkeyPatch) -> None:
    matrix = layers.interpolation_matrix
    patch.setattr(
        layers,
        "interpolation_matrix",
        lambda size, out, align_corners, dtype: matrix(size, out, not align_corners, dtype),
    )


def large_epsilon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layers, "BATCH_NORM_EPSILON", 1e-3)


def biased_running_variance(patch: pytest.MonkeyPatch) -> None:
    update = BatchNorm._update_running
    patch.setattr(
        BatchNorm,
        "_update_running",
        lambda self, mean, var, count: update(self, mean, var, count=10**12),
    )


def uncontracted_dilation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ResNetConfig, "dilation", lambda self, stage, block: self.dilations[stage])


def swapped_concatenation(patch: pytest.MonkeyPatch) -> None:
    attend = TMAHead.attend
    patch.setattr(
        TMAHead,
        "attend",
        lambda self, query, memory: jnp.roll(
            attend(self, query, memory), query.value.shape[-1], axis=-1
        ),
    )


def loss_over_valid_pixels(patch: pytest.MonkeyPatch) -> None:
    cross_entropy = losses.cross_entropy
    patch.setitem(
        losses.PIXEL_LOSSES,
        "cross_entropy",
        lambda nll, labels, config: cross_entropy(
            nll, labels, dataclasses.replace(config, average="valid")
        ),
    )


def crop_of_one_class(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(augment, "is_varied", lambda labels, cat_max_ratio: True)


def labels_that_are_not_flipped(patch: pytest.MonkeyPatch) -> None:
    flip = augment.flip
    patch.setattr(augment, "flip", lambda picture: picture if picture.ndim == 2 else flip(picture))


def padding_that_is_a_class(patch: pytest.MonkeyPatch) -> None:
    fill = augment.fill_padding
    patch.setattr(augment, "fill_padding", lambda padded, size, value: fill(padded, size, 0))


def labels_to_the_nearest_centre(patch: pytest.MonkeyPatch) -> None:
    def nearest(length: int, resized_length: int) -> np.ndarray:
        return ((np.arange(resized_length) + 0.5) * length / resized_length).astype(int)

    patch.setattr(resize, "_nearest", nearest)


def contrast_before_hue(patch: pytest.MonkeyPatch) -> None:
    distort = augment.distort

    def contrast_first(frame: np.ndarray, draw: PhotometricDraw) -> None:
        contrast = draw.contrast_before or draw.contrast_after
        distort(frame, dataclasses.replace(draw, contrast_before=contrast, contrast_after=None))

    patch.setattr(augment, "distort", contrast_first)


def ignored_pixels_that_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metrics, "IGNORE", 0)


def absent_classes_that_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metrics, "_mean", lambda score_C: float(np.nan_to_num(score_C).mean()))


def memory_a_frame_too_old(patch: pytest.MonkeyPatch) -> None:
    delays = StreamingNetwork._delays
    patch.setattr(StreamingNetwork, "_delays", lambda self: tuple(one + 1 for one in delays(self)))


def memory_in_reverse(patch: pytest.MonkeyPatch) -> None:
    delays = StreamingNetwork._delays
    patch.setattr(StreamingNetwork, "_delays", lambda self: delays(self)[::-1])


def memory_before_the_first_frame(patch: pytest.MonkeyPatch) -> None:
    recall = stream._recall
    patch.setattr(
        stream,
        "_recall",
        lambda ring, newest, age_M, places_M: recall(
            ring, newest, jnp.maximum(age_M, len(ring)), places_M
        ),
    )


def memory_that_a_reset_keeps(patch: pytest.MonkeyPatch) -> None:
    step = StreamingNetwork.step
    patch.setattr(
        StreamingNetwork,
        "step",
        lambda self, state, frames, reset_B: step(self, state, frames, np.zeros_like(reset_B)),
    )


BACKBONE = r"ResNet.* eval features"
FULL = r"encode_decode"
TRAIN = r"train steps"
RESIZE = r"Resize"
CROP = r"RandomCrop"
FLIP_AND_PAD = r"RandomFlip"
COLOURS = r"PhotoMetricDistortion"
PIPELINE = r"train pipeline"
METRICS = r"intersect_and_union"


def check(cases: Sequence[Case]) -> None:
    for case in cases:
        next(iter(checks_of(case).values()))(case)


@functools.cache
def passing_cases(folder: Path, kind: str) -> Sequence[Case]:
    """All cases of a kind: the control, for the network as it is passes them."""
    cases = [case for case in load_cases(folder) if kind_of(case) == kind]
    assert cases
    check(cases)
    return cases


@pytest.mark.parametrize(
    ("mutate", "kind"),
    [
        (reversed_memory, FULL),
        (scaled_scores, FULL),
        (flipped_align_corners, FULL),
        (large_epsilon, BACKBONE),
        (biased_running_variance, TRAIN),
        (uncontracted_dilation, BACKBONE),
        (swapped_concatenation, FULL),
        (loss_over_valid_pixels, TRAIN),
        (crop_of_one_class, CROP),
        (labels_that_are_not_flipped, FLIP_AND_PAD),
        (labels_that_are_not_flipped, PIPELINE),
        (padding_that_is_a_class, FLIP_AND_PAD),
        (labels_to_the_nearest_centre, RESIZE),
        (contrast_before_hue, COLOURS),
        (ignored_pixels_that_count, METRICS),
        (absent_classes_that_count, METRICS),
    ],
)
def test_a_mistake_is_noticed(
    mutate: Mutation, kind: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    cases = passing_cases(pytestconfig.getoption("goldens"), kind)
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(cases)


def check_stream() -> None:
    """Streams against whole clips, of which one starts again; no golden case has them."""
    resets_BxL = no_resets(2, 6)
    resets_BxL[1, 3] = True
    assert_stream_is_clip(trained(small_config()), Protocol(), video(2, 6, (33, 49)), resets_BxL)


@functools.cache
def passes_stream() -> None:
    check_stream()


@pytest.mark.parametrize(
    "mutate",
    [
        memory_a_frame_too_old,
        memory_in_reverse,
        memory_before_the_first_frame,
        memory_that_a_reset_keeps,
    ],
)
def test_a_mistake_in_streaming_is_noticed(
    mutate: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes_stream()
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check_stream()
