r"""TMANet with a narrow MobileNetV2: the small choice for CPUs and browsers.

    python run.py --config=configs/tmanet_mobile.py
    python run.py export --config=configs/tmanet_mobile.py --format=web --size=128x256 --output=page

The demo's run (`configs/demo.py`) with another backbone: it needs nothing, and renders its street
at the first start. For data of one's own `--config.data.dir=DIR --config.data.render=False`; wider:
`--config.model.widen_factor=1`, of which mmsegmentation's weights are
(`--config.init.pretrained=FILE`).

Expected, time and memory: see `python -m benchmarks networks`, which trains it beside the demo.
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
