"""The golden clips on this device: how far its logits are from the original's.

In float32 at the highest precision, as a user gets it (an NVIDIA GPU multiplies float32 in TF32),
and in bfloat16. `python -m pytest -m gpu` checks every golden case, at the highest precision alone.
"""

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.findings import Findings, Target
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import ModelConfig, TMANet, abstract_model
from tmanet_jax.weights.names import Tensors, with_tensors
from tmanet_jax.weights.networks import network_of
from tmanet_jax.weights.weight_file import WeightFile

GOLDENS = Path("tests/goldens")
CASES = ("b_full_cityscapes", "b_full_camvid")
"""Whole networks, T = 2 and T = 4."""

WAYS: Mapping[str, Mapping[str, Any]] = {
    "float32, highest": {"dtype": "float32", "precision": "highest"},
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
}
"""Fields of the network, by name; the first is held to `MOST`."""

MOST = 1e-3
"""Difference of a logit that float32 at the highest precision may have, as in the tests."""


def measure(cases: tuple[str, ...] = CASES) -> Findings:
    """The first clip of each case in every way; each row is printed as soon as it is there."""
    generator, rows, targets = _generator(), [], []
    for case in cases:
        facts = json.loads((GOLDENS / "cases" / f"{case}.json").read_text())
        with np.load(GOLDENS / "cases" / f"{case}.npz") as stored:
            expected_1xCxHxW = stored["in0_logits"]
        tensors = generator.make_state_dict(json.loads((GOLDENS / facts["spec"]).read_text()))
        clip = _clip(generator, facts["inputs"][0])
        for way, fields in WAYS.items():
            logits_1xHxWxC = _logits(tensors, facts["align_corners"], fields, clip)
            found_1xCxHxW = np.moveaxis(logits_1xHxWxC, -1, 1)
            difference = float(np.abs(found_1xCxHxW - expected_1xCxHxW).max())
            same = (found_1xCxHxW.argmax(1) == expected_1xCxHxW.argmax(1)).mean()
            share = difference / np.abs(expected_1xCxHxW).max()
            rows.append((f"{case}, {way}", f"{difference:.1e}", f"{share:.1e}", f"{same:.3%}"))
            print(*rows[-1], sep="  ", flush=True)
            if fields == WAYS["float32, highest"]:
                name = f"{case}: largest difference of a logit"
                targets.append(Target(name, difference, MOST, at_least=False))
    return Findings(
        title=f"Golden clips on {jax.devices()[0].device_kind}",
        columns=("", "largest difference", "of the largest logit", "same class"),
        rows=rows,
        targets=targets,
        notes=("Whole networks with made-up weights, against the original's logits in float32.",),
    )


def _generator() -> ModuleType:
    """The project's `golden_weights.py`, which makes weights and inputs."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDENS / "golden_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _clip(generator: ModuleType, facts: Mapping[str, Any]) -> np.ndarray:
    """Normalised frames, BxSxHxWx3, the query last."""
    query_Bx3xHxW = generator.make_input(facts["seed_img"], facts["img_shape"])
    memory_BxTx3xHxW = generator.make_input(facts["seed_sequence"], facts["sequence_shape"])
    clip_BxSx3xHxW = np.concatenate([memory_BxTx3xHxW, query_Bx3xHxW[:, None]], axis=1)
    return np.moveaxis(clip_BxSx3xHxW, 2, -1)


def _logits(
    tensors: Tensors, align_corners: bool, fields: Mapping[str, Any], clip_BxSxHxWx3: np.ndarray
) -> np.ndarray:
    """Of the queries at their own size, BxHxWxC."""
    config = network_of(WeightFile(tensors), align_corners=align_corners).config
    assert isinstance(config, ModelConfig)
    graphdef, state = nnx.split(abstract_model(dataclasses.replace(config, **fields)))

    @jax.jit
    def segment(state: nnx.State, clip_BxSxHxWx3: jax.Array) -> jax.Array:
        model: TMANet = nnx.merge(graphdef, state)
        _, _, height, width, _ = clip_BxSxHxWx3.shape
        logits_BxhxwxC = model(clip_BxSxHxWx3).main
        return resize_bilinear(logits_BxhxwxC, (height, width), align_corners=align_corners)

    return np.asarray(segment(with_tensors(state, tensors), clip_BxSxHxWx3), np.float32)
