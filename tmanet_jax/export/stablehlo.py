"""A program as StableHLO, which jax runs on CPUs, NVIDIA GPUs and TPUs."""

import io
from typing import Any

import jax
import numpy as np

from tmanet_jax.export.program import Arrays, Program

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_of(program: Program) -> tuple[bytes, bytes]:
    """The program as `jax.export.deserialize` takes it, and its weights as `numpy.load` does."""
    leaves, tree = jax.tree.flatten(program.weights)
    weights = {f"weight_{index:04d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}

    def function(weights: dict[str, Any], given: Arrays) -> Arrays:
        outputs = program.function(jax.tree.unflatten(tree, list(weights.values())), given)
        return {program.output_name(name): array for name, array in outputs.items()}

    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(weights, program.inputs)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **weights)
    return bytes(exported.serialize()), file.getvalue()
