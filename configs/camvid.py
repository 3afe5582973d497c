r"""TMANet-50 on CamVid: 640x640, T = 4, 12 classes with void (published: 76.5 mIoU).

    python -m data_prep.camvid --source=DIR --out=data/camvid
    python run.py --config=configs/camvid.py --config.data.dir=data/camvid \
        --config.init.pretrained=resnet50_v1c-2cccc1ad.pth

The pretrained backbone is mmseg's (README); without one the run begins from random weights.

Source: `configs/video/camvid/tmanet_r50-d8_640x640_80k_camvid_video.py`. The original scores the
`val` split (101 clips); so does this configuration. `--config.data.eval_split=test` scores the
published test split (232).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The published CamVid run."""
    config = default.get_config()
    config.name = "camvid"
    config.init.published = "resnet50_v1c-2cccc1ad.pth"
    config.model.num_classes = 12
    config.model.num_memory = 4
    config.model.align_corners = False
    config.data.dir = "data/camvid"
    config.data.crop_size = (640, 640)
    config.eval.crop_size = (640, 640)
    config.eval.stride = (512, 512)
    return config
