"""Where records are written before they take the place of older ones, and whether they may.

    OUT/.unfinished-records/clip_records/VERSION/SHARD       whole shards, under their final names
                                         shards/SHARD.json   what each holds, and what it is of
                                         shards/*.partial    those that are being written
                                         shards/*.planned    what other processes are to write
                                         shards/problem      why these should end

A shard counts once its JSON is there, whoever wrote it. What a killed preparation leaves is taken
up by the next, and so is what a finished one left in OUT/clip_records.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.files import lock, why_not_written
from tmanet_jax.data.frame_records import BUILDER_NAME, SCHEMA_VERSION
from tmanet_jax.data.records import has_records, read_info
from tmanet_jax.data.records_info import RecordsInfo
from tmanet_jax.errors import UserError

_UNFINISHED = ".unfinished-"
_STAGING = f"{_UNFINISHED}records"
_MANIFESTS = "shards"
_PROBLEM = "problem"


@dataclass(frozen=True)
class ShardInfo:
    """What a shard holds.

    Attributes:
        sizes: of each frame that was planned; None: it could not be loaded, and is not there.
        problems: why frames, or else their labels, could not be loaded, by their place in `sizes`.
        class_pixels: how many pixels each class has.
        ignored_pixels: how many pixels are ignored.
    """

    sizes: tuple[tuple[int, int] | None, ...]
    problems: Mapping[int, str]
    class_pixels: tuple[int, ...]
    ignored_pixels: int

    @property
    def num_records(self) -> int:
        """How many frames are there."""
        return sum(size is not None for size in self.sizes)


@dataclass(frozen=True)
class StagedShard:
    """A whole shard.

    Attributes:
        fingerprint: changes with what it was made of: files, options, schema.
        num_bytes: the file's size.
        info: what it holds.
    """

    fingerprint: str
    num_bytes: int
    info: ShardInfo


class Staging:
    """The staging directory of one preparation. Made by `staging`.

    Attributes:
        directory: the staging directory.
        records: where in it the shards and their description lie.
    """

    def __init__(self, out: Path, directory: Path) -> None:
        self._out = out
        self.directory = directory
        self.records = directory / BUILDER_NAME / SCHEMA_VERSION
        self._manifests = directory / BUILDER_NAME / _MANIFESTS
        self.records.mkdir(parents=True, exist_ok=True)
        self._manifests.mkdir(exist_ok=True)

    def naming_errors(self) -> contextlib.AbstractContextManager[None]:
        """Makes an error of writing here a UserError."""
        return _naming(self._out)

    def shards(self) -> dict[str, StagedShard]:
        """The whole shards by name."""
        return _whole_shards(self.directory / BUILDER_NAME)

    def shard(self, name: str) -> StagedShard | None:
        """The shard of a name, if it is whole."""
        return _whole_shard(self.directory / BUILDER_NAME, name)

    def note_problem(self, problem: str) -> None:
        """Tells all that write here to end, and why; the first problem counts."""
        with contextlib.suppress(FileExistsError), (self._manifests / _PROBLEM).open("x") as file:
            file.write(problem)

    def problem(self) -> str | None:
        """Why all should end."""
        try:
            return (self._manifests / _PROBLEM).read_text()
        except FileNotFoundError:
            return None

    def adopt(self, finished: Path, fingerprints: Mapping[str, str]) -> dict[str, StagedShard]:
        """Takes shards that finished records have already; their files are linked, not copied.

        Args:
            finished: the directory of the records.
            fingerprints: of the wanted shards, by name.

        Returns:
            The shards that were taken; none where the file system has no links.
        """
        adopted = {}
        for name, shard in _whole_shards(finished).items():
            if fingerprints.get(name) == shard.fingerprint:
                try:
                    os.link(finished / SCHEMA_VERSION / name, self.records / name)
                    os.link(finished / _MANIFESTS / f"{name}.json", self._manifest(name))
                except OSError:
                    break
                adopted[name] = shard
        return adopted

    def _manifest(self, name: str) -> Path:
        return self._manifests / f"{name}.json"

    def keep_only(self, names: set[str]) -> None:
        """Removes everything but the shards of these names."""
        with self.naming_errors():
            for path in self._manifests.iterdir():
                if not (path.suffix == ".json" and path.stem in names):
                    path.unlink(missing_ok=True)
            for path in self.records.iterdir():
                if path.name not in names:
                    path.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Removes a shard."""
        with self.naming_errors():
            for path in (self._manifest(name), self.records / name):
                path.unlink(missing_ok=True)

    def partial(self, name: str) -> Path:
        """Where to write a shard: another file at each call."""
        return self._manifests / f"{name}.{uuid.uuid4().hex}.partial"

    def planned(self, name: str) -> Path:
        """Where it stands what a shard is made of."""
        return self._manifests / f"{name}.planned"

    def add(self, partial: Path, name: str, fingerprint: str, info: ShardInfo) -> StagedShard:
        """Takes a shard that was written to `partial`; from now on it survives a crash."""
        with self.naming_errors():
            shard = StagedShard(fingerprint, partial.stat().st_size, info)
            _write_through(partial)
            partial.rename(self.records / name)
            partial.write_text(json.dumps(dataclasses.asdict(shard)))
            _write_through(partial)
            partial.rename(self._manifest(name))
        return shard

    def replace(self, directory: Path) -> None:
        """Puts the records in the directory's place; or leaves there what is there."""
        replaced = _replaced(self.directory)
        with self.naming_errors():
            try:
                if directory.exists():
                    directory.rename(replaced)
                (self.directory / BUILDER_NAME).rename(directory)
            finally:
                _finish_swap(directory, replaced)


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Staging]:
    """The staging directory in `out`, for one preparation at a time.

    Shards that are whole at the end stay for the next preparation, one that is half written does
    not; the directory is removed if there are none.

    Raises:
        UserError: another preparation is writing to `out`, or the directory cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with _naming(out):
            out.mkdir(parents=True, exist_ok=True)
            is_locked = stack.enter_context(_alone_in(out))
            place = Staging(out, _staging_directory(out, is_locked))
        try:
            yield place
        finally:
            with _naming(out):
                if is_locked and (shards := place.shards()):
                    place.keep_only({*shards})
                else:
                    shutil.rmtree(place.directory)


def _staging_directory(out: Path, is_locked: bool) -> Path:
    if not is_locked:  # another preparation may be at work in a directory that is there
        return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=out))
    directory = out / _STAGING
    for leftover in out.glob(f"{_UNFINISHED}*"):
        _finish_swap(out / BUILDER_NAME, _replaced(leftover))
        if leftover != directory:
            shutil.rmtree(leftover)
    return directory


@contextlib.contextmanager
def _naming(out: Path) -> Iterator[None]:
    """Makes an error of writing a UserError; those of ArrayRecord are RuntimeErrors."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"Cannot write to {out}: {why_not_written(error)}.") from error


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[bool]:
    """Keeps other preparations out of a directory; False where that is impossible."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            is_locked = lock(descriptor)
        except BlockingIOError as error:
            raise UserError(
                f"Another preparation is writing to {directory}. Wait until it ends, or choose "
                "another directory."
            ) from error
        yield is_locked
    finally:
        os.close(descriptor)


def _replaced(directory: Path) -> Path:
    """Where the older records are while the new ones take their place."""
    return directory / "replaced"


def _finish_swap(directory: Path, replaced: Path) -> None:
    """Removes the older records, or puts them back if the new ones are not in their place."""
    if not replaced.exists():
        return
    if directory.exists():
        shutil.rmtree(replaced)
    else:
        replaced.rename(directory)


def _whole_shards(records: Path) -> dict[str, StagedShard]:
    names = [path.stem for path in (records / _MANIFESTS).glob("*.json")]
    shards = {name: _whole_shard(records, name) for name in names}
    return {name: shard for name, shard in shards.items() if shard is not None}


def _whole_shard(records: Path, name: str) -> StagedShard | None:
    shard = _read_manifest(records / _MANIFESTS / f"{name}.json")
    size = _size(records / SCHEMA_VERSION / name)
    return shard if shard is not None and size == shard.num_bytes else None


def _read_manifest(path: Path) -> StagedShard | None:
    try:
        where = str(path)
        return strict_json.decode(StagedShard, strict_json.parse(path.read_bytes(), where), where)
    except (OSError, UserError):  # torn, or of another version: written anew
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _write_through(path: Path) -> None:
    """Returns when the file's content is on the disk, whatever happens to the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_replaceable(
    out: Path, classes: ClassSet, memory_range: int, frame_stride: int, splits: Collection[str]
) -> None:
    """Raises UserError if `out` holds records of other splits, classes or options than these."""
    there = _records_in(out)
    if there is None:
        return
    if lost := there.splits.keys() - set(splits):
        every = ",".join([*there.splits, *(name for name in splits if name not in there.splits)])
        raise UserError(
            f"{out} holds {', '.join(there.splits)}, and records are replaced as a whole: "
            f"{', '.join(sorted(lost))} would be lost. Prepare all of them, --splits={every} (what "
            "is there and has not changed is not done again), choose another --out, or say "
            "--replace."
        )
    if there.classes.names != classes.names:
        raise _lost(out, f"of {there.classes.name}, whose classes are not those of {classes.name}")
    if (there.memory_range, there.frame_stride) != (memory_range, frame_stride):
        raise _lost(
            out,
            f"made with --memory-range={there.memory_range} --frame-stride={there.frame_stride}, "
            f"not {memory_range} and {frame_stride}",
        )


def check_clips_stay(out: Path, ids: Collection[str]) -> None:
    """Raises UserError if most clips of the records in `out` are none of these."""
    there = _records_in(out)
    if there is None:
        return
    found = [clip_id for split in there.splits.values() for clip_id in split.ids]
    lost = [clip_id for clip_id in found if clip_id not in ids]
    if 2 * len(lost) > len(found):
        raise _lost(
            out, f"of {len(found)} clips, of which the source lacks {len(lost)}, {lost[0]} first"
        )


def _records_in(out: Path) -> RecordsInfo | None:
    """What is known of records; None if there are none that anybody could use."""
    try:
        return read_info(out) if has_records(out) else None
    except UserError:
        return None


def _lost(out: Path, records: str) -> UserError:
    return UserError(
        f"{out} holds records {records}: they would be lost. Choose another --out, or say "
        "--replace."
    )
