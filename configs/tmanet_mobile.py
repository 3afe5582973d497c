r"""TMANet with a MobileNetV2, the backbone for CPUs and browsers, narrow as the demo's network.

    python run.py --config=configs/tmanet_mobile.py
    python run.py export --config=configs/tmanet_mobile.py --format=web --size=128x256 --output=page

The demo's run (`configs/demo.py`) with another backbone: it needs nothing, and renders its street
at the first start. For data of one's own `--config.data.dir=DIR --config.data.render=False`; wider:
`--config.model.widen_factor=1`, of which mmsegmentation's weights are
(`--config.init.pretrained=FILE`).

Expected: 28.5 mIoU after 600 steps, where the demo's own network has 45.1, and 31.5 ms a frame for
28.0 (measured, November 2026; `docs/networks.md`): at this size that one is ahead. Of width 1, with
the published head, it has a seventh of a ResNet-50's operations. Memory is not measured.
"""

from ml_collections import ConfigDict

from configs import demo
from tmanet_jax.settings import choose


def get_config() -> ConfigDict:
    """The demo's run with a MobileNetV2."""
    config = choose(demo.get_config(), {"model.backbone": "mobilenet_v2"})
    config.name = "tmanet_mobile"
    config.model.widen_factor = 0.35
    return config
