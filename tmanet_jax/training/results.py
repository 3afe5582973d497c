"""What a finished run leaves for use: files of weights, of its best step and of its last."""

from pathlib import Path

from flax import nnx
from jax.sharding import Mesh

from tmanet_jax.checkpoints.store import Checkpoints
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import replicated, to_default_device
from tmanet_jax.protocol import Origin
from tmanet_jax.training.step import TrainState
from tmanet_jax.weights import load
from tmanet_jax.workdir import RunDescription


def leave_weights(
    workdir: Path,
    graphdef: nnx.GraphDef,
    state: TrainState,
    checkpoints: Checkpoints,
    mesh: Mesh,
    description: RunDescription,
) -> str:
    """Writes both files, each saying its step and score; returns where they are.

    Args:
        workdir: of the run.
        graphdef: the network's.
        state: of the last step, whose checkpoint is written and scored.
        checkpoints: of the run; those of its best step are read by every process.
        mesh: of the run.
        description: of the run; files of weights say its classes and how they were scored.

    Raises:
        UserError: a file cannot be written, or the best checkpoint is damaged.
    """
    last, best = int(state.step), checkpoints.best_step()
    of_best = state.scored
    if best != last:
        of_best = checkpoints.restore_scored(best, state.network, replicated(mesh))
    lines = []
    for name, step, weights, what in (
        (load.OF_WORKDIR, best, of_best, "the best"),
        (load.LAST, last, state.scored, "the last"),
    ):
        origin = Origin(step, checkpoints.mean_iou(step))
        if distributed.is_first():
            model = nnx.merge(graphdef, *to_default_device(weights))
            load.save(
                workdir / name,
                model,
                description.classes,
                protocol=description.protocol,
                origin=origin,
            )
        lines.append(f"{workdir / name} ({what}: {origin})")
    return "weights:  " + "\n          ".join(lines)
