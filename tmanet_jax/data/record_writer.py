"""Writes clip records on all cores; all of them or nothing."""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.codec import encode_frame, encode_labels
from tmanet_jax.data.records import (
    BUILDER_NAME,
    SCHEMA_VERSION,
    Clip,
    RecordsInfo,
    SplitInfo,
    features,
)
from tmanet_jax.errors import UserError

CLIPS_PER_SHARD = 32
_UNFINISHED = ".unfinished-"


class PlannedClip(Protocol):
    """A clip that is known by name; its pictures are loaded when its turn comes."""

    @property
    def id(self) -> str:
        """The clip's id."""

    @property
    def group(self) -> str:
        """The clip's group."""

    def load(self) -> Clip:
        """Loads the clip with as many memory frames as the memory range. May raise UserError."""


@dataclass(frozen=True)
class SplitPlan:
    """A split to be written.

    Attributes:
        clips: its clips, in the order that the records will have.
        labelled: whether they have labels.
    """

    clips: Sequence[PlannedClip]
    labelled: bool


class ClipRecords(tfds.core.ShardBasedBuilder):
    """TFDS builder of clip records: schema, version, splits and shards."""

    name = BUILDER_NAME
    VERSION = tfds.core.Version(SCHEMA_VERSION)
    RELEASE_NOTES: Mapping[str, str] = {
        SCHEMA_VERSION: "Frames as tiles of 64x256, vertical difference, zstd."
    }
    url_infos = None  # nothing is downloaded; TFDS's own look for checksums needs another package

    def __init__(
        self,
        data_dir: Path,
        info: RecordsInfo,
        plans: Mapping[str, SplitPlan],
        on_clip_written: Callable[[], None],
    ) -> None:
        self._records_info = info
        self._plans = plans
        self._on_clip_written = on_clip_written
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Clips of {self._records_info.classes.name} for TMANet-JAX.",
            features=features(),
            metadata=tfds.core.MetadataDict(self._records_info.to_json()),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        del dl_manager
        return {
            name: [
                partial(self._encode_shard, start, plan)
                for start in range(0, len(plan.clips), CLIPS_PER_SHARD)
            ]
            for name, plan in self._plans.items()
        }

    def _encode_shard(self, start: int, plan: SplitPlan) -> Iterator[tuple[int, dict[str, Any]]]:
        """Loads and encodes clips; writes nothing."""
        clips = plan.clips[start : start + CLIPS_PER_SHARD]
        executor = ThreadPoolExecutor(os.cpu_count())
        try:
            encoded = executor.map(partial(_encode_clip, labelled=plan.labelled), clips)
            for index, example in enumerate(encoded, start):
                yield index, example
                self._on_clip_written()
        except OSError as error:
            raise _NotOfTheDisk from error
        finally:
            executor.shutdown(cancel_futures=True)

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _UncompressedWriter(self.info.file_format)


class _NotOfTheDisk(Exception):  # noqa: N818, never seen outside
    """Caused by an OSError of the clips' source or of the caller, not of what is written to."""


class _UncompressedWriter(tfds.core.ExampleWriter):
    """Writes ArrayRecord without its own compression, which tiles of zstd do not need."""

    def write(self, path: os.PathLike[str], examples: Iterator[tuple[int, bytes]]) -> None:
        with _raising_os_errors():
            writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        for _, example in examples:
            with _raising_os_errors():
                writer.write(example)
        with _raising_os_errors():
            writer.close()


@contextlib.contextmanager
def _raising_os_errors() -> Iterator[None]:
    """ArrayRecord reports a full disk, like all else that is wrong with a file, as RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def write_records(
    out: str | os.PathLike[str],
    classes: ClassSet,
    memory_range: int,
    plans: Mapping[str, SplitPlan],
    on_clip_written: Callable[[], None] = lambda: None,
) -> int:
    """Writes records on all cores, in place of those that were there; all of them or nothing.

    Args:
        out: the data directory.
        classes: the data set's classes.
        memory_range: number of frames before the query in each clip.
        plans: the splits by name; empty splits are left out.
        on_clip_written: called after each clip.

    Returns:
        The number of bytes written.

    Raises:
        UserError: a clip could not be loaded, or there are none, or `out` cannot be written.
    """
    plans = {name: plan for name, plan in plans.items() if plan.clips}
    if not plans:
        raise UserError(f"There are no clips to write to {out}.")
    splits = {
        name: SplitInfo(
            labelled=plan.labelled,
            ids=tuple(clip.id for clip in plan.clips),
            groups=tuple(clip.group for clip in plan.clips),
        )
        for name, plan in plans.items()
    }
    info = RecordsInfo(classes, memory_range, splits)
    out = Path(out)
    with _written_whole(out / BUILDER_NAME) as unfinished:
        builder = ClipRecords(unfinished.parent, info, plans, on_clip_written)
        with (
            _naming(out),
            contextlib.redirect_stdout(io.StringIO()),  # TFDS speaks of downloads
        ):
            builder.download_and_prepare()
    return sum(path.stat().st_size for path in (out / BUILDER_NAME).rglob("*"))


@contextlib.contextmanager
def _naming(out: Path) -> Iterator[None]:
    """Makes an OSError of writing to `out` a UserError; one of anything else stays what it is."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write to {out}: {error.strerror or error}. Is the disk full? Make room or "
            "choose another directory, and prepare again."
        ) from error
    except _NotOfTheDisk as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None


@contextlib.contextmanager
def _written_whole(directory: Path) -> Iterator[Path]:
    """Gives a path to write a directory to, which replaces `directory` only if nothing fails."""
    parent = directory.parent
    with contextlib.ExitStack() as stack:
        with _naming(parent):
            parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone_in(parent))
            workplace = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=parent)
            )
        finished, replaced = Path(workplace, directory.name), Path(workplace, "replaced")
        yield finished
        with _naming(parent):
            _replace(directory, finished, replaced)


def _replace(directory: Path, new: Path, old: Path) -> None:
    """Puts `new` in the directory's place and what was there in `old`'s; or leaves it there."""
    try:
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
    finally:
        if old.exists() and not directory.exists():
            old.rename(directory)


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keeps other preparations out of a directory; removes what a killed one left there."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if _lock(descriptor, directory):
            for leftover in directory.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> bool:
    """Locks until the descriptor is closed or the process ends; False where that is impossible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"Another preparation is writing to {directory}. Wait until it ends, or choose another "
            "directory."
        ) from error
    except OSError:  # some network file systems have no locks
        return False
    return True


def _encode_clip(clip: PlannedClip, labelled: bool) -> dict[str, Any]:
    loaded = clip.load()
    *memory, query = map(encode_frame, loaded.frames_SxHxWx3)
    return {
        "id": loaded.id,
        "group": loaded.group,
        "memory": memory,
        "query": query,
        "labels": encode_labels(loaded.labels_HxW) if labelled else b"",
    }
