"""The heads that a configuration chooses from."""

from tmanet_jax.models.fcn_head import FCNHeadConfig
from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.psp_head import PSPHeadConfig
from tmanet_jax.models.tma_head import TMAHeadConfig

HEADS: dict[str, type[HeadConfig]] = {
    "tma": TMAHeadConfig,
    "fcn": FCNHeadConfig,
    "psp": PSPHeadConfig,
}
"""By the name that configurations, files of weights and checkpoints carry."""
