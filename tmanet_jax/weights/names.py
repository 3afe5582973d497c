"""The names and layouts of the original's tensors, and where they stand in this model.

The table leads from this model's parameters to the original's `state_dict` and, read from right to
left, back.
"""

import collections
import functools
import re
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import PathParts

from tmanet_jax.models.tmanet import ModelConfig, abstract_model

DEEP_STEM = """
    this model                                   the original
    -----------------------------------------    --------------------------------------------
    backbone.stem.0.conv                         backbone.stem.0
    backbone.stem.0.norm                         backbone.stem.1
    backbone.stem.1.conv                         backbone.stem.3
    backbone.stem.1.norm                         backbone.stem.4
    backbone.stem.2.conv                         backbone.stem.6
    backbone.stem.2.norm                         backbone.stem.7
"""
PLAIN_STEM = """
    this model                                   the original, and torchvision
    -----------------------------------------    --------------------------------------------
    backbone.stem.0.conv                         backbone.conv1
    backbone.stem.0.norm                         backbone.bn1
"""
LAYERS = """
    this model                                   the original
    -----------------------------------------    --------------------------------------------
    backbone.stages.{s}.{b}.conv{n}.conv         backbone.layer{s+1}.{b}.conv{n}
    backbone.stages.{s}.{b}.conv{n}.norm         backbone.layer{s+1}.{b}.bn{n}
    backbone.stages.{s}.{b}.shortcut.conv        backbone.layer{s+1}.{b}.downsample.0
    backbone.stages.{s}.{b}.shortcut.norm        backbone.layer{s+1}.{b}.downsample.1
    backbone.stages.{s}.{b}.shortcut.of_mean.conv    backbone.layer{s+1}.{b}.downsample.1
    backbone.stages.{s}.{b}.shortcut.of_mean.norm    backbone.layer{s+1}.{b}.downsample.2
    backbone.first.conv                          backbone.conv1.conv
    backbone.first.norm                          backbone.conv1.bn
    backbone.layers.{s}.{b}.convs.{i}.conv       backbone.layer{s+1}.{b}.conv.{i}.conv
    backbone.layers.{s}.{b}.convs.{i}.norm       backbone.layer{s+1}.{b}.conv.{i}.bn
"""
CONVNEXT = """
    this model                                   torchvision
    -----------------------------------------    --------------------------------------------
    backbone.stem.{i}                            backbone.features.0.{i}
    backbone.downs.{s}.{i}                       backbone.features.{2s+2}.{i}
    backbone.stages.{s}.{b}.depthwise            backbone.features.{2s+1}.{b}.block.0
    backbone.stages.{s}.{b}.norm                 backbone.features.{2s+1}.{b}.block.2
    backbone.stages.{s}.{b}.wide                 backbone.features.{2s+1}.{b}.block.3
    backbone.stages.{s}.{b}.narrow               backbone.features.{2s+1}.{b}.block.5
    backbone.stages.{s}.{b}                      backbone.features.{2s+1}.{b}
"""
HEAD = """
    this model                                   the original
    -----------------------------------------    --------------------------------------------
    query_encoder.key.{i}.conv                   query_key_conv.{i}.conv
    query_encoder.key.{i}.norm                   query_key_conv.{i}.bn
    query_encoder.value.{i}.conv                 query_value_conv.{i}.conv
    query_encoder.value.{i}.norm                 query_value_conv.{i}.bn
    memory_encoders.{t}.key.{i}.conv             memory_key_conv.{i}.{t}.conv
    memory_encoders.{t}.key.{i}.norm             memory_key_conv.{i}.{t}.bn
    memory_encoders.{t}.value.{i}.conv           memory_value_conv.{i}.{t}.conv
    memory_encoders.{t}.value.{i}.norm           memory_value_conv.{i}.{t}.bn
    conv.conv                                    convs.0.conv
    conv.norm                                    convs.0.bn
    further_convs.{i}.conv                       convs.{i+1}.conv
    further_convs.{i}.norm                       convs.{i+1}.bn
    of_both.conv                                 conv_cat.conv
    of_both.norm                                 conv_cat.bn
    pooled.{i}.conv                              psp_modules.{i}.1.conv
    pooled.{i}.norm                              psp_modules.{i}.1.bn
    bottleneck.conv                              bottleneck.conv
    bottleneck.norm                              bottleneck.bn
    classifier                                   conv_seg
"""
CONVNEXT_OF_TIMM = """
    timm                                         torchvision
    -----------------------------------------    --------------------------------------------
    stem.{i}                                     features.0.{i}
    stages.{s}.downsample.{i}                    features.{2s+0}.{i}
    stages.{s}.blocks.{b}.conv_dw                features.{2s+1}.{b}.block.0
    stages.{s}.blocks.{b}.norm                   features.{2s+1}.{b}.block.2
    stages.{s}.blocks.{b}.mlp.fc1                features.{2s+1}.{b}.block.3
    stages.{s}.blocks.{b}.mlp.fc2                features.{2s+1}.{b}.block.5
    stages.{s}.blocks.{b}                        features.{2s+1}.{b}
    head.norm                                    classifier.0
    head.fc                                      classifier.2
"""
"""Which layer is which: {s} stage, {b} block, {n} and {i} convolution, {t} position."""

UPDATE_COUNT = "num_batches_tracked"

PARAMETERS = {
    "kernel_hwio": "weight",
    "kernel_io": "weight",
    "layer_scale": "layer_scale",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "num_updates": UPDATE_COUNT,
}
"""Which parameter of a layer is which. In the original kernels are OIHW or OI, scales of ConvNeXt's
layers Cx1x1, and counts int64."""

