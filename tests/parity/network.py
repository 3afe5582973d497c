"""Backbone, memory read and whole network."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.parity.goldens import (
    FLOAT64_ABSOLUTE,
    Case,
    assert_features_close,
    assert_same_arg_max,
    nchw,
)
from tests.whole_frames import segment_whole
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.tma_head import KeyValue, TMAHead, TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet, abstract_model
from tmanet_jax.weights.names import with_tensors
from tmanet_jax.weights.networks import network_of
from tmanet_jax.weights.weight_file import WeightFile


def build(case: Case, dtype: str, **head: Any) -> TMANet:
    """The case's network, with its weights, at full precision.

    `head` replaces fields of the head's configuration.
    A case that does not say how logits are up-sampled means the published way for its classes.
    """
    tensors = case.tensors()
    align_corners = case.facts.get("align_corners")
    shown = network_of(WeightFile(tensors, path=str(case.path)), align_corners=align_corners).config
    if not isinstance(shown, ModelConfig):
        tensors = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    config = shown if isinstance(shown, ModelConfig) else ModelConfig(backbone=shown)
    config = dataclasses.replace(
        config,
        dtype=dtype,
        precision="highest",
        head=dataclasses.replace(config.head, **head),
    )
    abstract = abstract_model(config)
    graphdef, state = nnx.split(abstract)
    state = with_tensors(state, tensors)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: cast(leaf, dtype), state))


def cast(leaf: Any, dtype: str) -> Any:
    """Casts weights; counts stay, and the shapes that stand for weights the case does not have."""
    is_weight = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    if not is_weight or leaf.dtype == dtype:
        return leaf
    return jnp.asarray(np.asarray(leaf).astype(dtype))  # jax would compile a cast of every shape


def compiled(model: nnx.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(model, *arrays)` compiled, once for each shape, as a function of the arrays."""
    graphdef, state = nnx.split(model)
    jitted = jax.jit(lambda state, *arrays: function(nnx.merge(graphdef, state), *arrays))
    return functools.partial(jitted, state)


def precision(dtype: str) -> Any:
    """The context in which jax computes in this type."""
    return jax.enable_x64(dtype == "float64")


def check_backbone(case: Case, dtype: str) -> None:
    """Features of the four stages."""
    suffix = "_f64" if dtype == "float64" else ""
    with precision(dtype):
        features = compiled(build(case, dtype), _eval_features)
        for index, facts in enumerate(case.facts["inputs"]):
            frames = np.moveaxis(case.input(facts["seed"], facts["shape"]), 1, -1).astype(dtype)
            stages: Stages = features(frames)
            for number, stage_NxHxWxC in enumerate(stages, start=1):
                name = f"in{index}_layer{number}"
                stage = nchw(stage_NxHxWxC)
                assert list(stage.shape) == facts["out_shapes"][number - 1], name
                assert_features_close(stage, case.arrays[name + suffix], name + suffix)
                if dtype == "float64":
                    l2, mean = facts["l2"][number - 1], facts["mean"][number - 1]
                    np.testing.assert_allclose(np.linalg.norm(stage), l2, FLOAT64_ABSOLUTE)
                    np.testing.assert_allclose(stage.mean(), mean, FLOAT64_ABSOLUTE)


def _eval_features(model: TMANet, frames_NxHxWx3: jax.Array) -> Stages:
    return model.encode(frames_NxHxWx3)


def check_full(case: Case, dtype: str) -> None:
    """Logits of the whole network, and what lies between: keys, values, the memory's read."""
    with precision(dtype):
        model = build(case, dtype)
        parts = compiled(model, _parts)
        assert model.config.head.num_memory == case.facts["T"]
        assert model.config.head.num_classes == case.facts["num_classes"]
        for given in case.inputs(dtype):
            clip = case.clip(given.facts).astype(dtype)
            computed = {name: np.asarray(x) for name, x in parts(clip).items()}
            for name, expected in given.expected.items():
                assert_features_close(computed[name], expected, f"{given.name}_{name}")
            if dtype == "float32":
                _check_arg_max(computed["logits"], given.expected["logits"], given.name)


def _parts(model: TMANet, frames_BxSxHxWx3: jax.Array) -> dict[str, jax.Array]:
    """Everything that cases store, by their names and in their layouts."""
    num_frames = frames_BxSxHxWx3.shape[1]
    stages = model.encode(frames_BxSxHxWx3.reshape(-1, *frames_BxSxHxWx3.shape[2:]))
    *features, query_features = (
        jax.tree.map(lambda x_NxhxwxC, s=s: x_NxhxwxC[s::num_frames], stages)
        for s in range(num_frames)
    )
    assert isinstance(model.head, TMAHead)
    query = model.head.query_encoder(query_features.stage4, train=False)
    memory = [
        model.head.remember(frame, position, train=False) for position, frame in enumerate(features)
    ]
    read = model.head.attend(query, memory)
    parts = {
        "logits": segment_whole(model, frames_BxSxHxWx3),
        "head_logits": model.head.classify(read, train=False),
        "memory_out": read,
        "memory_keys": jnp.stack([frame.key for frame in memory]),
        "memory_values": jnp.stack([frame.value for frame in memory]),
        "query_key": query.key,
        "query_value": query.value,
    }
    return {name: jnp.moveaxis(x, -1, -3) for name, x in parts.items()}


def _check_arg_max(logits: np.ndarray, expected: np.ndarray, name: str) -> None:
    second, first = np.partition(expected, -2, axis=1)[:, -2:].swapaxes(0, 1)
    assert_same_arg_max(logits.argmax(1), expected.argmax(1), first - second, f"{name} arg-max")


def check_memory(case: Case, dtype: str) -> None:
    """The memory read alone."""
    with precision(dtype):
        for index, facts in enumerate(case.facts["inputs"]):
            memory_keys, memory_values, query_key, query_value = _memory_inputs(facts, dtype)
            config = TMAHeadConfig(
                num_memory=facts["T"],
                key_channels=facts["Ck"],
                value_channels=facts["Cv"],
                scale_scores=facts["matmul_norm"],
            )
            head = nnx.eval_shape(lambda: TMAHead(1, config, rngs=nnx.Rngs(0)))  # noqa: B023, used here
            head.precision = "highest"
            query = KeyValue(query_key, query_value)
            memory = [KeyValue(*frame) for frame in zip(memory_keys, memory_values, strict=True)]
            read = nchw(jax.jit(head.attend)(query, memory))
            if dtype == "float32":
                assert_features_close(read, case.arrays[f"in{index}_out"], f"in{index}_out")
            else:
                memory_half = read[:, facts["Cv"] :]
                name = f"in{index}_out_f64_memory"
                assert_features_close(memory_half, case.arrays[name], name)


def _memory_inputs(facts: dict[str, Any], dtype: str) -> tuple[jax.Array, ...]:
    """Memory keys TxBxHxWxK and values, query key BxHxWxK and value, by the case's recipe."""
    t, b, h, w = (facts[name] for name in ("T", "B", "H", "W"))
    rng = np.random.default_rng(facts["seed"])
    inputs = (
        facts["key_gain"] * rng.standard_normal((t, b, facts["Ck"], h, w)),
        rng.standard_normal((t, b, facts["Cv"], h, w)),
        rng.standard_normal((b, facts["Ck"], h, w)),
        rng.standard_normal((b, facts["Cv"], h, w)),
    )
    return tuple(jnp.moveaxis(x.astype(np.float32).astype(dtype), -3, -1) for x in inputs)
