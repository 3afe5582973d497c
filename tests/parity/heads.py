"""Decode heads alone, by the framework's configuration of them."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.parity.goldens import Case, assert_features_close, nchw, with_tuples
from tests.parity.network import cast, compiled, precision
from tests.parity.training import TOLERANCES
from tmanet_jax.fields import declared_fields
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.head import Head, HeadConfig
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.losses import LossConfig, cross_entropy, pixels
from tmanet_jax.weights import original_config
from tmanet_jax.weights.names import to_tensors, with_tensors


class _Network(nnx.Module):
    """A head alone, where a network has it."""

    def __init__(self, config: HeadConfig, stage_channels: tuple[int, ...], dtype: str):
        self.head: Head = config.build(stage_channels, dtype=dtype, rngs=nnx.Rngs(0))  # type: ignore[arg-type]

    def __call__(self, features: Stages, *, train: bool = False) -> jax.Array:
        return self.head.read(features, (), train=train)


def check_head(case: Case, dtype: str) -> None:
    """Logits; and, in float32, loss, accuracy and gradients of a training pass without dropout."""
    said = with_tuples(case.facts["config"])
    assert not original_config.head_problems({"head": said}, "head")
    config = _head_of(original_config.said_of_head(said))
    with precision(dtype):
        network = _build(case, config, dtype)
        features = _features(case, dtype)
        logits = compiled(network, _Network.__call__)(features)
        suffix = "_f64" if dtype == "float64" else ""
        assert_features_close(nchw(logits), case.arrays[f"logits{suffix}"], "logits")
        if dtype == "float32":
            _check_training(case, network, features)


def _head_of(said: Mapping[str, Any]) -> HeadConfig:
    """Of which everything is said."""
    kind = next(kind for kind in HEADS.values() if kind.mmseg == said["type"])
    names = {item.attribute for item in declared_fields(kind())} & said.keys()
    return kind(**{name: said[name] for name in names})


def _build(case: Case, config: HeadConfig, dtype: str) -> _Network:
    network = nnx.eval_shape(lambda: _Network(config, _channels(case), dtype))
    network.set_attributes(
        precision="highest",
        align_corners=case.facts["config"]["align_corners"],
        raise_if_not_found=False,
    )
    graphdef, state = nnx.split(network)
    tensors = {f"decode_head.{name}": tensor for name, tensor in case.tensors().items()}
    state = with_tensors(state, tensors)
    assert set(to_tensors(state)) == set(tensors)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: cast(leaf, dtype), state))


def _channels(case: Case) -> tuple[int, ...]:
    """Of the four stages, which the JSON says in words alone."""
    match = re.search(r"channels ((?:\d+ ?){4})", case.facts["meaning"])
    assert match, f"{case.path} does not say the stages' channels"
    return tuple(map(int, match[1].split()))


def _features(case: Case, dtype: str) -> Stages:
    """NxhxwxC; stage 1 of twice the height and width."""
    height, width = case.facts["hw"]
    stages = []
    for index, channels in enumerate(_channels(case)):
        rng = np.random.default_rng(case.facts["features_seed"] * 10 + index)
        times = 2 if index == 0 else 1
        stage = rng.standard_normal((2, channels, times * height, times * width))
        stage = np.maximum(stage, 0).astype(np.float32).astype(dtype)
        stages.append(jnp.asarray(np.moveaxis(stage, 1, -1)))
    return Stages(*stages)


def _check_training(case: Case, network: _Network, features: Stages) -> None:
    labels_BxHxW = jnp.asarray(case.arrays["labels"][:, 0])
    graphdef, *states = nnx.split(network, nnx.Param, ...)
    params, others = states

    def loss_of(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        logits = nnx.merge(graphdef, params, others, copy=True)(features, train=True)
        size = (labels_BxHxW.shape[1], labels_BxHxW.shape[2])
        align_corners = case.facts["config"]["align_corners"]
        logits = resize_bilinear(logits, size, align_corners=align_corners)
        found = pixels(logits, labels_BxHxW)
        loss = cross_entropy(found.nll_BxHxW, labels_BxHxW, LossConfig())
        return loss, found.is_right_BxHxW.mean()

    (loss, accuracy), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    bounds, losses = TOLERANCES["float32"], case.facts["losses"]
    np.testing.assert_allclose(loss, losses["loss_seg"], rtol=bounds.loss)
    np.testing.assert_allclose(100 * accuracy, losses["acc_seg"], rtol=0, atol=bounds.accuracy)
    norms = {name: np.linalg.norm(grad) for name, grad in to_tensors(grads).items()}
    expected = {f"decode_head.{name}": norm for name, norm in case.facts["grad_norm"].items()}
    assert norms.keys() == expected.keys()
    for name, norm in expected.items():
        np.testing.assert_allclose(norms[name], norm, rtol=bounds.grad_norm, err_msg=name)
