"""The backbones that a configuration chooses from."""

from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.convnext import ConvNeXtConfig
from tmanet_jax.models.mobilenet import MobileNetV2Config
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.resnext import ResNeXtConfig

BACKBONES: dict[str, type[BackboneConfig]] = {
    "resnet": ResNetConfig,
    "resnext": ResNeXtConfig,
    "mobilenet_v2": MobileNetV2Config,
    "convnext": ConvNeXtConfig,
}
"""By the name that configurations, files of weights and checkpoints carry."""
