"""The published Cityscapes run on a few rendered clips of full size, for `benchmarks`.

    python -m benchmarks data --config=configs/benchmark.py

Needs nothing: the clips are rendered at the first start, in some minutes, and no score is expected.
Otherwise it is `configs/cityscapes.py`.
"""

from ml_collections import ConfigDict

from configs import cityscapes


def get_config() -> ConfigDict:
    """Four clips of 1024x2048 pixels to train on, one to score."""
    config = cityscapes.get_config()
    config.name = "benchmark"
    config.data.dir = "data/benchmark"
    config.data.render = True
    config.data.render_size = (1024, 2048)
    config.data.render_train = 4
    config.data.render_eval = 1
    config.data.render_memory_range = 2  # as many as the network remembers
    return config
