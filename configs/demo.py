"""A small TMANet on a street that is rendered at the first start: minutes on a laptop's CPU.

    python run.py --config=configs/demo.py

The network has the full one's parts, an eighth of its width and fewer blocks. From random weights
in so few steps it needs a higher learning rate, a warm-up, and weights for the rare classes.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The demo run."""
    config = default.get_config()
    config.name = "demo"
    config.batch_size = 4
    config.num_steps = 2_000

    config.model.width = 8
    config.model.blocks = (1, 2, 2, 2)
    config.model.key_channels = 16
    config.model.value_channels = 32
    config.model.head_channels = 64
    config.model.aux_channels = 32

    config.data.dir = "data/demo"
    config.data.render = True
    config.data.render_train = 400
    config.data.render_eval = 60
    config.data.crop_size = (96, 192)

    config.optimizer.learning_rate = 0.15
    config.optimizer.warmup_steps = 20
    config.loss.class_weight_power = 0.5

    config.eval.mode = "whole"
    config.eval.batch_size = 4
    config.eval.every = 1_000
    config.checkpoint.every = 500
    return config
