"""A run's settings as typed values, and the configurations that they are made of.

A field is declared once, in a dataclass beside the code that uses it (`tmanet_jax.fields`);
`Settings` puts them together.
"""

import dataclasses
import difflib
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from tmanet_jax.checkpoints.config import CheckpointConfig
from tmanet_jax.data.config import DataConfig
from tmanet_jax.errors import UserError
from tmanet_jax.fields import (
    MOST_AT_ONCE,
    PUBLISHED,
    Checked,
    Leaf,
    declared_fields,
    field,
    leaves,
    part,
    with_kinds,
)
from tmanet_jax.models.losses import LossConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.parallel.sharding import MeshConfig
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.training.loggers import LogConfig
from tmanet_jax.training.optimizer import OptimizerConfig
from tmanet_jax.weights.load import InitConfig


@dataclasses.dataclass(frozen=True)
class Settings(Checked):
    """Everything that a run is told; the defaults are the published Cityscapes run's.

    In a configuration the fields of a flat part stand beside its own: `config.model.num_memory` is
    `settings.model.head.num_memory` here.
    """

    name: str = field("default", "names the default workdir, runs/NAME")
    seed: int = field(
        0, "of initial weights, shuffling, augmentation and dropout", low=0, high=2**63 - 1
    )
    batch_size: int = field(
        8, "over all devices", unit="clips a step", low=1, high=MOST_AT_ONCE, source=PUBLISHED
    )
    num_steps: int = field(80_000, "updates", low=1, source=PUBLISHED)
    max_skipped_steps: int = field(
        0,
        "steps of one start whose loss or gradient is not finite and that change nothing but the "
        "counters of steps; the next one stops the run, and so does the first: 0",
        low=0,
    )
    accumulate: int = field(
        1,
        "parts of a batch that go through the network one after the other",
        low=1,
        high=MOST_AT_ONCE,
    )
    ema_decay: float = field(
        0.0,
        "of a moving average of the weights, which is scored and kept in their place; 0: none",
        low=0,
        below=1,
    )
    mesh: MeshConfig = part(MeshConfig())
    model: ModelConfig = part(ModelConfig())
    init: InitConfig = part(InitConfig())
    data: DataConfig = part(DataConfig())
    optimizer: OptimizerConfig = part(OptimizerConfig())
    loss: LossConfig = part(LossConfig())
    evaluation: EvalConfig = part(EvalConfig(), name="eval")
    checkpoint: CheckpointConfig = part(CheckpointConfig())
    log: LogConfig = part(LogConfig())
    profile: tuple[()] | tuple[int, int] = field(
        (),
        "a trace of these steps goes to WORKDIR/profile; (): none",
        unit="the first and the last step of a trace, from 1",
        low=1,
    )

    @property
    def memory_range(self) -> int:
        """Frames before the query that training draws its memory frames from."""
        asked = self.data.memory_range
        return self.model.head.num_memory if asked is None else asked


def to_config(settings: Settings) -> ConfigDict:
    """A configuration with every field, locked: a field that nobody declared cannot be set."""
    values: dict[str, Any] = {}
    for leaf in leaves(settings):
        *groups, name = leaf.path.split(".")
        group = values
        for each in groups:
            group = group.setdefault(each, {})
        group[name] = FieldReference(leaf.value, _type_of(leaf.field.annotation, leaf.value))
    return ConfigDict(values).lock()


def choose(config: ConfigDict, kinds: Mapping[str, object]) -> ConfigDict:
    """A configuration with other kinds of parts, as in `choose(config, {"model.head": "psp"})`.

    It has their fields. Those that it sets otherwise than by default keep their values; where the
    chosen kind does not have one, it is left out.

    Args:
        config: as the files in `configs` make it.
        kinds: by their fields; other entries are left alone.

    Raises:
        UserError: there is no such kind, or the configuration has a field that no kind has.
    """
    there = flatten_dict(config.to_dict(), sep=".")
    run, before = _defaults_with({**there, **kinds}), _defaults_with(there)
    of_any_kind = _homes_of_fields(run)
    check_names((name for name in there if name not in of_any_kind), kinds)
    usual, fields = _values(before), _values(run)
    stated = {name: value for name, value in there.items() if value != usual.get(name)}
    chosen = to_config(run)
    chosen.update_from_flattened_dict({name: stated[name] for name in stated if name in fields})
    return chosen


def _values(settings: Settings) -> dict[str, Any]:
    return {leaf.path: leaf.value for leaf in leaves(settings)}


def _kinds_in(settings: Settings) -> dict[str, str]:
    return {leaf.path: leaf.value for leaf in leaves(settings) if leaf.field.declared.kinds}


def _defaults_with(kinds: Mapping[str, object]) -> Settings:
    """All defaults, with parts of these kinds."""
    try:
        return with_kinds(Settings(), kinds)
    except UserError as error:
        raise UserError(f"config.{error}") from error


def _homes_of_fields(settings: Settings) -> dict[str, str]:
    """All fields, of other kinds too, and with which choice there are those."""
    return {
        name: f"config.{leaf.path}={kind}, not with {leaf.value}"
        for leaf in leaves(settings)
        for kind in leaf.field.declared.kinds
        for name in _values(_defaults_with({**_kinds_in(settings), leaf.path: kind}))
    }


