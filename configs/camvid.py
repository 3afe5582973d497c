r"""TMANet-50 on CamVid: 640x640, T = 4, 12 classes with void, 80,000 steps of 8 clips.

    python -m data_prep.camvid --source=DIR --out=data/camvid
    python run.py --config=configs/camvid.py --config.data.dir=data/camvid \
        --config.init.pretrained=resnet50_v1c-2cccc1ad.pth

Needs records and mmseg's pretrained backbone (docs/migrating.md); without that the run begins from
random weights, and says so.

Memory and time in bfloat16 (`--config.model.dtype=bfloat16`), none of it measured:
    one H200           2.8 hours, by operations (44.0 TFLOP a step) at 45 % of its peak
    16 v5e chips       0.72 hours for as many clips in steps of 16; 4.9 GiB a chip, compiled

Expected: 76.5 mIoU on `val` (101 clips), which the original scores, the paper's (arXiv 2102.08643);
not reproduced here. `--config.data.eval_split=test` scores the published test split (232).

Source: `configs/video/camvid/tmanet_r50-d8_640x640_80k_camvid_video.py`.
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
