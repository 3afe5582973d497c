"""A run's settings as typed values, made of a configuration file's fields.

`configs/default.py` says what each field means, with its unit and source; here each is checked.
"""

import dataclasses
from collections.abc import Collection
from typing import Literal, TypeVar, get_args

from ml_collections import ConfigDict

from tmanet_jax.data.augment import Augmentation
from tmanet_jax.errors import UserError
from tmanet_jax.models.backbones import BLOCKS_OF_DEPTH, ResNetConfig
from tmanet_jax.models.heads import TMAHeadConfig
from tmanet_jax.models.layers import Precision
from tmanet_jax.models.losses import LossConfig
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.parallel.sharding import MeshConfig
from tmanet_jax.protocol import EvalConfig, Protocol
from tmanet_jax.setting_ranges import check_ranges

Choice = TypeVar("Choice", bound=object)

LEAST_RATIO, MOST_RATIO = 1 / 16, 16
"""That a frame is resized by: beyond these it is no picture, or fills the memory."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where clips come from, and how training reads them.

    Attributes:
        dir: directory of the clip records.
        train_split: split that trains.
        eval_split: split that is scored.
        memory_range: frames before the query that training draws its memory frames from.
        augmentation: of training.
        num_workers: processes that prepare batches; 0 means threads of this one.
        render: the street to render if there are no records, or None.
    """

    dir: str
    train_split: str
    eval_split: str
    memory_range: int
    augmentation: Augmentation
    num_workers: int
    render: "RenderConfig | None"


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """A synthetic data set: pixels, clips of each split, frames before each annotated one."""

    size: tuple[int, int]
    num_train: int
    num_eval: int
    memory_range: int


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Files of weights that a run begins with; empty means random weights.

    Attributes:
        pretrained: of the backbone alone.
        checkpoint: of a whole TMANet; training makes new classifiers if it has other classes.
        published: the backbone that the configuration's published score begins from, if any.
        classes: "compare" the checkpoint's names of classes with the records', or "keep" its
            classifiers whatever the names are.
        align_corners: of a network that is scored or used, if the command line sets it; None: as
            its file says.
    """

    pretrained: str = ""
    checkpoint: str = ""
    published: str = ""
    classes: Literal["compare", "keep"] = "compare"
    align_corners: bool | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Hyper-parameters of SGD; the defaults are the published ones.

    Attributes:
        learning_rate: at iteration 0 (after the warm-up, if there is one).
        min_learning_rate: at the end of the schedule.
        power: exponent of the decay.
        warmup_steps: iterations over which the rate rises linearly to the schedule's.
        momentum: share of the last update's direction that is kept.
        weight_decay: of every parameter, batch norm and biases included.
    """

    learning_rate: float = 0.01
    min_learning_rate: float = 1e-4
    power: float = 0.9
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run is told.

    Attributes:
        seed: of initial weights, shuffling, augmentation and dropout.
        batch_size: clips a step, over all devices.
        num_steps: updates.
        max_skipped_steps: steps of one start that may be skipped because they are not finite.
        accumulate: parts of a batch that go through the network one after the other.
        mesh: how the devices are divided.
        model: shape of the network.
        init: weights to begin with.
        data: where clips come from.
        optimizer: hyper-parameters of SGD.
        loss: its parts and average; class weights are filled in from the records.
        class_weight_power: class weights are frequency ** -power; 0 means none.
        evaluation: how frames are segmented for a score.
        checkpoint_every: steps between checkpoints.
        checkpoints_kept: the newest ones; the best by mIoU is kept besides.
        log_every: steps between lines of the log and points of the curves.
        profile: first and last step, from 1, of a trace; None: none.
    """

    seed: int
    batch_size: int
    num_steps: int
    max_skipped_steps: int
    accumulate: int
    mesh: MeshConfig
    model: ModelConfig
    init: InitConfig
    data: DataConfig
    optimizer: OptimizerConfig
    loss: LossConfig
    class_weight_power: float
    evaluation: EvalConfig
    checkpoint_every: int
    checkpoints_kept: int
    log_every: int
    profile: tuple[int, int] | None


def from_config(config: ConfigDict, told: Collection[str] = ()) -> Settings:
    """Checks a configuration and gives it types.

    Args:
        config: as the files in `configs` make it.
        told: its fields that the command line sets, such as "eval.mode".

    Raises:
        UserError: a field has a value that it cannot have; the message names it.
    """
    check_ranges(config)
    model = _model(config.model)
    return Settings(
        seed=config.seed,
        batch_size=config.batch_size,
        num_steps=config.num_steps,
        max_skipped_steps=config.max_skipped_steps,
        accumulate=config.accumulate,
        mesh=MeshConfig(**config.mesh),
        model=model,
        init=_init(config, told),
        data=_data(config, model.backbone.stride),
        optimizer=OptimizerConfig(**config.optimizer),
        loss=LossConfig(
            aux_weight=config.loss.aux_weight,
            average=_choice("loss.average", config.loss.average, ("all", "valid")),
        ),
        class_weight_power=config.loss.class_weight_power,
        evaluation=_evaluation(config.eval, told),
        checkpoint_every=config.checkpoint.every,
        checkpoints_kept=config.checkpoint.keep,
        log_every=config.log.every,
        profile=_profile(config.profile, config.num_steps),
    )


def _model(config: ConfigDict) -> ModelConfig:
    _choice("model.depth", config.depth, tuple(BLOCKS_OF_DEPTH))
    if config.width < 2 or config.width % 2:
        raise UserError(f"config.model.width must be an even number, not {config.width}.")
    if config.blocks is not None and not _are_positive_ints(config.blocks, 4):
        raise UserError(
            f"config.model.blocks must be four positive whole numbers, not {config.blocks}."
        )
    try:
        return _checked_model(config)
    except ValueError as error:
        raise UserError(f"config.model: {error}.") from error


def _checked_model(config: ConfigDict) -> ModelConfig:
    return ModelConfig(
        backbone=ResNetConfig(
            depth=config.depth,
            deep_stem=config.deep_stem,
            width=config.width,
            blocks=config.blocks,
        ),
        head=TMAHeadConfig(
            num_classes=config.num_classes,
            num_memory=config.num_memory,
            key_channels=config.key_channels,
            value_channels=config.value_channels,
            channels=config.head_channels,
            aux_channels=config.aux_channels,
            dropout=config.dropout,
            tied_init=config.tied_init,
            scale_scores=config.scale_scores,
        ),
        align_corners=config.align_corners,
        memory_gradient=config.memory_gradient,
        dtype=_choice("model.dtype", config.dtype, ("float32", "bfloat16")),
        precision=_choice("model.precision", config.precision, get_args(Precision)),
        attention=_choice("model.attention", config.attention, get_args(Attention)),
        remat=config.remat,
    )


def _init(config: ConfigDict, told: Collection[str]) -> InitConfig:
    init = config.init
    if init.pretrained and init.checkpoint:
        raise UserError(
            "config.init.pretrained and config.init.checkpoint both set the backbone: choose one."
        )
    return InitConfig(
        pretrained=init.pretrained,
        checkpoint=init.checkpoint,
        published=init.published,
        classes=_choice("init.classes", init.classes, ("compare", "keep")),
        align_corners=config.model.align_corners if "model.align_corners" in told else None,
    )


def _data(config: ConfigDict, stride: int) -> DataConfig:
    data = config.data
    if not data.dir:
        raise UserError(
            "config.data.dir is empty: say where the clip records are, as in "
            "--config.data.dir=data/cityscapes."
        )
    num_memory = config.model.num_memory
    memory_range = num_memory if data.memory_range is None else data.memory_range
    if memory_range < num_memory:
        raise UserError(
            f"config.data.memory_range is {memory_range}: {num_memory} memory frames "
            "(config.model.num_memory) cannot be drawn from so few."
        )
    render = RenderConfig(
        size=_size("data.render_size", data.render_size),
        num_train=data.render_train,
        num_eval=data.render_eval,
        memory_range=data.render_memory_range,
    )
    return DataConfig(
        dir=data.dir,
        train_split=data.train_split,
        eval_split=data.eval_split,
        memory_range=memory_range,
        augmentation=_augmentation(data, stride),
        num_workers=data.num_workers,
        render=render if data.render else None,
    )


def _augmentation(data: ConfigDict, stride: int) -> Augmentation:
    crop_size = _size("data.crop_size", data.crop_size)
    if min(crop_size) < stride:
        raise UserError(
            f"config.data.crop_size is {crop_size}: it must be at least {stride} pixels "
            "each way, the backbone's stride."
        )
    ratios = data.ratio_range
    if not (len(ratios) == 2 and all(isinstance(ratio, float | int) for ratio in ratios)):
        raise UserError(f"config.data.ratio_range must be two numbers, not {ratios}.")
    if not LEAST_RATIO <= ratios[0] <= ratios[1] <= MOST_RATIO:
        raise UserError(
            f"config.data.ratio_range must be {LEAST_RATIO} <= low <= high <= {MOST_RATIO}, not "
            f"{ratios}."
        )
    return Augmentation(
        crop_size=crop_size,
        ratio_range=(ratios[0], ratios[1]),
        cat_max_ratio=data.cat_max_ratio,
        flip_probability=data.flip_probability,
        photometric=_choice("data.photometric", data.photometric, ("frame", "clip", "off")),
    )


_OF_PROTOCOL = ("mode", "crop_size", "stride", "scale")


def _evaluation(config: ConfigDict, told: Collection[str]) -> EvalConfig:
    try:
        protocol = Protocol(**{name: config[name] for name in _OF_PROTOCOL})
    except UserError as error:
        raise UserError(f"config.eval.{error}") from error
    return EvalConfig(
        protocol=protocol,
        told=frozenset(name for name in _OF_PROTOCOL if f"eval.{name}" in told),
        batch_size=config.batch_size,
        windows_per_call=config.windows_per_call,
        ratios=_ratios(config.ratios),
        flip=config.flip,
        every=config.every,
        num_overlays=config.num_overlays,
        num_worst=config.num_worst,
        video_dir=config.video_dir,
        vspw_published=config.vspw_published,
    )


def _profile(steps: tuple[int, ...], num_steps: int) -> tuple[int, int] | None:
    if not steps:
        return None
    if not (_are_positive_ints(steps, 2) and steps[0] <= steps[1]):
        raise UserError(
            f"config.profile must be the first and the last step of a trace, from 1, not {steps}: "
            '--config.profile="(11,15)".'
        )
    if steps[0] > num_steps:
        raise UserError(
            f"config.profile begins at step {steps[0]}, beyond config.num_steps {num_steps}: "
            "nothing would be traced; choose earlier steps."
        )
    return (steps[0], steps[1])


def _ratios(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or not all(
        isinstance(ratio, int | float) and LEAST_RATIO <= ratio <= MOST_RATIO for ratio in values
    ):
        raise UserError(
            f"config.eval.ratios must be one or more numbers from {LEAST_RATIO} to {MOST_RATIO}, "
            f"not {values}: "
            "--config.eval.ratios='(0.75,1.0,1.25)'."
        )
    return tuple(float(ratio) for ratio in values)


def _choice(field: str, value: Choice, choices: tuple[Choice, ...]) -> Choice:
    if value not in choices:
        raise UserError(f"config.{field} is {value!r}: choose one of {list(choices)}.")
    return value


def _size(field: str, value: tuple[int, ...]) -> tuple[int, int]:
    if not _are_positive_ints(value, 2):
        raise UserError(f"config.{field} must be (height, width) in whole pixels, not {value}.")
    return (value[0], value[1])


def _are_positive_ints(values: tuple[int, ...], count: int) -> bool:
    return len(values) == count and all(isinstance(x, int) and x > 0 for x in values)
