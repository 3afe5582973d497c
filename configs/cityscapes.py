r"""TMANet-50 on Cityscapes: 769x769, T = 2, 80,000 steps of 8 clips (published: 80.3 mIoU).

    python run.py --config=configs/cityscapes.py --config.data.dir=data/cityscapes \
        --config.init.pretrained=resnet50_v1c-2cccc1ad.pth

The pretrained backbone is mmseg's (README); without one the run begins from random weights.

Source: `configs/video/cityscapes/tmanet_r50-d8_769x769_80k_cityscapes_video.py`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The published Cityscapes run."""
    config = default.get_config()
    config.name = "cityscapes"
    config.init.published = "resnet50_v1c-2cccc1ad.pth"
    config.data.dir = "data/cityscapes"
    return config
