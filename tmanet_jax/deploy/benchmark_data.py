"""How fast batches are prepared: `python run.py benchmark data --config=...`."""

from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.records import open_clips
from tmanet_jax.deploy.benchmark import Report, median_cpu, take_turns
from tmanet_jax.settings import Settings


def measure(settings: Settings) -> Report:
    """Prepares batches of the training split, in threads of this process.

    Raises:
        UserError: there are no records, or they do not suit the settings.
    """
    source = open_clips(settings.data.dir, settings.data.train_split)
    with train_batches(
        source,
        settings.data.augmentation,
        num_memory=settings.model.head.num_memory,
        memory_range=settings.data.memory_range,
        batch_size=1,
        seed=settings.seed,
    ) as batches:
        turns = take_turns({"clip": lambda: next(batches)}, turns=10)
    seconds = median_cpu(turns["clip"])
    return Report(
        title="Preparation of training clips",
        columns=("", "ms of CPU a clip"),
        rows=[("all", f"{1000 * seconds:.1f}")],
        targets=(),
    )
