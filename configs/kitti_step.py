r"""TMANet-50 on KITTI-STEP, whose classes are Cityscapes': weights trained there are scored here.

    python -m data_prep.kitti_step --source=DIR --out=data/kitti_step
    python run.py consistency --config=configs/kitti_step.py \
        --config.init.checkpoint=tmanet_cityscapes.safetensors --workdir=runs/kitti_step

`consistency` scores every frame of the nine sequences of `val`, and over time; `eval` the frames
alone. Training goes as on Cityscapes. Nobody has published a TMANet on KITTI-STEP, so there is no
expected score.
"""

from ml_collections import ConfigDict

from configs import cityscapes


def get_config() -> ConfigDict:
    """Cityscapes' run, with whole frames of KITTI-STEP."""
    config = cityscapes.get_config()
    config.name = "kitti_step"
    config.data.dir = "data/kitti_step"
    config.data.crop_size = (369, 769)
    config.eval.mode = "whole"
    return config
