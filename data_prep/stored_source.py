"""A data set in an object store: folders and zip files below an address, read without a copy."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.source import SourceFile, SourceTree, composed
from tmanet_jax.data.files import is_hidden
from tmanet_jax.data.stores import is_address, mark_of, open_store
from tmanet_jax.errors import UserError

_store = functools.cache(open_store)


class Address(str):
    """Of a folder in a store: joined by slashes, as paths are."""

    def __truediv__(self, part: str) -> "Address":
        return Address(f"{self}/{part}" if part else self)


@dataclass(frozen=True)
class StoredFile:
    """A file in a store.

    Attributes:
        tree: address of its data set.
        path: from there.
        mark: its size, and whatever the store tells of its last change.
    """

    tree: str
    path: str
    mark: str

    def __str__(self) -> str:
        return f"{self.tree}/{self.path}"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        """Name, size and what the store tells of its last change."""
        return f"{self.name} {self.mark}"

    def read_bytes(self, size: int = -1) -> bytes:
        """Its first `size` bytes or all, from any thread; raises UserError if it cannot be read."""
        stored = _store(self.tree)
        try:
            end = None if size < 0 else size
            return bytes(stored.files.cat_file(f"{stored.path}/{self.path}", 0, end))
        except Exception as error:  # every store raises its own
            raise UserError(f"{self} cannot be read: {type(error).__name__}: {error}.") from error


class StoredTree(SourceTree):
    """Folders and zip files below an address. Each folder is listed once."""

    @property
    def name(self) -> str:
        """The last part of its address."""
        return str(self.root).rpartition("/")[2]

    def _checked(self, root: str | os.PathLike[str]) -> Address:
        self._store = _store(str(root).rstrip("/"))
        if not self._store.listed():
            raise UserError(f"There is nothing at {root}: give the address the data set is at.")
        return Address(self._store.address)

    def _unpacked(self, folder: str) -> tuple[set[str], Mapping[str, SourceFile]]:
        shown = {
            composed(name): (name, facts)
            for name, facts in self._store.listed(folder).items()
            if name and not is_hidden(name)
        }
        folders = {name for name, (_, facts) in shown.items() if facts["type"] == "directory"}
        files: dict[str, SourceFile] = {
            name: StoredFile(
                self._store.address, f"{folder}/{stored}" if folder else stored, mark_of(facts)
            )
            for name, (stored, facts) in shown.items()
            if name not in folders
        }
        return folders, files


def open_tree(source: str | os.PathLike[str]) -> SourceTree:
    """A data set in a folder of this machine, or at the address of a store."""
    return StoredTree(source) if is_address(source) else SourceTree(source)
