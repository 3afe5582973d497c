r"""Fine-tuning: from trained weights to data of one's own, of other classes or looks.

    python -m data_prep.folder --source=mine --out=data/mine
    python run.py --config=configs/finetune.py:runs/demo --config.data.dir=data/mine \
        --config.model.num_classes=2 --workdir=runs/mine

Behind the colon stands the workdir of a run: its network, crops and windows are taken, and its best
weights are begun with. Without it the network is the published one, and weights are named:
`--config.init.checkpoint=FILE` (a whole network) or `--config.init.pretrained=FILE` (a backbone).
Classifiers are new where the classes are others, which is told.

Expected, time and memory: those of the data. `docs/training.md` has a comparison with training from
nothing.

AdamW; the stem and the first stage of a ResNet stay as they are, the rest of the backbone learns at
a tenth of the rate. The moving average of the weights is scored, and training ends when its score
has not risen for a fifth of the steps.
"""

from ml_collections import ConfigDict

from configs import default
from configs import workdir as of_run


def get_config(workdir: str = "") -> ConfigDict:
    """A short run on `data/mine`.

    Args:
        workdir: of the run whose network goes on.

    Raises:
        UserError: there is no run, or its description is damaged.
    """
    config = of_run.get_config(workdir) if workdir else default.get_config()
    config.name = "finetune"
    config.num_steps = 2_000
    config.ema_decay = 0.99
    config.init.checkpoint = workdir
    config.init.pretrained = ""
    config.init.published = ""
    config.data.dir = "data/mine"
    config.data.render = False
    if "frozen_stages" in config.model:
        config.model.frozen_stages = 1

    config.optimizer.name = "adamw"
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.min_learning_rate = 0.0
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay_norms_and_biases = False
    config.optimizer.clip_norm = 1.0
    config.optimizer.rates = ("backbone=0.1",)
    config.optimizer.frozen = ()
    config.loss.class_weights = ()

    config.eval.every = 200
    config.eval.patience = 400
    config.checkpoint.every = 200
    return config
