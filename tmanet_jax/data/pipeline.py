"""From clip records to batches, with grain.

Everything random happens before the stream of clips is divided: which clip comes when, its memory
frames, crop and colours depend on the seed and on the clip's position in the stream alone. So the
batches are the same for any number of workers and threads; the processes of a run together see
exactly the clips that one process would see; and a run resumes by starting the stream later.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grain
import numpy as np
from absl import flags

from tmanet_jax.allocator import keep_freed_memory
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.clips import Clip, EncodedClip
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.data.samples import (
    Batch,
    ClipDraw,
    Sampling,
    draw_clip,
    draw_memory_offsets,
    empty_batch,
    make_clip,
)
from tmanet_jax.data.workers import begin_worker
from tmanet_jax.errors import UserError


class BatchIterator(Iterator[Batch]):
    """Endless batches. Close it, or use it as a context, so that workers and threads end.

    The first ones are being made from the beginning, while whoever takes them compiles a step.
    """

    def __init__(self, batches: grain.DatasetIterator[Batch]) -> None:
        self._batches = batches
        batches.start_prefetch()

    def __next__(self) -> Batch:
        try:
            return next(self._batches)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise UserError(
                f"A process that prepares batches has died: {error} If the system ended it for "
                "want of memory, ask for fewer of them (config.data.num_workers; 0: threads "
                "alone), fewer clips in a batch or smaller crops, and start again."
            ) from error

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends workers and threads."""
        self._batches.close()


@dataclass(frozen=True)
class _DrawnClip:
    """A clip that is read and drawn, its pixels still to be made."""

    index: int
    clip: EncodedClip
    labels_HxW: np.ndarray
    draw: ClipDraw


@dataclass(frozen=True)
class _DrawClip(grain.transforms.RandomMap):
    records: ClipRecords
    sampling: Sampling

    def random_map(self, index: int, rng: np.random.Generator) -> _DrawnClip:
        sampling = self.sampling
        offsets = draw_memory_offsets(rng, sampling.num_memory, sampling.memory_range)
        clip = self.records.read_encoded(index, offsets)
        labels_HxW = clip.decode_labels()
        return _DrawnClip(index, clip, labels_HxW, draw_clip(rng, labels_HxW, sampling))


@dataclass(frozen=True)
class _MakeBatch:
    """Makes the pixels of drawn clips, each where it lies in the batch."""

    crop_size: tuple[int, int]

    def __call__(self, drawn: Sequence[_DrawnClip]) -> Batch:
        batch = empty_batch(len(drawn), len(drawn[0].draw.photometry), self.crop_size)
        for place, clip in enumerate(drawn):
            make_clip(clip.clip, clip.labels_HxW, clip.draw, batch, place)
            batch.indices[place] = clip.index
        return batch


@dataclass(frozen=True)
class _LoadWholeClip(grain.transforms.Map):
    records: ClipRecords
    num_memory: int

    def map(self, index: int) -> Clip:
        return self.records.read(index, range(self.num_memory, 0, -1))


def train_batches(
    records: ClipRecords,
    augmentation: Augmentation,
    *,
    num_memory: int,
    memory_range: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    part_index: int = 0,
    part_count: int = 1,
    num_workers: int = 0,
    num_threads: int = 2,
) -> BatchIterator:
    """Endless batches of augmented clips, every epoch in another order.

    Of records with shares, each part has its own epochs, and its share of any clips in a row.

    Args:
        records: the clips.
        augmentation: how they are augmented.
        num_memory: number of memory frames T of each clip; S = T + 1.
        memory_range: they are drawn, anew each time, from this many before the query.
        batch_size: number of clips in a batch of all processes together.
        seed: of everything that is random.
        start_step: the batch to begin with: batches are those of a stream begun at 0.
        part_index: which part of each batch is wanted: the part_index-th of part_count.
        part_count: number of equal parts of a batch; processes that share images read one part.
        num_workers: number of spawned worker processes; 0 works in threads of this one. The
            program's main module must be guarded by `if __name__ == "__main__"`.
        num_threads: threads of each worker. Each works on a batch of its own, and as many batches
            are kept in memory.

    Raises:
        UserError: the clips have no labels or too few memory frames, or the batch cannot be
            divided; while iterating, a record is damaged or a worker process has died.
    """
    records.check_memory(num_memory, memory_range)
    records.check_labelled()
    if batch_size < 1 or batch_size % part_count:
        raise UserError(
            f"A batch of {batch_size} clips cannot be divided among {part_count} processes: "
            "make it a multiple."
        )
    if num_workers:
        flags.FLAGS.mark_as_parsed()  # grain reads flags when it starts workers
    else:
        keep_freed_memory()
    sampling = Sampling(augmentation, num_memory, memory_range)
    first_part = start_step * part_count + part_index
    orders = [
        grain.MapDataset.source(clips).seed(seed).shuffle().repeat() for clips in records.shares
    ]
    several = len(orders) > 1
    order = grain.MapDataset.mix(orders, [*records.shares.values()]) if several else orders[0]
    batches = (
        order.random_map(_DrawClip(records, sampling))
        # An endless stream has no remainder; grain would round its length up, beyond an index.
        .batch(
            batch_size // part_count,
            drop_remainder=True,
            batch_fn=_MakeBatch(augmentation.crop_size),
        )[first_part::part_count]
        .to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=num_threads))
        .mp_prefetch(grain.MultiprocessingOptions(num_workers), worker_init_fn=_begin_worker)
    )
    return BatchIterator(iter(batches))


def eval_clips(
    records: ClipRecords, *, num_memory: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Clip]:
    """Whole clips in the order of the records, with the newest memory frames.

    Args:
        records: the clips.
        num_memory: number of memory frames T of each clip; S = T + 1.
        process_index: clips process_index, process_index + process_count, ... are wanted.
        process_count: among how many processes the clips are divided; each clip goes to one.

    Raises:
        UserError: the records have too few memory frames; while iterating, a record is damaged.
    """
    records.check_memory(num_memory, num_memory)
    clips = (
        grain.MapDataset.source(range(len(records)))
        .map(_LoadWholeClip(records, num_memory))[process_index::process_count]
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    )
    return iter(clips)


def _begin_worker(worker_index: int, worker_count: int) -> None:
    del worker_index, worker_count
    begin_worker()
    for told_to_stop in (signal.SIGINT, signal.SIGTERM):  # terminals and schedulers tell every
        signal.signal(told_to_stop, signal.SIG_IGN)  # process; the run's own still wants batches
    keep_freed_memory()
