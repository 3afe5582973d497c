"""A small TMANet on a street that is rendered at the first start: minutes on a laptop's CPU.

    python run.py --config=configs/demo.py

Needs nothing: the records (600 clips) are rendered, the weights random.

Time: 4 to 7 minutes on two cores of a shared x86 machine, rendering and compilation included
(measured, November 2026).

Expected: 74.4 mIoU on its `val` split, clean frames 75.1 and spoilt ones 73.8 (measured there; the
README has the classes). There is no published score.

The network has the full one's parts, on a ResNet-18 of a quarter's width with half the blocks: at
this size basic blocks learn more in a second of CPU than bottlenecks. From random weights in so few
steps it needs a higher learning rate, a warm-up, weights for the rare classes, milder augmentation,
and no dropout; and it learns to look things up in its memory much sooner if the memory's encoders
begin as copies of the query's. Gradients stop at the memory frames to save time.

A position reads its own place alone in each memory frame, which the original does not do: with so
few steps a network that reads all of it finds that place late or never, and has 56 on spoilt frames
(`docs/memory.md`). So it needs no windows: larger frames have no more places that look alike.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The demo run."""
    config = default.get_config()
    config.name = "demo"
    config.batch_size = 4
    config.num_steps = 2_500

    config.model.depth = 18
    config.model.width = 16
    config.model.blocks = (1, 1, 1, 1)
    config.model.key_channels = 32
    config.model.value_channels = 32
    config.model.head_channels = 64
    config.model.aux_channels = 32
    config.model.dropout = 0.0
    config.model.memory_gradient = False
    config.model.tied_init = True
    config.model.neighbourhood = 0

    config.data.dir = "data/demo"
    config.data.render = True
    config.data.render_train = 500
    config.data.render_eval = 100
    config.data.crop_size = (96, 192)
    config.data.ratio_range = (0.75, 1.5)
    config.data.photometric = "off"

    config.optimizer.learning_rate = 0.15
    config.optimizer.warmup_steps = 20
    config.loss.class_weight_power = 0.25

    config.eval.mode = "whole"
    config.eval.crop_size = (96, 192)
    config.eval.stride = (32, 64)
    config.eval.batch_size = 4
    config.eval.windows_per_call = 4
    config.eval.every = 1_250
    config.checkpoint.every = 625
    return config