def from_config(config: ConfigDict, overrides: Collection[str] = ()) -> Settings:
    """Checks a configuration and gives it types; a field that it lacks has its default.

    Args:
        config: as the files in `configs` make it.
        overrides: its fields that the command line sets, such as "eval.mode".

    Raises:
        UserError: a field is unknown, or has a value that it cannot have; the message names it.
    """
    fields = flatten_dict(config.to_dict(), sep=".")
    check_names(fields, fields)
    default = _defaults_with(fields)
    for leaf in leaves(default):
        leaf.field.check(fields.get(leaf.path, leaf.value), f"config.{leaf.path}")
    settings: Settings = _made(
        default, [leaf for leaf in leaves(default) if leaf.attributes], fields
    )
    _check_together(settings)
    init, evaluation = settings.init, settings.evaluation
    if "model.align_corners" in overrides:
        init = dataclasses.replace(init, align_corners=settings.model.align_corners)
    of_protocol = [item.name for item in declared_fields(evaluation.protocol)]
    set_here = frozenset(name for name in of_protocol if f"eval.{name}" in overrides)
    evaluation = dataclasses.replace(evaluation, overridden=set_here)
    return dataclasses.replace(settings, init=init, evaluation=evaluation)


def check_names(names: Iterable[str], kinds: Mapping[str, object]) -> None:
    """Raises UserError for a dotted name that is no field, with the nearest that is one.

    Args:
        names: without `config.`.
        kinds: what is chosen, by its field; other entries are left alone.
    """
    settings = _defaults_with(kinds)
    known = _values(settings)
    groups = {path.rpartition(".")[0] for path in known}
    for name in names:
        if name in known or name in groups:
            continue
        if other := _homes_of_fields(settings).get(name):
            raise UserError(f"config.{name} goes with {other}: leave it out, or choose that kind.")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean config.{near[0]}?" if near else ""
        raise UserError(
            f"config.{name} is no field of a configuration.{hint} All of them: "
            "python run.py config --config=configs/default.py"
        )


def described(settings: Settings) -> str:
    """Every field: value, meaning, range or choices, default and source; `*` where it differs."""
    usual = _values(_defaults_with(_kinds_in(settings))) | _kinds_in(Settings())
    lines, num_different = [], 0
    for path, value, item, _ in leaves(settings):
        differs = value != usual[path]
        num_different += differs
        source = f" ({item.declared.source})" if item.declared.source else ""
        said = f"{item.declared.meaning}; {item.expected()}; default {usual[path]!r}{source}"
        lines.append(f"{' *'[differs]} config.{path} = {value!r}")
        lines += textwrap.wrap(said, 96, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([*lines, "", f"{num_different} of the fields (*) differ from their default."])


def _made(default: Any, of_default: Sequence[Leaf], fields: Mapping[str, Any]) -> Any:
    """The dataclass with the values of a configuration, or those of its own leaves."""
    values: dict[str, Any] = {}
    parts: dict[str, list[Leaf]] = {}
    for leaf in of_default:
        name, *inner = leaf.attributes
        if inner:
            parts.setdefault(name, []).append(leaf._replace(attributes=tuple(inner)))
        else:
            values[name] = fields.get(leaf.path, leaf.value)
    for name, of_part in parts.items():
        values[name] = _made(getattr(default, name), of_part, fields)
    try:
        return dataclasses.replace(default, **values)
    except UserError as error:
        if str(error).startswith("config."):
            raise
        group = of_default[0].path.rpartition(".")[0]
        raise UserError(f"config.{group}.{error}") from error


def _type_of(annotation: Any, value: Any) -> type:
    """What values on the command line are read as: where there may be none, None or a literal."""
    kinds = {getattr(kind, "__origin__", kind) for kind in getattr(annotation, "__args__", ())}
    if type(None) not in kinds:
        return type(value)
    return str if str in kinds else object


def _check_together(settings: Settings) -> None:
    """What a field can be beside another, or in a run alone.

    Raises:
        UserError: naming the fields.
    """
    data, num_memory, profile = settings.data, settings.model.head.num_memory, settings.profile
    if settings.memory_range < num_memory:
        raise UserError(
            f"config.data.memory_range is {settings.memory_range}: {num_memory} memory frames "
            "(config.model.num_memory) cannot be drawn from so few."
        )
    if settings.model.aux.num_memory:
        raise UserError("config.model.aux_num_memory must be 0: the auxiliary head has no memory.")
    crop_size, stride = data.augmentation.crop_size, settings.model.backbone.stride
    if min(crop_size) < stride:
        raise UserError(
            f"config.data.crop_size is {crop_size}: it must be at least {stride} pixels each way, "
            "the backbone's stride."
        )
    loss, num_classes = settings.loss, settings.model.head.num_classes
    if loss.class_weights and (loss.class_weight_power or len(loss.class_weights) != num_classes):
        raise UserError(
            f"config.loss.class_weights are {len(loss.class_weights)}: give one for each of the "
            f"{num_classes} classes (config.model.num_classes), and leave "
            "config.loss.class_weight_power at 0."
        )
    if profile and profile[0] > min(profile[1], settings.num_steps):
        raise UserError(
            f"config.profile must be the first and the last step of a trace, from 1 to "
            f"config.num_steps {settings.num_steps}, not {profile}: "
            '--config.profile="(11,15)".'
        )
    if settings.model.dtype == "float64":
        raise UserError("config.model.dtype must be 'float32' or 'bfloat16', not 'float64'.")
