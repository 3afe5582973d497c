"""A data set as it was downloaded: folders, zip files that hold such, or both; and its pictures.

Zip files are read in place. `leftImg8bit_trainvaltest.zip` in SOURCE, say, holds
`leftImg8bit/train/...`, which is then found as if it were unpacked in SOURCE. Where a file is both
unpacked and in a zip file, the unpacked one is taken. Hidden files and folders are no part of it.
Names are one name however their accents are composed: macOS and others do that differently.
"""

import contextlib
import functools
import io
import logging
import lzma
import os
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import ExifTags, Image

from tmanet_jax.data.files import is_hidden
from tmanet_jax.data.jpeg import warning_of
from tmanet_jax.data.stores import is_address, open_file
from tmanet_jax.errors import UserError

_HEAD = 1 << 16
"""Bytes that hold the EXIF of a picture, but a TIFF: it comes first and has at most so many."""


class WrongSourceError(UserError):
    """Something is wrong with the whole source, so that no clip of it may be skipped for it."""


class SourceFile(Protocol):
    """A file of a data set. Its str() is for messages: where it is."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    @property
    def fingerprint(self) -> str:
        """Changes when the file does, as far as can be told without reading it."""

    def read_bytes(self, size: int = -1) -> bytes:
        """Its first `size` bytes or all, from any thread; raises UserError if it cannot be read."""


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
        except OSError:  # a link to nowhere, for instance: reading it tells
            return self.path.name
        return f"{self.path.name} {status.st_size} {status.st_mtime_ns}"

    def read_bytes(self, size: int = -1) -> bytes:
        """Its first `size` bytes or all, from any thread; raises UserError if it cannot be read."""
        try:
            with self.path.open("rb") as opened:
                return opened.read(size)
        except OSError as error:
            raise _unreadable(self.path, error) from error


@dataclass(frozen=True)
class ZippedFile:
    """A file in a zip file."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    def __reduce__(self) -> tuple[Callable[..., "ZippedFile"], tuple[str | None, str]]:
        return _zipped_file, (self.archive.filename, self.member.filename)

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

    def read_bytes(self, size: int = -1) -> bytes:
        """Its first `size` bytes or all, from any thread; raises UserError if it is torn."""
        try:
            with self.archive.open(self.member) as opened:
                return opened.read(size)
        except RuntimeError as error:  # it is encrypted, or packed in a way that Python lacks
            raise UserError(
                f"{self.member.filename} in {self.archive.filename} cannot be read in place: "
                f"{error}. Unpack the zip file."
            ) from error
        except _ZIP_DAMAGE as error:
            raise UserError(
                f"{self.member.filename} in {self.archive.filename} cannot be read: {error}. The "
                "zip file is torn or was changed; get it again."
            ) from error


_ZIP_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, NotImplementedError, ValueError),
)
"""What opening or reading a zip file may raise."""


_IS_UTF8 = 0x800
"""Bit of a member's flags: its name is UTF-8."""


