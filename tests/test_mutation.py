"""The parity tests can fail: each of these mistakes makes one of them do so.

python -m pytest -m mutation
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import pytest

from tests.parity.checks import checks_of, kind_of
from tests.parity.goldens import Case, load_cases
from tmanet_jax import losses
from tmanet_jax.models import layers, memory, resnet
from tmanet_jax.models.heads import TMAHead
from tmanet_jax.models.layers import BatchNorm

pytestmark = pytest.mark.mutation

Mutation = Callable[[pytest.MonkeyPatch], None]


def reversed_memory(patch: pytest.MonkeyPatch) -> None:
    encode = TMAHead.encode_memory
    patch.setattr(
        TMAHead,
        "encode_memory",
        lambda self, features, *, train: encode(self, features[::-1], train=train),
    )


def scaled_scores(patch: pytest.MonkeyPatch) -> None:
    read = memory.read_memory
    patch.setattr(
        memory,
        "read_memory",
        lambda query, key, value, *, scale, **how: read(
            query, key, value, scale=scale * query.shape[-1] ** -0.5, **how
        ),
    )


def flipped_align_corners(patch: pytest.MonkeyPatch) -> None:
    matrix = layers._interpolation_matrix
    patch.setattr(
        layers,
        "_interpolation_matrix",
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
    patch.setattr(resnet, "_dilation", lambda stage, block: resnet.DILATIONS[stage])


def swapped_concatenation(patch: pytest.MonkeyPatch) -> None:
    read = TMAHead.read
    patch.setattr(
        TMAHead,
        "read",
        lambda self, query, memory: jnp.roll(
            read(self, query, memory), query.value.shape[-1], axis=-1
        ),
    )


def loss_over_valid_pixels(patch: pytest.MonkeyPatch) -> None:
    cross_entropy = losses.cross_entropy
    patch.setattr(
        losses,
        "cross_entropy",
        lambda logits, labels, config: cross_entropy(
            logits, labels, dataclasses.replace(config, average="valid")
        ),
    )


BACKBONE = r"ResNet.* eval features"
FULL = r"encode_decode"
TRAIN = r"train steps"


def check(cases: Sequence[Case]) -> None:
    for case in cases:
        checks_of(case)["float32"](case)


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
    ],
)
def test_a_mistake_is_noticed(
    mutate: Mutation, kind: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    cases = passing_cases(pytestconfig.getoption("goldens"), kind)
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(cases)
