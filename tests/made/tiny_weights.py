"""Files of a small network whose random weights are made at once."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.models.test_tmanet import small_config
from tmanet_jax.data.classes import ClassSet, numbered_classes
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import files
from tmanet_jax.weights.names import Tensors, expected_dtype, expected_shapes
from tmanet_jax.weights.weight_file import WeightFile

CLASSES = numbered_classes(5)


def write_weights(
    path: Path,
    *,
    seed: int = 0,
    classes: ClassSet | None = CLASSES,
    protocol: Protocol | None = None,
) -> Path:
    """A file of a small network with two memory frames and, if nothing says more, five classes."""
    config = small_config(2)
    if classes is not None:
        head = dataclasses.replace(config.head, num_classes=classes.num_classes)
        config = dataclasses.replace(config, head=head)
    files.write(path, WeightFile(_tensors(config, seed), config, classes, protocol))
    return path


def _tensors(config: ModelConfig, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)

    def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 4:
            values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            around = 1.0 if name.endswith(("running_var", "weight")) else 0.0
            values = around + rng.uniform(-0.1, 0.1, shape)
        return values.astype(expected_dtype(name))

    return {name: tensor(name, shape) for name, shape in expected_shapes(config).items()}
