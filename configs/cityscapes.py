r"""TMANet-50 on Cityscapes: 769x769, T = 2, 80,000 steps of 8 clips.

    python run.py --config=configs/cityscapes.py --config.data.dir=data/cityscapes \
        --config.init.pretrained=resnet50_v1c-2cccc1ad.pth

Needs records (`python -m data_prep.cityscapes`; 28 GB) and mmseg's pretrained backbone
(docs/migrating.md); without that the run begins from random weights, and says so.

Memory and time in bfloat16 (`--config.model.dtype=bfloat16`), none of it measured:
    one H200           2.5 hours, by operations at 45 % of its peak
    8 v5e chips        1.3 hours, a clip on each, by the formula of docs/performance.md
    16 v5e chips       0.66 hours for as many clips in steps of 16; 5.0 GiB a chip, compiled

Expected: 80.3 mIoU on `val` (500 clips), the paper's (arXiv 2102.08643); not reproduced here.

Source: `configs/video/cityscapes/tmanet_r50-d8_769x769_80k_cityscapes_video.py`, whose values the
defaults of all fields are.
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
