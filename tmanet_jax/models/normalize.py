"""Pixels to network input, on the device: uint8 travels, a quarter of the bytes of float32."""

import jax
import jax.numpy as jnp
import numpy as np

MEAN_RGB = np.array([123.675, 116.28, 103.53], np.float32)
STD_RGB = np.array([58.395, 57.12, 57.375], np.float32)


def normalize(frames_BxSxHxWx3: jax.Array, sizes_Bx2: jax.Array | None = None) -> jax.Array:
    """uint8 RGB -> (rgb - mean) / std, bit-equal to numpy; padding becomes 0, the mean colour.

    Args:
        frames_BxSxHxWx3: uint8 RGB.
        sizes_Bx2: height and width of each clip's picture; right and below of it is padding. None:
            there is none.
    """
    mean_1x1x1x1x3, std_1x1x1x1x3 = jnp.asarray([MEAN_RGB, STD_RGB])[:, None, None, None, None]
    centred = frames_BxSxHxWx3.astype(jnp.float32) - mean_1x1x1x1x3
    # Given a divisor that is broadcast, XLA multiplies by its rounded reciprocal instead.
    divisor = std_1x1x1x1x3 + 0 * centred
    normalized = centred / divisor
    if sizes_Bx2 is None:
        return normalized
    _, _, height, width, _ = frames_BxSxHxWx3.shape
    inside_BxH = jnp.arange(height)[None] < sizes_Bx2[:, :1]
    inside_BxW = jnp.arange(width)[None] < sizes_Bx2[:, 1:]
    inside_BxHxW = inside_BxH[:, :, None] & inside_BxW[:, None, :]
    return jnp.where(inside_BxHxW[:, None, :, :, None], normalized, jnp.zeros((), jnp.float32))
