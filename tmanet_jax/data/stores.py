"""Folders in object stores, by addresses such as gs://bucket/folder, through fsspec.

Records are read at random places, which stores are slow at: a copy on this machine's disk is made
once and used from then on, and made anew where the store's files have changed.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.progress import with_progress

COPIES = Path(os.environ.get("TMANET_RECORDS_DIR", "~/.cache/tmanet_jax/records")).expanduser()
"""Of records in stores, each in a folder of its own."""
_LISTING = "copied.json"
_MARKS = ("ETag", "etag", "md5Hash", "generation", "mtime", "created")
"""What stores call that which changes with a file."""


def is_address(place: str | os.PathLike[str]) -> bool:
    """Whether it is the address of a store, and no path of this machine."""
    return isinstance(place, str) and "://" in place


class StoredFolder(NamedTuple):
    """A folder of a store, or a place where one may come to be.

    Attributes:
        address: as the user gave it, without a slash at the end.
        files: fsspec's file system.
        path: of the folder in it.
    """

    address: str
    files: Any
    path: str

    def listed(self, folder: str = "") -> dict[str, Mapping[str, Any]]:
        """What lies in a folder below it, by name; nothing if there is no such folder."""
        try:
            found = self.files.ls(_joined(self.path, folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:  # every store raises its own
            raise self.unreadable(error) from error
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: one for one in found}

    def below(self) -> dict[str, Mapping[str, Any]]:
        """All files below it, by their paths from it."""
        try:
            found = self.files.find(self.path, detail=True)
        except Exception as error:  # every store raises its own
            raise self.unreadable(error) from error
        start = len(self.path.strip("/")) + 1
        return {name.strip("/")[start:]: facts for name, facts in found.items()}

    def unreadable(self, error: Exception) -> UserError:
        """That the store does not give what was asked for."""
        return UserError(f"{self.address} cannot be read: {type(error).__name__}: {error}.")


def _joined(path: str, folder: str) -> str:
    return f"{path}/{folder}" if folder else path


def open_store(address: str) -> StoredFolder:
    """The folder at an address.

    Raises:
        UserError: fsspec, or what it needs for such an address, is not installed; or the store
            refuses.
    """
    protocol = address.partition("://")[0]
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UserError(
            f"{address} needs fsspec with the library of {protocol}:// ({error}): pip install "
            "fsspec, and s3fs for s3://, gcsfs for gs://, adlfs for abfs://."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{address} is the address of no store that fsspec knows: {error}."
        ) from error
    except Exception as error:  # every store raises its own
        raise UserError(f"{address} cannot be opened: {type(error).__name__}: {error}.") from error
    return StoredFolder(address.rstrip("/"), files, path.rstrip("/"))


def open_file(address: str) -> BinaryIO:
    """A file of a store, to be read at any place.

    Raises:
        UserError: as `open_store`.
        OSError: it cannot be read.
    """
    parent, _, name = address.rpartition("/")
    stored = open_store(parent)
    return stored.files.open(_joined(stored.path, name), "rb")


def local(place: str | os.PathLike[str]) -> Path:
    """A folder of this machine: the one that is named, or a copy of the one in a store.

    A process looks into the store once.

    Raises:
        UserError: the store cannot be read, or the copy cannot be written.
    """
    return _copied(str(place).rstrip("/")) if is_address(place) else Path(place)


@functools.cache
def _copied(address: str) -> Path:
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    copy = COPIES / f"{address.rpartition('/')[2]}-{digest}"
    _copy(open_store(address), copy)
    return copy


def _copy(stored: StoredFolder, copy: Path) -> None:
    """Copies what is not there as it is in the store; the list of what is stands in the copy."""
    wanted = {name: mark_of(facts) for name, facts in stored.below().items()}
    listing = copy / _LISTING
    try:
        there = json.loads(listing.read_text()) if listing.exists() else {}
    except ValueError:
        there = {}
    changed = [name for name, mark in wanted.items() if there.get(name) != mark]
    outdated = [name for name in there if name not in wanted]
    if not changed and not outdated:
        return
    try:
        copy.mkdir(parents=True, exist_ok=True)
        write_whole(listing, json.dumps({n: m for n, m in there.items() if n in wanted}).encode())
        for name in outdated:
            (copy / name).unlink(missing_ok=True)
        for name in with_progress(changed, f"Copying {stored.address}", "file", len(changed)):
            _fetch(stored, name, copy / name)
        write_whole(listing, json.dumps(wanted).encode())
    except OSError as error:
        raise UserError(f"{stored.address} cannot be copied to {copy}: {error}.") from error


def mark_of(facts: Mapping[str, Any]) -> str:
    """Changes when a file does: its size, and whatever the store tells besides."""
    told = [facts.get(name) for name in _MARKS]
    return f"{facts['size']} {next((str(one) for one in told if one is not None), '')}"


def _fetch(stored: StoredFolder, name: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part")
    try:
        stored.files.get_file(_joined(stored.path, name), str(part))
    except Exception as error:  # every store raises its own
        part.unlink(missing_ok=True)
        raise stored.unreadable(error) from error
    part.replace(to)


def upload(folder: Path, address: str) -> int:
    """Copies a folder of records into a store; what describes them goes last: no half is whole.

    Returns:
        how many bytes.

    Raises:
        UserError: the store refuses.
    """
    stored = open_store(address)
    files = sorted(_files(folder), key=lambda path: (path.suffix == ".json", path))
    try:
        for name in stored.below():
            if name.endswith(".json"):
                stored.files.rm_file(_joined(stored.path, name))
        for path in with_progress(files, f"Uploading to {address}", "file", len(files)):
            name = path.relative_to(folder).as_posix()
            where = _joined(stored.path, name)
            stored.files.makedirs(where.rpartition("/")[0], exist_ok=True)
            stored.files.put_file(str(path), where)
    except UserError:
        raise
    except Exception as error:  # every store raises its own
        raise UserError(
            f"{folder} cannot be uploaded to {address}: {type(error).__name__}: {error}."
        ) from error
    return sum(path.stat().st_size for path in files)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