Tensors = dict[str, np.ndarray]
"""Tensors by the original's names, in its layouts."""


def to_tensors(state: nnx.State) -> Tensors:
    """A model's state -> tensors by the original's names, in its layouts."""
    return tensors_of({path: np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)})


def tensors_of(arrays: Mapping[PathParts, np.ndarray]) -> Tensors:
    """The same of arrays by their paths in a model's state."""
    return {name: _to_original(path, arrays[path]) for path, name in original_names(arrays).items()}


def with_tensors(state: nnx.State, tensors: Tensors) -> nnx.State:
    """The state with the given tensors in place of its own; what is not given stays."""
    flat = dict(nnx.to_flat_state(state))
    for path, name in original_names(flat).items():
        if name in tensors:
            value = _from_original(path, tensors[name])
            flat[path] = flat[path].replace(jax.device_put(value.astype(flat[path].dtype)))
    return nnx.from_flat_state(flat)


def original_names(paths: Iterable[PathParts]) -> dict[PathParts, str]:
    """The original's name of every parameter of a model, by its path in the model's state.

    A layer that the table does not have, as of a backbone that the original has not, keeps this
    model's name; so does a parameter.

    Raises:
        ValueError: two parameters would have one name.
    """
    paths = tuple(paths)
    is_deep = any(path[:3] == ("backbone", "stem", 2) for path in paths)
    rows = _rows(DEEP_STEM if is_deep else PLAIN_STEM) + _rows(LAYERS) + _rows(CONVNEXT)
    rows += _rows(HEAD, "head.", "decode_head.") + _rows(HEAD, "aux_head.", "auxiliary_head.")
    names = {path: _original_name(path, rows) for path in paths}
    for name, count in collections.Counter(names.values()).items():
        if count > 1:
            raise ValueError(f"{count} parameters would be called {name}: rename their layers")
    return names


@functools.cache
def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the network, by the original's names and in its layouts."""
    model = abstract_model(config)
    flat = dict(nnx.to_flat_state(nnx.state(model)))
    return {
        name: _to_original(path, np.broadcast_to(0, flat[path].shape)).shape
        for path, name in original_names(flat).items()
    }


def expected_dtype(name: str) -> np.dtype:
    """Type of the tensor of this name."""
    return np.dtype(np.int64 if name.endswith(UPDATE_COUNT) else np.float32)


def as_expected(tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """Timm's names and numbers of other types become those that the network has, which is told."""
    notes: tuple[str, ...] = ()
    if "stages.0.blocks.0.gamma" in tensors:
        tensors, notes = _of_torchvision(tensors), ("timm's names became torchvision's",)
    converted: Tensors = {}
    changes: collections.Counter[tuple[np.dtype, np.dtype]] = collections.Counter()
    for name, tensor in tensors.items():
        wanted = expected_dtype(name)
        kind = jnp.floating if wanted.kind == "f" else jnp.integer
        converts = tensor.dtype != wanted and jnp.issubdtype(tensor.dtype, kind)
        converted[name] = tensor.astype(wanted) if converts else tensor
        changes[tensor.dtype, wanted] += converts
    return converted, notes + tuple(
        f"{count} tensors of {found} became {wanted}"
        for (found, wanted), count in changes.items()
        if count
    )


def _of_torchvision(tensors: Tensors) -> Tensors:
    """Timm's tensors of a ConvNeXt by torchvision's names, in its layouts."""
    rows = _rows(CONVNEXT_OF_TIMM)
    converted: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, parameter = name.rpartition(".")
        if parameter == "gamma":
            parameter, tensor = "layer_scale", tensor.reshape(-1, 1, 1)
        converted[f"{_layer_there(layer, rows)}.{parameter}"] = tensor
    return converted


def _to_original(path: PathParts, value: np.ndarray) -> np.ndarray:
    match path[-1]:
        case "kernel_hwio":
            return value.transpose(3, 2, 0, 1)
        case "kernel_io":
            return value.T
        case "layer_scale":
            return value[:, None, None]
        case "num_updates":
            return value.astype(np.int64)
    return value


def _from_original(path: PathParts, tensor: np.ndarray) -> np.ndarray:
    match path[-1]:
        case "kernel_hwio":
            return tensor.transpose(2, 3, 1, 0)
        case "kernel_io":
            return tensor.T
        case "layer_scale":
            return tensor[:, 0, 0]
    return tensor


def _rows(table: str, here: str = "", there: str = "") -> list[tuple[re.Pattern[str], str]]:
    """Rows of a table of names: a pattern of this model's layer, a template of the original's.

    Args:
        table: of which columns.
        here: what the names of the first column stand behind.
        there: those of the second.
    """
    rows = []
    for line in table.split("\n")[3:-1]:
        ours, theirs = line.split()
        rows.append(
            (
                re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(here + ours))),
                there + theirs,
            )
        )
    return rows


def _original_name(path: PathParts, rows: list[tuple[re.Pattern[str], str]]) -> str:
    *layers, parameter = map(str, path)
    layer = ".".join(layers)
    if parameter not in PARAMETERS:
        return f"{layer}.{parameter}"
    return f"{_layer_there(layer, rows)}.{PARAMETERS[parameter]}"


def _layer_there(layer: str, rows: list[tuple[re.Pattern[str], str]]) -> str:
    """The second column's name of a layer; its own if no row has it."""
    for pattern, template in rows:
        if match := pattern.fullmatch(layer):
            indices = {letter: int(number) for letter, number in match.groupdict().items()}
            sums = {
                f"{times}{letter}+{more}": int(times or 1) * number + more
                for letter, number in indices.items()
                for times in ("", "2")
                for more in range(3)
            }
            return template.format_map(indices | sums)
    return layer
