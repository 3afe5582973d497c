"""A run's settings as typed values, made of a configuration file's fields.

`configs/default.py` says what each field means, with its unit and source; here each is checked.
"""

import dataclasses
from typing import Literal, TypeVar

from ml_collections import ConfigDict

from tmanet_jax.data.transforms import Augmentation
from tmanet_jax.errors import UserError
from tmanet_jax.losses import LossConfig
from tmanet_jax.models.heads import HeadConfig
from tmanet_jax.models.resnet import BLOCKS_OF_DEPTH, OUTPUT_STRIDE, ResNetConfig
from tmanet_jax.models.tmanet import ModelConfig

Choice = TypeVar("Choice", bound=object)


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
    """A synthetic data set: height and width in pixels, and clips of each split."""

    size: tuple[int, int]
    num_train: int
    num_eval: int


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Files of weights that a run begins with; empty means random weights.

    Attributes:
        pretrained: of the backbone alone.
        checkpoint: of a whole TMANet; training makes new classifiers if it has other classes.
    """

    pretrained: str = ""
    checkpoint: str = ""


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
class EvalConfig:
    """How whole frames are segmented for a score.

    Attributes:
        mode: "slide" (windows) or "whole" (the frame at once).
        crop_size: height and width of a window in pixels.
        stride: from window to window, down and to the right, in pixels.
        batch_size: clips at a time on each device.
        windows_per_call: windows of a clip that the network sees at a time.
        every: training steps between evaluations.
        num_overlays: clips whose pictures are kept, spread evenly over the split.
    """

    mode: Literal["slide", "whole"] = "slide"
    crop_size: tuple[int, int] = (769, 769)
    stride: tuple[int, int] = (513, 513)
    batch_size: int = 1
    windows_per_call: int = 1
    every: int = 8_000
    num_overlays: int = 8


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run is told.

    Attributes:
        seed: of initial weights, shuffling, augmentation and dropout.
        batch_size: clips a step, over all devices.
        num_steps: updates.
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
    """

    seed: int
    batch_size: int
    num_steps: int
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


def from_config(config: ConfigDict) -> Settings:
    """Checks a configuration and gives it types.

    Raises:
        UserError: a field has a value that it cannot have; the message names it.
    """
    _require_positive(
        config,
        "batch_size num_steps model.num_classes model.key_channels model.value_channels "
        "model.head_channels model.aux_channels eval.batch_size eval.windows_per_call eval.every "
        "checkpoint.every checkpoint.keep log.every",
    )
    return Settings(
        seed=config.seed,
        batch_size=config.batch_size,
        num_steps=config.num_steps,
        model=_model(config.model),
        init=_init(config.init),
        data=_data(config),
        optimizer=OptimizerConfig(**config.optimizer),
        loss=LossConfig(
            aux_weight=config.loss.aux_weight,
            average=_choice("loss.average", config.loss.average, ("all", "valid")),
        ),
        class_weight_power=config.loss.class_weight_power,
        evaluation=EvalConfig(
            mode=_choice("eval.mode", config.eval.mode, ("slide", "whole")),
            crop_size=_size("eval.crop_size", config.eval.crop_size),
            stride=_size("eval.stride", config.eval.stride),
            batch_size=config.eval.batch_size,
            windows_per_call=config.eval.windows_per_call,
            every=config.eval.every,
            num_overlays=config.eval.num_overlays,
        ),
        checkpoint_every=config.checkpoint.every,
        checkpoints_kept=config.checkpoint.keep,
        log_every=config.log.every,
    )


def _model(config: ConfigDict) -> ModelConfig:
    _choice("model.depth", config.depth, tuple(BLOCKS_OF_DEPTH))
    if config.width < 2 or config.width % 2:
        raise UserError(f"config.model.width must be an even number of channels: {config.width}")
    if config.num_memory < 0:
        raise UserError(f"config.model.num_memory must be 0 or more: {config.num_memory}")
    if config.blocks is not None and (len(config.blocks) != 4 or min(config.blocks) < 1):
        raise UserError(f"config.model.blocks must be four positive numbers: {config.blocks}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"config.model.dropout must be in [0, 1): {config.dropout}")
    return ModelConfig(
        backbone=ResNetConfig(
            depth=config.depth,
            deep_stem=config.deep_stem,
            width=config.width,
            blocks=config.blocks,
        ),
        head=HeadConfig(
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
    )


def _init(config: ConfigDict) -> InitConfig:
    if config.pretrained and config.checkpoint:
        raise UserError(
            "config.init.pretrained and config.init.checkpoint both set the backbone: choose one"
        )
    return InitConfig(**config)


def _data(config: ConfigDict) -> DataConfig:
    data = config.data
    if not data.dir:
        raise UserError(
            "config.data.dir is empty: say where the clip records are, as in "
            "--config.data.dir=data/cityscapes"
        )
    num_memory = config.model.num_memory
    memory_range = num_memory if data.memory_range is None else data.memory_range
    if memory_range < num_memory:
        raise UserError(
            f"config.data.memory_range is {memory_range}: {num_memory} memory "
            "frames (config.model.num_memory) cannot be drawn from so few"
        )
    low, high = data.ratio_range
    if not 0 < low <= high:
        raise UserError(f"config.data.ratio_range must be 0 < low <= high: {data.ratio_range}")
    crop_size = _size("data.crop_size", data.crop_size)
    if min(crop_size) < OUTPUT_STRIDE:
        raise UserError(
            f"config.data.crop_size is {crop_size}: at least {OUTPUT_STRIDE} pixels each way, the "
            "network's output stride"
        )
    render = RenderConfig(
        size=_size("data.render_size", data.render_size),
        num_train=data.render_train,
        num_eval=data.render_eval,
    )
    return DataConfig(
        dir=data.dir,
        train_split=data.train_split,
        eval_split=data.eval_split,
        memory_range=memory_range,
        augmentation=Augmentation(
            crop_size=crop_size,
            ratio_range=(low, high),
            cat_max_ratio=data.cat_max_ratio,
            flip_probability=data.flip_probability,
            photometric=_choice("data.photometric", data.photometric, ("frame", "clip", "off")),
        ),
        num_workers=data.num_workers,
        render=render if data.render else None,
    )


def _require_positive(config: ConfigDict, fields: str) -> None:
    for field in fields.split():
        value = config
        for name in field.split("."):
            value = value[name]
        if value < 1:
            raise UserError(f"config.{field} must be at least 1: {value}")


def _choice(field: str, value: Choice, choices: tuple[Choice, ...]) -> Choice:
    if value not in choices:
        raise UserError(f"config.{field} is {value!r}: choose one of {list(choices)}")
    return value


def _size(field: str, value: tuple[int, ...]) -> tuple[int, int]:
    if len(value) != 2 or not all(isinstance(x, int) and x > 0 for x in value):
        raise UserError(f"config.{field} must be (height, width) in pixels: {value}")
    return (value[0], value[1])
