r"""FCN-50 on Cityscapes: 769x769, frame by frame, 80,000 steps of 8 frames.

    python run.py --config=configs/fcn_cityscapes.py --config.data.dir=data/cityscapes \
        --config.init.pretrained=resnet50_v1c-2cccc1ad.pth

What a memory is measured against: `configs/cityscapes.py` but for the head, on the same records, of
which it reads the query frames alone. Needs what that needs.

Expected: 72.64 mIoU on `val`, the framework's published score (mmsegmentation's model zoo); not
reproduced here. Time and memory are not measured.

Source: `configs/fcn/fcn_r50-d8_769x769_80k_cityscapes.py` of mmsegmentation 0.7.
"""

from ml_collections import ConfigDict

from configs import cityscapes
from tmanet_jax.settings import choose


def get_config() -> ConfigDict:
    """The published FCN run."""
    config = choose(cityscapes.get_config(), {"model.head": "fcn"})
    config.name = "fcn_cityscapes"
    return config
