"""Renders a street and turns it into clip records, once: the demo's data."""

import tempfile
from pathlib import Path

from data_prep import synthetic
from data_prep.cityscapes import Cityscapes
from data_prep.command import prepare
from data_prep.data_set import Options
from data_prep.source import SourceTree
from tmanet_jax.data.records import has_records, open_clips
from tmanet_jax.errors import UserError

DEGRADED = 0.5
"""Share of the annotated frames that the camera spoils: a memory learns to help only on these."""


def ensure_records(
    data_dir: Path, *, size: tuple[int, int], num_train: int, num_eval: int, memory_range: int
) -> None:
    """Makes the records unless they are there.

    Args:
        data_dir: where the records go.
        size: height and width of the frames in pixels.
        num_train: clips of the split `train`.
        num_eval: clips of the split `val`.
        memory_range: frames before the annotated one in each record.

    Raises:
        UserError: there are records of another street, or the records cannot be written.
    """
    if has_records(data_dir):
        try:
            _check_records(data_dir, size, num_train, num_eval, memory_range)
        except UserError as error:
            raise UserError(
                f"{error}\nOr delete {data_dir}: the next start renders what the configuration "
                "asks for (config.data.render)."
            ) from error
        return
    with tempfile.TemporaryDirectory(prefix="street-") as street:
        synthetic.render_dataset(
            Path(street),
            size=size,
            train=num_train,
            val=num_eval,
            before=memory_range,
            after=0,
            degraded_train=DEGRADED,
            degraded_val=DEGRADED,
        )
        prepare(Cityscapes(SourceTree(street)), data_dir, Options(memory_range=memory_range))


def _check_records(
    data_dir: Path, size: tuple[int, int], num_train: int, num_eval: int, memory_range: int
) -> None:
    train, val = open_clips(data_dir, "train"), open_clips(data_dir, "val")
    wanted = (num_train, num_eval, *size)
    found = (len(train), len(val), *train.read_encoded(0).size)
    if wanted != found:
        raise UserError(
            f"The records in {data_dir} are {_described(found)}, the configuration asks to render "
            f"{_described(wanted)}: choose another config.data.dir, or "
            "--config.data.render=False to use what is there."
        )
    train.check_memory(0, memory_range)


def _described(street: tuple[int, int, int, int]) -> str:
    num_train, num_eval, height, width = street
    return f"{num_train} and {num_eval} clips of {height}x{width} pixels"
