"""The names and layouts of the original's tensors, and where they stand in this model.

The table leads from this model's parameters to the original's `state_dict` and, read from right to
left, back.
"""

import collections
import functools
import re
from collections.abc import Iterable, Mapping

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
"""Which layer is which: {s} stage, {b} block, {n} and {i} convolution, {t} position."""

UPDATE_COUNT = "num_batches_tracked"

PARAMETERS = {
    "kernel_hwio": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "num_updates": UPDATE_COUNT,
}
"""Which parameter of a layer is which. Kernels are OIHW in the original, counts are int64."""

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
            flat[path] = flat[path].replace(jnp.asarray(value, flat[path].dtype))
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
    rows = _rows(DEEP_STEM if is_deep else PLAIN_STEM) + _rows(LAYERS)
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
    """Numbers of other types become those that the network has, which is told."""
    converted: Tensors = {}
    changes: collections.Counter[tuple[np.dtype, np.dtype]] = collections.Counter()
    for name, tensor in tensors.items():
        wanted = expected_dtype(name)
        kind = jnp.floating if wanted.kind == "f" else jnp.integer
        converts = tensor.dtype != wanted and jnp.issubdtype(tensor.dtype, kind)
        converted[name] = tensor.astype(wanted) if converts else tensor
        changes[tensor.dtype, wanted] += converts
    return converted, tuple(
        f"{count} tensors of {found} became {wanted}"
        for (found, wanted), count in changes.items()
        if count
    )


def _to_original(path: PathParts, value: np.ndarray) -> np.ndarray:
    if path[-1] == "kernel_hwio":
        return value.transpose(3, 2, 0, 1)
    return value.astype(np.int64) if path[-1] == "num_updates" else value


def _from_original(path: PathParts, tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(2, 3, 1, 0) if path[-1] == "kernel_hwio" else tensor


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
    for pattern, template in rows:
        match = pattern.fullmatch(layer)
        if match:
            indices = {letter: int(number) for letter, number in match.groupdict().items()}
            successors = {f"{letter}+1": number + 1 for letter, number in indices.items()}
            layer = template.format_map(indices | successors)
            break
    return f"{layer}.{PARAMETERS[parameter]}"
