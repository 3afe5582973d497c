"""The heads that a configuration chooses from."""

from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.tma_head import TMAHeadConfig

HEADS: dict[str, type[HeadConfig]] = {"tma": TMAHeadConfig}
"""By the name that configurations, files of weights and checkpoints carry."""
