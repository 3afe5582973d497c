r"""TMANet with a ConvNeXt-T on Cityscapes: 768x768, T = 2, 80,000 steps of 8 clips.

    python run.py --config=configs/tmanet_convnext_t.py --config.data.dir=data/cityscapes \
        --config.init.pretrained=convnext_tiny-983f1562.pth

The exact streaming memory on a modern backbone: `configs/cityscapes.py` but for the backbone and
what trains it. Needs its records and torchvision's ConvNeXt_Tiny_Weights (or timm's convnext_tiny);
without weights the run begins from random ones. S: `--config.model.blocks="(3,3,27,3)"`; B: beside
it `--config.model.width=128`. `--config.model.output_stride=16` quarters the memory's positions.

Expected: ours, not published; not trained here. Time and memory are not measured.

Source: the optimiser is that of the paper's segmentation, facebookresearch/ConvNeXt,
`semantic_segmentation/configs/convnext/upernet_convnext_tiny_512_160k_ade20k_ss.py`: AdamW, rate
1e-4, decay 0.05 of all but vectors, 1,500 steps of warm-up, and rates that fall by 0.9 a stage:
those of its `LearningRateDecayOptimizerConstructor`, `stage_wise` of 6 layers.
"""

from ml_collections import ConfigDict

from configs import cityscapes
from tmanet_jax.settings import choose


def get_config() -> ConfigDict:
    """The run with a ConvNeXt-T."""
    config = choose(cityscapes.get_config(), {"model.backbone": "convnext"})
    config.name = "tmanet_convnext_t"
    config.init.published = ""
    config.model.output_stride = 8
    config.model.align_corners = False
    config.data.crop_size = (768, 768)
    config.eval.crop_size = (768, 768)
    config.eval.stride = (512, 512)

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.min_learning_rate = 0.0
    config.optimizer.power = 1.0
    config.optimizer.warmup_steps = 1_500
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_norms_and_biases = False
    config.optimizer.rates = (
        f"backbone={0.9**7:.6f}",  # the stem, and what lies between the stages
        *(f"backbone.stages.{stage}={0.9 ** (6 - stage):.6f}" for stage in range(4)),
    )
    return config
