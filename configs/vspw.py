r"""TMANet-50 on VSPW: 480x480, T = 3 three frames apart, 124 classes, 160,000 steps of 8 clips.

    python -m data_prep.vspw --source=VSPW_480p --out=data/vspw
    python run.py --config=configs/vspw.py --config.data.dir=data/vspw \
        --config.init.pretrained=resnet50_v1c-2cccc1ad.pth

Needs records and mmseg's pretrained backbone (docs/migrating.md); without that the run begins from
random weights, and says so.

Nobody has published a TMANet on VSPW, so there is no expected score. Crops, memory frames, steps
and optimiser are what papers on VSPW train with: GuoleiSun/VSS-CFFM,
`local_configs/_base_/datasets/vspw_repeat2.py` and `local_configs/cffm/`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A VSPW run as the field trains."""
    config = default.get_config()
    config.name = "vspw"
    config.init.published = "resnet50_v1c-2cccc1ad.pth"
    config.num_steps = 160_000
    config.model.num_classes = 124
    config.model.num_memory = 3
    config.model.align_corners = False
    config.data.dir = "data/vspw"
    config.data.crop_size = (480, 480)
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 6e-5
    config.optimizer.min_learning_rate = 0.0
    config.optimizer.power = 1.0
    config.optimizer.warmup_steps = 1_500
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay_norms_and_biases = False
    config.optimizer.rates = ("head=10", "aux_head=10")
    config.eval.mode = "whole"
    return config
