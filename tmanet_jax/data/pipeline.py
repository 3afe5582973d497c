"""From clip records to batches, with grain.

Everything random happens before the stream of clips is divided: which clip comes when, its memory
frames, crop and colours depend on the seed and on the clip's position in the stream alone. So the
batches are the same for any number of workers and threads; the processes of a run together see
exactly the clips that one process would see; and a run resumes by starting the stream later.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import cv2
import grain
import numpy as np
from absl import flags

from tmanet_jax.data import transforms
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.records import Clip, ClipSource
from tmanet_jax.data.transforms import Augmentation
from tmanet_jax.errors import UserError


class Batch(NamedTuple):
    """Training clips; also one of them, without the B dimension.

    Attributes:
        frames: BxSxHxWx3 uint8 RGB in the order of time, the query last; padding is 0.
        labels: BxHxW uint8 train ids; ignored pixels and padding are 255.
        sizes: Bx2 int32, height and width of the picture inside the padding.
        indices: B int64, which record each clip is.
    """

    frames: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray


class BatchIterator(Iterator[Batch]):
    """Endless batches. Close it, or use it as a context, so that workers and threads end."""

    def __init__(self, batches: grain.DatasetIterator[Batch]) -> None:
        self._batches = batches

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends workers and threads."""
        self._batches.close()


@dataclass(frozen=True)
class _LoadTrainingClip(grain.transforms.RandomMap):
    source: ClipSource
    augmentation: Augmentation
    num_memory: int
    memory_range: int

    def random_map(self, index: int, rng: np.random.Generator) -> Batch:
        clip = self.source.read_encoded(index)
        labels_HxW = clip.decode_labels()
        offsets = transforms.draw_memory_offsets(rng, self.num_memory, self.memory_range)
        geometry = transforms.draw_geometry(rng, labels_HxW, self.augmentation)
        photometry = transforms.draw_clip_photometry(
            rng, self.num_memory + 1, self.augmentation.photometric
        )
        window = transforms.source_window(clip.size, geometry)
        windows_SxHxWx3 = clip.decode_window(offsets, *window)
        crops = [
            transforms.apply_photometry(
                transforms.apply_geometry_to_window(window_hxwx3, window, clip.size, geometry),
                colours,
            )
            for window_hxwx3, colours in zip(windows_SxHxWx3, photometry, strict=True)
        ]
        crop_size = self.augmentation.crop_size
        return Batch(
            frames=np.stack([transforms.pad(crop_hxwx3, crop_size, 0) for crop_hxwx3 in crops]),
            labels=transforms.pad(
                transforms.apply_geometry_to_labels(labels_HxW, geometry), crop_size, IGNORE
            ),
            sizes=np.array(crops[0].shape[:2], np.int32),
            indices=np.array(index, np.int64),
        )


@dataclass(frozen=True)
class _LoadWholeClip(grain.transforms.Map):
    source: ClipSource
    num_memory: int

    def map(self, index: int) -> Clip:
        return self.source.read(index, range(self.num_memory, 0, -1))


def train_batches(
    source: ClipSource,
    augmentation: Augmentation,
    *,
    num_memory: int,
    memory_range: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    num_threads: int = 2,
) -> BatchIterator:
    """Endless batches of augmented clips, every epoch in another order.

    Args:
        source: the clips.
        augmentation: how they are augmented.
        num_memory: number of memory frames T of each clip; S = T + 1.
        memory_range: they are drawn, anew each time, from this many frames before the query.
        batch_size: number of clips in a batch of all processes together.
        seed: of everything that is random.
        start_step: the batch to begin with: batches are those of a stream begun at 0.
        process_index: which part of each batch is wanted: the process_index-th of process_count.
        process_count: number of equal parts of a batch.
        num_workers: number of spawned worker processes; 0 works in threads of this one. The
            program's main module must be guarded by `if __name__ == "__main__"`.
        num_threads: threads of each worker. Each works on a batch of its own, and as many batches
            are kept in memory.

    Raises:
        UserError: the clips have no labels or too few memory frames, or the batch cannot be
            divided; while iterating, a record is damaged or a worker process has died.
    """
    source.check_memory(num_memory, memory_range)
    if not source.labelled:
        raise UserError(f"Split {source.split!r} of {source.data_dir} has no labels to train on.")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"A batch of {batch_size} clips cannot be divided among {process_count} processes: "
            "make it a multiple."
        )
    if num_workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads flags when it starts workers
    load = _LoadTrainingClip(source, augmentation, num_memory, memory_range)
    first_part = start_step * process_count + process_index
    batches = (
        grain.MapDataset.source(range(len(source)))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(load)
        # An endless stream has no remainder; grain would round its length up, beyond an index.
        .batch(batch_size // process_count, drop_remainder=True, batch_fn=_stack)[
            first_part::process_count
        ]
        .to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=num_threads))
        .mp_prefetch(grain.MultiprocessingOptions(num_workers), worker_init_fn=_begin_worker)
    )
    return BatchIterator(iter(batches))


def eval_clips(
    source: ClipSource, *, num_memory: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Clip]:
    """Whole clips in the order of the records, with the newest memory frames.

    Args:
        source: the clips.
        num_memory: number of memory frames T of each clip; S = T + 1.
        process_index: clips process_index, process_index + process_count, ... are wanted.
        process_count: among how many processes the clips are divided; each clip goes to one.

    Raises:
        UserError: the records have too few memory frames; while iterating, a record is damaged.
    """
    source.check_memory(num_memory, num_memory)
    clips = (
        grain.MapDataset.source(range(len(source)))
        .map(_LoadWholeClip(source, num_memory))[process_index::process_count]
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    )
    return iter(clips)


def _stack(clips: Sequence[Batch]) -> Batch:
    return Batch(*(np.stack(arrays) for arrays in zip(*clips, strict=True)))


def _begin_worker(worker_index: int, worker_count: int) -> None:
    del worker_index, worker_count
    cv2.setNumThreads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Ends this worker when its parent ends without having ended it, killed for instance."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
