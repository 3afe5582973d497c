"""A data set as it was downloaded: folders, zip files that hold such folders, or both.

Zip files are read in place. `leftImg8bit_trainvaltest.zip` in SOURCE, say, holds
`leftImg8bit/train/...`, which is then found as if it were unpacked in SOURCE. Where a file is both
unpacked and in a zip file, the unpacked one is taken.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from tmanet_jax.errors import UserError


class SourceFile(Protocol):
    """A file of a data set. Its str() is for messages: where it is."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    @property
    def fingerprint(self) -> str:
        """Changes when the file does, as far as can be told without reading it."""

    def read_bytes(self) -> bytes:
        """Its content, from any thread; raises UserError if it cannot be read."""


@dataclass(frozen=True)
class UnpackedFile:
    """A file in a folder."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    @property
    def fingerprint(self) -> str:
        """Name, size and time of the last change."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return f"{self.path.name} {status.st_size} {status.st_mtime_ns}"

    def read_bytes(self) -> bytes:
        """Its content, from any thread; raises UserError if it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise _unreadable(self.path, error) from error


@dataclass(frozen=True)
class ZippedFile:
    """A file in a zip file."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.member.filename}"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.member.filename.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        """Name, size and checksum."""
        return f"{self.name} {self.member.file_size} {self.member.CRC:08x}"

    def read_bytes(self) -> bytes:
        """Its content, from any thread; raises UserError if it is torn."""
        try:
            return self.archive.read(self.member)
        except _ZIP_DAMAGE as error:
            raise UserError(
                f"{self.member.filename} in {self.archive.filename} cannot be read: {error}. The "
                "zip file is torn or was changed; get it again."
            ) from error


_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What reading a zip file may raise."""


class SourceTree:
    """Folders and zip files below one directory. Each folder is listed once."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Opens the zip files in `root`; raises UserError if one is torn, or there is no `root`."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"There is no directory {self.root}: give the one the data set is in.")
        self._zipped: dict[str, dict[str, ZippedFile]] = {}
        self._zipped_folders: dict[str, set[str]] = {}
        for path in sorted(self.root.glob("*.zip")):
            self._add(_open_zip(path))
        self.files = lru_cache(maxsize=None)(self._files)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted; empty if there is no such folder."""
        unpacked = {entry.name for entry in self._scan(folder) if entry.is_dir()}
        return sorted(unpacked | self._zipped_folders.get(folder, set()))

    def file(self, path: str) -> SourceFile | None:
        """The file of that path, or None."""
        folder, _, name = path.rpartition("/")
        return self.files(folder).get(name)

    def _files(self, folder: str) -> Mapping[str, SourceFile]:
        """The files in a folder by name, in sorted order; empty if there is no such folder."""
        unpacked = {
            entry.name: UnpackedFile(Path(entry.path))
            for entry in self._scan(folder)
            if not entry.is_dir()
        }
        return dict(sorted({**self._zipped.get(folder, {}), **unpacked}.items()))
