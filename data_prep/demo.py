"""Renders a street and turns it into clip records, once: the demo's data."""

import tempfile
from pathlib import Path

from data_prep import cityscapes, synthetic
from tmanet_jax.data.records import has_records

MEMORY_RANGE = 4
"""Frames before the annotated one in each record: networks with T up to 4 can train on them."""

DEGRADED = 0.5
"""Share of the annotated frames that the camera spoils: a memory learns to help only on these."""


def ensure_records(data_dir: Path, *, size: tuple[int, int], num_train: int, num_eval: int) -> None:
    """Makes the records unless there are some.

    Args:
        data_dir: where the records go.
        size: height and width of the frames in pixels.
        num_train: clips of the split `train`.
        num_eval: clips of the split `val`.
    """
    if has_records(data_dir):
        return
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="street-", dir=data_dir.parent) as street:
        synthetic.render_dataset(
            Path(street),
            size=size,
            train=num_train,
            val=num_eval,
            before=MEMORY_RANGE,
            after=0,
            degraded_train=DEGRADED,
            degraded_val=DEGRADED,
        )
        cityscapes.prepare(Path(street), data_dir, memory_range=MEMORY_RANGE)