class SourceTree:
    """Folders and zip files below one directory. Each folder is listed once.

    Attributes:
        root: the directory.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Opens the zip files in `root`; raises UserError if one is torn, or there is no `root`."""
        self.root = self._checked(root)
        self._zipped: defaultdict[str, dict[str, SourceFile]] = defaultdict(dict)
        self._zipped_folders: defaultdict[str, set[str]] = defaultdict(set)
        self._listed: dict[str, tuple[list[str], Mapping[str, SourceFile]]] = {}
        for name, file in self.files("").items():
            if name.lower().endswith(".zip"):
                self._add(_open_zip(str(file)))
        self._listed.clear()

    @property
    def name(self) -> str:
        """The last part of its path."""
        return str(self.root.resolve().name)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted; empty if there is no such folder."""
        return self._list(folder)[0]

    def files(self, folder: str) -> Mapping[str, SourceFile]:
        """The files in a folder by name, sorted; empty if there is no such folder."""
        return self._list(folder)[1]

    def other_splits(self, missing: str, place: str) -> str:
        """How to prepare what is there where a split is missing; empty if nothing is.

        Args:
            missing: the split.
            place: of a split's file or folder, such as "labels/{}".
        """
        folder = place.rpartition("/")[0]
        there = {*self.folders(folder), *self.files(folder)}
        names = [
            name
            for name in ("train", "val", "test")
            if name != missing and place.format(name).rpartition("/")[2] in there
        ]
        return f" To prepare what is there: --splits={','.join(names)}." if names else ""

    def _list(self, folder: str) -> tuple[list[str], Mapping[str, SourceFile]]:
        if folder not in self._listed:
            folders, files = self._unpacked(folder)
            self._listed[folder] = (
                sorted(folders | self._zipped_folders[folder]),
                dict(sorted({**self._zipped[folder], **files}.items())),
            )
        return self._listed[folder]

    def _checked(self, root: str | os.PathLike[str]) -> Any:
        """The directory, to which names are joined by slashes."""
        root = Path(root)
        if not root.is_dir():
            raise UserError(f"There is no directory {root}: give the one the data set is in.")
        return root

    def _unpacked(self, folder: str) -> tuple[set[str], Mapping[str, SourceFile]]:
        """Folders and files that lie in a folder as such."""
        folders: set[str] = set()
        files: dict[str, SourceFile] = {}
        for place in self._places(folder):
            for entry in _scan(place):
                name = composed(entry.name)
                if entry.is_dir():
                    folders.add(name)
                else:
                    files[name] = UnpackedFile(Path(entry.path))
        return folders, files

    def _places(self, folder: str) -> list[Path]:
        """The folders of this name, however it is composed."""
        if folder.isascii():
            return [self.root / folder]
        parent, _, name = folder.rpartition("/")
        return [
            Path(entry.path)
            for place in self._places(parent)
            for entry in _scan(place)
            if entry.is_dir() and composed(entry.name) == name
        ]

    def _add(self, archive: zipfile.ZipFile) -> None:
        for member in archive.infolist():
            path = _name_of(member)
            if any(map(is_hidden, PurePosixPath(path).parts)):
                continue
            folder, _, name = path.rpartition("/")
            if name:
                self._zipped[folder][name] = ZippedFile(archive, member)
            while folder:
                parent, _, name = folder.rpartition("/")
                self._zipped_folders[parent].add(name)
                folder = parent


def composed(name: str) -> str:
    """A name with each letter and its accents as one character, if there is such a one."""
    return unicodedata.normalize("NFC", name)


def _name_of(member: zipfile.ZipInfo) -> str:
    """Its path. Some tools write UTF-8 and do not say so, and Python then reads cp437."""
    name = member.filename
    if not member.flag_bits & _IS_UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return composed(name)


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not is_hidden(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unreadable(folder, error) from error


def _open_zip(where: str) -> zipfile.ZipFile:
    """By its path, or its address in a store."""
    try:
        archive = zipfile.ZipFile(open_file(where) if is_address(where) else where)
    except _ZIP_DAMAGE as error:
        raise UserError(
            f"{where} cannot be read as a zip file: {error}. The download was cut short, or it is "
            "one part of a split archive; get it whole, or move it elsewhere if it is not wanted."
        ) from error
    archive.filename = where  # by which another process opens it
    return archive


_open_zip_once = functools.cache(_open_zip)


def _zipped_file(archive: str, member: str) -> ZippedFile:
    """A file that another process has sent; this one opens the archive anew."""
    opened = _open_zip_once(archive)
    return ZippedFile(opened, opened.getinfo(member))


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read: {error.strerror}.")


def read_frame(file: SourceFile) -> np.ndarray:
    """Reads a colour picture: uint8 HxWx3 RGB; warns of a JPEG that is damaged and decodes.

    Raises:
        UserError: it cannot be decoded.
    """
    content = file.read_bytes()
    if not content:
        raise UserError(f"{file} is empty. Get the file again.")
    frame_HxWx3 = decoded(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame_HxWx3 is None:
        raise UserError(
            f"Frame {file} cannot be decoded: it is torn or no picture. Get the file again."
        )
    if warning := warning_of(content):
        logging.getLogger(__name__).warning(
            "%s is damaged, and some of its pixels are wrong: libjpeg warns of '%s'. Get the file "
            "again.",
            file,
            warning,
        )
    return frame_HxWx3


def is_turned_by_exif(file: SourceFile) -> bool:
    """Whether `read_frame` turns or mirrors a picture, as EXIF asks."""
    is_at_the_end = file.name.lower().endswith((".tif", ".tiff"))
    try:
        start = file.read_bytes(-1 if is_at_the_end else _HEAD)
        exif = Image.open(io.BytesIO(start)).getexif()
    except Exception:  # Pillow raises whatever suits it; told when the frame is read
        return False
    return exif.get(ExifTags.Base.Orientation, 1) in range(2, 9)


def decoded(content: np.ndarray, how: int) -> np.ndarray | None:
    """The picture in a file's bytes.

    None if it cannot be decoded, or has a size that OpenCV refuses.
    """
    try:
        return cv2.imdecode(content, how)
    except cv2.error:
        return None


def check_size(
    found: tuple[int, ...], file: object, expected: tuple[int, ...], query: object
) -> None:
    """Raises UserError unless a picture has the height and width of its clip's query.

    Their str() says where they are.
    """
    if found != expected:
        raise UserError(
            f"{file} is {found[0]}x{found[1]} pixels (height x width), but its query {query} is "
            f"{expected[0]}x{expected[1]}: all pictures of a clip must have the same size."
        )
