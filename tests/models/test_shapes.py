"""Names of arrays carry their shapes: checked against the arrays, while steps are traced.

Annotations (jaxtyping) would say each shape a second time, and not see local variables.
"""

import dataclasses
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tests.made.small_networks import untrained
from tests.models.seam_checks import noise
from tests.models.test_tmanet import small_config
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.models.losses import LossConfig, segmentation_loss
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.protocol import Protocol

SUFFIX = re.compile(r"\w+_((?:\d*[A-Za-z]|\d+)(?:x(?:\d*[A-Za-z]|\d+))*)(x?)")
"""`_BxSxHxWx3` and `_C`; `2V` is twice V, and a last x stands for any further axes."""


def misnamed(values: dict[str, Any]) -> list[str]:
    """The arrays whose shape is not what their name says; a letter has one size."""
    sizes: dict[str, float] = {}
    wrong = []
    for name, value in values.items():
        match = SUFFIX.fullmatch(name)
        if match is None or not hasattr(value, "shape"):
            continue
        axes = match[1].split("x")
        fits = len(value.shape) >= len(axes) if match[2] else len(value.shape) == len(axes)
        for axis, size in zip(axes, value.shape, strict=False):
            factor, letter = re.fullmatch(r"(\d*)([A-Za-z]?)", axis).groups()  # type: ignore[union-attr]
            expected = int(factor or 1) * sizes.setdefault(letter, size / int(factor or 1))
            fits &= size == (expected if letter else int(factor))
        if not fits:
            wrong.append(f"{name} is {value.shape} beside {sizes}")
    return wrong


def misnamed_in(traced: Callable[[], object]) -> list[str]:
    """The same of every variable that a function of the network has when it returns."""
    wrong: list[str] = []
    rooms = ("/tmanet_jax/models/", "/tmanet_jax/inference/")

    def enter(frame: types.FrameType, event: str, _: object) -> Any:
        frame.f_trace_lines = False
        return leave if any(room in frame.f_code.co_filename for room in rooms) else None

    def leave(frame: types.FrameType, event: str, _: object) -> None:
        if event == "return":
            wrong.extend(f"{frame.f_code.co_name}: {x}" for x in misnamed(frame.f_locals))

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        traced()
    finally:
        sys.settrace(before)
    return list(dict.fromkeys(wrong))


def test_a_wrong_name_is_found() -> None:
    array = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
    assert misnamed({"x_BxTx4": array, "y_Bx3x2Cx": array, "sizes": array}) == []
    for values in ({"x_BxT": array}, {"x_BxTx5": array}, {"x_BxBxC": array}):
        assert len(misnamed(values)) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_and_its_loss_name_shapes_as_they_are(dtype: str) -> None:
    config = small_config(dtype=dtype)
    if dtype == "float32":
        assert isinstance(config.backbone, ResNetConfig)
        backbone = dataclasses.replace(config.backbone, depth=50)  # its blocks are others
        config = dataclasses.replace(config, backbone=backbone)
    graphdef, *states = nnx.split(untrained(config), nnx.Param, ...)
    params, rest = states
    batch = noise(config)

    def loss(params: nnx.State) -> jax.Array:
        model = nnx.merge(graphdef, params, rest, copy=True)
        frames = normalize(jnp.asarray(batch.frames), jnp.asarray(batch.sizes))
        logits = model(frames, train=True, dropout_key=jax.random.key(0))
        labels = jnp.asarray(batch.labels)
        return segmentation_loss(logits, labels, LossConfig(), align_corners=True).total

    assert misnamed_in(lambda: jax.eval_shape(jax.grad(loss), params)) == []


@pytest.mark.parametrize("protocol", [Protocol(), Protocol("slide", (24, 32), (16, 24))], ids=str)
def test_streaming_names_shapes_as_they_are(protocol: Protocol) -> None:
    stream = StreamingNetwork(untrained(small_config()), protocol)
    step, weights = stream.pure_step((33, 49))
    arguments = stream.start(2, (33, 49)), jnp.zeros((2, 33, 49, 3), jnp.uint8), jnp.zeros(2, bool)
    assert misnamed_in(lambda: jax.eval_shape(step, weights, *arguments)) == []
