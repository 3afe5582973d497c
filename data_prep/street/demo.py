"""Renders a street and turns it into clip records, once: the demo's data."""

import tempfile
from pathlib import Path

from data_prep import synthetic
from data_prep.cityscapes import Cityscapes
from data_prep.command import prepare
from data_prep.data_set import Options
from data_prep.source import SourceTree
from tmanet_jax.data import stores
from tmanet_jax.data.config import DataConfig, RenderConfig
from tmanet_jax.data.records import has_records, open_clips
from tmanet_jax.errors import UserError

DEGRADED = 0.5
"""Share of the annotated frames that the camera spoils: a memory learns to help only on these."""


def render_if_wanted(data: DataConfig) -> None:
    """Makes the records of a configuration that renders its own, unless they are there.

    Raises:
        UserError: the configuration says no directory; or as `ensure_records`.
    """
    if not data.dir:
        raise UserError(
            "config.data.dir is empty: say where the clip records are, as in "
            "--config.data.dir=data/cityscapes."
        )
    ensure_records(stores.local(data.dir), data.render)


def ensure_records(data_dir: Path, street: RenderConfig) -> None:
    """Makes the records of a street that is wanted, unless they are there.

    Raises:
        UserError: there are records of another street, or the records cannot be written.
    """
    if not street.wanted:
        return
    if has_records(data_dir):
        try:
            _check_records(data_dir, street)
        except UserError as error:
            raise UserError(
                f"{error}\nOr delete {data_dir}: the next start renders what the configuration "
                "asks for (config.data.render)."
            ) from error
        return
    with tempfile.TemporaryDirectory(prefix="street-") as directory:
        synthetic.render_dataset(
            Path(directory),
            size=street.size,
            train=street.num_train,
            val=street.num_eval,
            before=street.memory_range,
            after=0,
            degraded_train=DEGRADED,
            degraded_val=DEGRADED,
        )
        options = Options(memory_range=street.memory_range)
        prepare(Cityscapes(SourceTree(directory)), data_dir, options)


def _check_records(data_dir: Path, street: RenderConfig) -> None:
    train, val = open_clips(data_dir, "train"), open_clips(data_dir, "val")
    wanted = (street.num_train, street.num_eval, *street.size)
    found = (len(train), len(val), *train.read_encoded(0).size)
    if wanted != found:
        raise UserError(
            f"The records in {data_dir} are {_described(found)}, the configuration asks to render "
            f"{_described(wanted)}: choose another config.data.dir, or "
            "--config.data.render=False to use what is there."
        )
    train.check_memory(0, street.memory_range)


def _described(street: tuple[int, int, int, int]) -> str:
    num_train, num_eval, height, width = street
    return f"{num_train} and {num_eval} clips of {height}x{width} pixels"
