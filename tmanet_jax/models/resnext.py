"""ResNeXt: ResNet whose 3x3 convolutions are of groups.

Source: Xie et al. 2017; `mmseg/models/backbones/resnext.py`.
"""

import dataclasses
from typing import ClassVar, Self

from tmanet_jax.errors import UserError
from tmanet_jax.fields import field
from tmanet_jax.models.resnet import DEEPEST_BASIC, ResNetConfig, shown_fields
from tmanet_jax.models.shown import Shapes, kernel_of


@dataclasses.dataclass(frozen=True)
class ResNeXtConfig(ResNetConfig):
    """Shape of a ResNeXt."""

    mmseg: ClassVar[tuple[str, ...]] = ("ResNeXt",)

    groups: int = field(32, "of each 3x3 convolution", low=2, high=1024)
    base_width: int = field(4, "channels of a group in the first stage", low=1, high=1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth <= DEEPEST_BASIC:
            raise UserError(f"depth must be above {DEEPEST_BASIC} in a ResNeXt, not {self.depth}.")

    def inner_channels(self, stage: int) -> int:
        """Of the 3x3 convolutions of a stage, from 0."""
        return 2**stage * self.base_width * self.groups

    @classmethod
    def shown(cls, shapes: Shapes) -> Self | None:
        """As a ResNet, by 3x3 convolutions of groups."""
        if "layer1.0.conv2.weight" not in shapes:
            return None
        channels, base_width, *_ = kernel_of(shapes, "layer1.0.conv2")
        if channels == base_width:
            return None
        fields = shown_fields(shapes)
        return cls(**fields, groups=channels // base_width, base_width=base_width)

    def __str__(self) -> str:
        return f"ResNeXt-{self.depth} of {self.groups} x {self.base_width}"
