"""The backbones that a configuration chooses from."""

from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.resnet import ResNetConfig

BACKBONES: dict[str, type[BackboneConfig]] = {"resnet": ResNetConfig}
"""By the name that configurations, files of weights and checkpoints carry."""
