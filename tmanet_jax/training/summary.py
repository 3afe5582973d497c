"""A run before it trains: its network module by module, and the memory of a training step."""

import sys
from typing import Any, cast

import jax

from tmanet_jax.compilation_cache import compiling
from tmanet_jax.errors import counted
from tmanet_jax.models.summary import summary_of
from tmanet_jax.models.tmanet import blank_model
from tmanet_jax.parallel.sharding import check_batch_size, make_mesh
from tmanet_jax.settings import Settings
from tmanet_jax.training.setup import batch_shapes, initial_state
from tmanet_jax.training.step import compile_train_step

_COLUMNS = ("module", "output", "parameters", "operations", "activations")
_MIB = 2**20


def lower_step(settings: Settings, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """The training step of a run, made of shapes alone, for a compiler.

    Raises:
        UserError: the devices do not divide the batch.
    """
    check_batch_size(settings.batch_size, mesh, settings.accumulate)
    recipe, initial = initial_state(settings, blank_model(settings.model), None)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), initial)
    return compile_train_step(recipe, mesh).lower(state, batch_shapes(settings))


def memory_of(step: jax.stages.Compiled) -> dict[str, int]:
    """Bytes that a compiled step takes on each device, by what they hold; the peak is their sum."""
    memory = cast(Any, step.memory_analysis())
    assert memory, "the compilers of all devices here answer"
    return {
        "weights, optimiser and batch": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "activations and temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }


def print_summary(settings: Settings) -> None:
    """Prints the modules at once, and the memory when a training step is compiled.

    Raises:
        UserError: the devices do not divide the batch.
    """
    height, width = settings.data.augmentation.crop_size
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for path, shape, parameters, work in summary_of(settings.model, (height, width)):
        numbers = (f"{number:,}" for number in (parameters, *work))
        rows.append((path or "whole network", "x".join(map(str, shape)), *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{'<' if i < 2 else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        print("  ".join(cells).rstrip())
    frames = counted(settings.model.head.num_memory + 1, "frame")
    print(
        f"\nOne clip of {frames} {height}x{width} goes forward, the auxiliary head included. "
        "Operations: two for each multiply-add of convolutions and products; activations: the "
        "numbers that these give. A module's numbers include those of the modules in it."
    )
    print(compiling("a training step for its memory"), file=sys.stderr)
    print(_memory_of_training(settings))


def _memory_of_training(settings: Settings) -> str:
    mesh = make_mesh(config=settings.mesh)
    parts = memory_of(lower_step(settings, mesh).compile())
    told = "; ".join(f"{name} {size / _MIB:,.1f}" for name, size in parts.items())
    device = jax.devices()[0].platform
    return (
        f"Training with batches of {counted(settings.batch_size, 'clip')} takes "
        f"{sum(parts.values()) / _MIB:,.1f} MiB on each of {counted(mesh.size, f'{device} device')}"
        f", as the compiler says: {told}."
    )
