"""What shapes of tensors show of a layer that has the framework's names (mmsegmentation's)."""

from collections.abc import Mapping

from tmanet_jax.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
"""By names of tensors; kernels are OIHW."""


def kernel_of(shapes: Shapes, layer: str) -> tuple[int, ...]:
    """Shape of a convolution's kernel, OIHW; raises UserError if there is none."""
    shape = shapes.get(f"{layer}.weight", ())
    if len(shape) != 4:
        raise UserError(f"This is no network of this project: {layer}.weight is missing.")
    return shape


def count(shapes: Shapes, template: str) -> int:
    """How many layers there are, numbered from 0: the template has {} for the number."""
    number = 0
    while template.format(number) in shapes:
        number += 1
    return number
