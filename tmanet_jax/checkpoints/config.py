"""Which checkpoints a run keeps, as a configuration says it."""

import dataclasses

from tmanet_jax.fields import Checked, field


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Checked):
    """Which steps leave a checkpoint, and which stay."""

    every: int = field(2_000, "between checkpoints; also at every evaluation", unit="steps", low=1)
    keep: int = field(3, "the newest ones; the best by mIoU is kept besides", low=1)
