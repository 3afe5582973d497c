"""Logits of whole frames as the original computes them, window after window at full size."""

import jax
import jax.numpy as jnp

from tmanet_jax.inference.windows import windows_of
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol


def segment_whole(model: TMANet, frames_BxSxHxWx3: jax.Array) -> jax.Array:
    """Logits of the last frames at the frames' own size, BxHxWxC."""
    _, _, height, width, _ = frames_BxSxHxWx3.shape
    logits_BxhxwxC = model(frames_BxSxHxWx3).main
    return resize_bilinear(
        logits_BxhxwxC, (height, width), align_corners=model.config.align_corners
    )


def segment_windows(model: TMANet, frames_BxSxHxWx3: jax.Array, protocol: Protocol) -> jax.Array:
    """Mean of the logits of all windows that see a pixel, BxHxWxC."""
    b, _, height, width, _ = frames_BxSxHxWx3.shape
    windows = windows_of(protocol, (height, width))
    total = jnp.zeros((b, height, width, model.config.head.num_classes))
    count = jnp.zeros((1, height, width, 1))
    places = [
        jnp.s_[..., top : top + windows.crop[0], left : left + windows.crop[1], :]
        for top, left in windows.origins_Wx2
    ]
    clips = jnp.stack([frames_BxSxHxWx3[place] for place in places])
    for place, logits in zip(
        places, jax.lax.map(lambda clip: segment_whole(model, clip), clips), strict=True
    ):
        total = total.at[place].add(logits)
        count = count.at[place].add(1.0)
    return total / count
