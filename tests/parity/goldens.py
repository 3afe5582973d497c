"""Golden cases: folders of them, their weights and inputs, and how numbers are compared with them.

A folder holds `cases/NAME.json` and `cases/NAME.npz` (or these at its top), `spec_*.json` with
names and shapes of weights, and `golden_weights.py`, which makes weights and inputs; what a folder
lacks of the latter two is taken from the project's own.
"""

import functools
import importlib.util
import json
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from tmanet_jax.weights.names import Tensors

_Things = TypeVar("_Things", bound=Sized)

OWN_GOLDENS = Path(__file__).parents[1] / "goldens"

FLOAT32_ABSOLUTE, FLOAT32_RELATIVE_RMS = 1e-3, 2e-5
FLOAT64_ABSOLUTE = 1e-9
CLEAR_MARGIN = 1e-3
"""Arg-maxes are compared where the two best classes are further apart than this."""


class Generator(Protocol):
    """`golden_weights.py`."""

    def make_state_dict(self, spec: list[tuple[str, list[int]]]) -> Tensors: ...

    def make_input(self, seed: int, shape: list[int]) -> np.ndarray: ...


class Input(NamedTuple):
    """One of a case's inputs: its name, what the JSON says of it, and what came of it."""

    name: str
    facts: Mapping[str, Any]
    expected: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
        path: its JSON file.
        facts: what the JSON says.
        arrays: what the original computed, or was given.
    """

    path: Path
    facts: dict[str, Any] = field(repr=False)
    arrays: Mapping[str, np.ndarray] = field(repr=False)

    def tensors(self) -> Tensors:
        """The weights of the case's network."""
        generator = _find(self.path, "golden_weights.py")
        spec = self.facts.get("spec") or re.findall(r"spec_\w+\.json", self.facts["what"])[0]
        if isinstance(spec, list):
            return _generator(generator).make_state_dict(spec)
        return _tensors(generator, _find(self.path, spec))

    def input(self, seed: int, shape: list[int]) -> np.ndarray:
        return _generator(_find(self.path, "golden_weights.py")).make_input(seed, shape)

    def clip(self, facts: Mapping[str, Any]) -> np.ndarray:
        """BxSxHxWx3, the query last, of an input's seeds and NCHW shapes."""
        query = self.input(facts["seed_img"], facts["img_shape"])
        memory = self.input(facts["seed_sequence"], facts["sequence_shape"])
        return clip_of(query, memory)

    def expected(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with the prefix, by the rest of their names."""
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def expected_in(self, dtype: str, prefix: str = "") -> dict[str, np.ndarray]:
        """Those of the original's run in this type, named without the `_f64` of one of them."""
        is_float64 = dtype == "float64"
        return {
            name.removesuffix("_f64"): array
            for name, array in self.expected(prefix).items()
            if name.endswith("_f64") == is_float64
        }

    def inputs(self, dtype: str) -> list[Input]:
        """The inputs of which the case stores something of a run in this type."""
        inputs = [
            Input(f"in{index}", facts, self.expected_in(dtype, f"in{index}_"))
            for index, facts in enumerate(self.facts["inputs"])
        ]
        return at_least_one([given for given in inputs if given.expected])


def at_least_one(things: _Things) -> _Things:
    """The same things; fails if there are none, for comparing nothing proves nothing."""
    assert len(things) > 0, "the case stores nothing to compare"
    return things


def clip_of(query_Bx3xHxW: np.ndarray, memory_BxTx3xHxW: np.ndarray) -> np.ndarray:
    """The original's query and memory -> BxSxHxWx3 with the query last."""
    clip_BxSx3xHxW = np.concatenate([memory_BxTx3xHxW, query_Bx3xHxW[:, None]], axis=1)
    return np.moveaxis(clip_BxSx3xHxW, 2, -1)


def load_cases(folder: Path) -> list[Case]:
    """All cases of a folder, by name."""
    inner = folder / "cases"
    paths = sorted((inner if inner.is_dir() else folder).glob("*.json"))
    return [_load(path) for path in paths if not path.name.startswith("spec_")]


def _load(path: Path) -> Case:
    arrays_path = path.with_suffix(".npz")
    arrays: dict[str, np.ndarray] = {}
    if arrays_path.exists():
        with np.load(arrays_path) as stored:
            arrays = dict(stored)
    return Case(path, json.loads(path.read_text()), arrays)


def _find(case: Path, name: str) -> Path:
    folders = (case.parent, case.parent.parent, OWN_GOLDENS)
    return next(folder / name for folder in folders if (folder / name).exists())


@functools.cache
def _generator(path: Path) -> Generator:
    spec = importlib.util.spec_from_file_location("golden_weights", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Generator, module)


@functools.cache
def _tensors(generator: Path, spec: Path) -> Tensors:
    return _generator(generator).make_state_dict(json.loads(spec.read_text()))


def nchw(x_NxHxWxC: ArrayLike) -> np.ndarray:
    return np.moveaxis(np.asarray(x_NxHxWxC), -1, -3)


def every_nth(x: np.ndarray, kept: int, axis: int) -> np.ndarray:
    """`x` thinned to `kept` entries of an axis by a constant step.

    Where several steps fit, the original's is the power of two.
    """
    length = x.shape[axis]
    steps = [step for step in range(1, length + 1) if -(-length // step) == kept]
    step = next((step for step in steps if step.bit_count() == 1), steps[0])
    return x.take(np.arange(0, length, step), axis)


def assert_features_close(computed: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Compares features or logits (..., C, H, W); of `expected`, channels may be thinned out."""
    computed = every_nth(computed, expected.shape[-3], axis=-3)
    assert computed.shape == expected.shape, what
    assert computed.dtype == expected.dtype, what
    error = np.abs(computed - expected)
    if expected.dtype == np.float64:
        assert error.max() <= FLOAT64_ABSOLUTE, f"{what}: off by {error.max()}"
        return
    assert error.max() <= FLOAT32_ABSOLUTE, f"{what}: off by {error.max()}"
    relative_rms = relative_l2(computed, expected)
    assert relative_rms <= FLOAT32_RELATIVE_RMS, f"{what}: relative RMS {relative_rms}"


def assert_same_arg_max(
    computed: np.ndarray, expected: np.ndarray, margin: np.ndarray, what: str
) -> None:
    """Compares predictions wherever the best class leads by more than a trifle."""
    differs = (computed != expected) & (margin > CLEAR_MARGIN)
    assert not differs.any(), f"{what}: {differs.sum()} of {differs.size} pixels differ"


def with_tuples(value: Any) -> Any:
    """Parsed JSON as the text of a configuration is parsed."""
    if isinstance(value, Mapping):
        return {name: with_tuples(item) for name, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def relative_l2(computed: np.ndarray, expected: np.ndarray) -> float:
    difference = computed.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))
