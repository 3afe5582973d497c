"""Floating point operations that the network needs, counted in the programs that jax makes of it.

`models/summary.py` counts: two for each multiply-add of convolutions and matrix products; the loss
and the up-sampling of the logits are left out. What is computed a second time in order to save
memory (the scores of the memory read, `remat`) is not counted again: these are the operations of
the model, not of an implementation. But the read's last chunk of queries is filled up: of the
published step it is 0.04 %.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.summary import work_of
from tmanet_jax.models.tmanet import ModelConfig, TMANet, abstract_model


def backbone_flops(model: ModelConfig, size: tuple[int, int]) -> int:
    """The backbone's, of one frame of this height and width."""
    return _forward(model, lambda network, frame: network.encode(frame), 1, *size, 3)


def clip_flops(model: ModelConfig, size: tuple[int, int]) -> int:
    """Segmenting one clip: T + 1 frames through the backbone, one query; no auxiliary head."""
    length = model.head.num_memory + 1
    return _forward(model, lambda network, clip: network(clip).main, 1, length, *size, 3)


def stream_flops(model: ModelConfig, size: tuple[int, int]) -> int:
    """Segmenting the newest frame of a stream.

    The backbone sees it once, and every position of the clip encodes it
    (`tmanet_jax/inference/stream.py`).
    """
    return _forward(
        model, lambda network, frame: _read_itself(network, network.encode(frame)), 1, *size, 3
    )


def training_flops(model: ModelConfig, size: tuple[int, int], batch_size: int) -> int:
    """One step, forward and backward, without what has no gradient.

    A product's backward pass is two products of its own size: the gradient of its input and that of
    its weights. The frames themselves have no gradient, nor has the backbone for memory frames
    without `memory_gradient`.

    Args:
        model: the network.
        size: height and width of the crops.
        batch_size: clips.
    """
    plain = _plain(model)
    graphdef, *states = nnx.split(abstract_model(plain), nnx.Param, ...)

    def loss(params: nnx.State, others: nnx.State, clip: jax.Array) -> jax.Array:
        logits = nnx.merge(graphdef, params, others, copy=True)(clip, train=True)
        return logits.main.sum() + logits.aux.sum()

    clip = _frames(1, model.head.num_memory + 1, *size, 3)
    of_step = work_of(jax.value_and_grad(loss), *states, clip).operations
    return batch_size * (of_step - _computed_again(plain, size))


def _computed_again(plain: ModelConfig, size: tuple[int, int]) -> int:
    """What the head's backward pass adds to two products for each that goes forward."""
    network = abstract_model(plain)
    graphdef, *states = nnx.split(network, nnx.Param, ...)
    features = nnx.eval_shape(
        lambda network, frame: network.encode(frame), network, _frames(1, *size, 3)
    )

    def read(params: nnx.State, others: nnx.State, features: Stages) -> jax.Array:
        return _read_itself(nnx.merge(graphdef, params, others), features).sum()

    gradients = jax.value_and_grad(read, argnums=(0, 2))
    forward, both = (work_of(each, *states, features) for each in (read, gradients))
    return both.operations - 3 * forward.operations


def _read_itself(network: TMANet, features: Stages) -> jax.Array:
    """Logits of a frame whose memory is the frame itself, at every position."""
    return network.read(features, network.remember(features))


def _forward(model: ModelConfig, function: Callable[[TMANet, jax.Array], Any], *shape: int) -> int:
    graphdef, state = nnx.split(abstract_model(_plain(model)))
    return work_of(
        lambda state, frames: function(nnx.merge(graphdef, state), frames), state, _frames(*shape)
    ).operations


def _plain(model: ModelConfig) -> ModelConfig:
    """The same network, computed as every device can."""
    return model.computed_as(ModelConfig())


def _frames(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
