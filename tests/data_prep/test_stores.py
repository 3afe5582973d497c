"""A data set, records and their copies in an object store (fsspec's own, in memory)."""

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from data_prep import folder
from data_prep.source import SourceTree
from data_prep.stored_source import open_tree
from tests.made.small_folder import write_source
from tmanet_jax.data import stores
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError

ADDRESS = "memory://bucket/mine"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    monkeypatch.setattr(stores, "COPIES", tmp_path / "copies")
    stores._copied.cache_clear()
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def described(out: Path) -> dict[str, bytes]:
    """All but what says of which files' states a shard was made."""
    return {name: content for name, content in contents(out).items() if "/shards/" not in name}


def test_records_of_a_store_are_those_of_the_disk(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "mine")
    for name, content in contents(source).items():
        memory.pipe_file(f"/bucket/mine/{name}", content)
    here, there = tmp_path / "here", tmp_path / "there"
    assert folder.main([f"--source={source}", f"--out={here}"]) == 0
    asked = [f"--source={ADDRESS}", f"--out={there}", "--upload=memory://bucket/records"]
    assert folder.main(asked) == 0
    assert described(here) == described(there)
    uploaded = memory.find("/bucket/records")
    assert {name.removeprefix("/bucket/records/") for name in uploaded} == contents(here).keys()
    stored, on_disk = open_clips("memory://bucket/records", "train"), open_clips(here, "train")
    assert len(stored) == len(on_disk)
    np.testing.assert_array_equal(
        stored.read(0, (1,)).frames_SxHxWx3, on_disk.read(0, (1,)).frames_SxHxWx3
    )


def test_a_copy_is_made_once_and_anew_where_the_store_has_changed(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe_file("/bucket/r/a/one", b"1")
    memory.pipe_file("/bucket/r/two", b"22")
    copy = stores.local("memory://bucket/r/")
    stores._copied.cache_clear()  # as in another process
    assert contents(copy).keys() == {"a/one", "two", "copied.json"}
    fetched: list[str] = []
    fetch = stores._fetch

    def noted(stored: stores.StoredFolder, name: str, to: Path) -> None:
        fetched.append(name)
        fetch(stored, name, to)

    monkeypatch.setattr(stores, "_fetch", noted)
    assert stores.local("memory://bucket/r") == copy and fetched == []
    memory.pipe_file("/bucket/r/two", b"333")
    memory.rm("/bucket/r/a/one")
    stores._copied.cache_clear()  # as in another process
    stores.local("memory://bucket/r")
    assert fetched == ["two"]
    assert set(contents(copy)) == {"two", "copied.json"}
    assert (copy / "two").read_bytes() == b"333"


def test_a_copy_that_broke_off_is_completed(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe_file("/bucket/r/one", b"1")
    memory.pipe_file("/bucket/r/two", b"2")
    whole = type(memory).get_file

    def breaks(self: object, path: str, *rest: object, **named: object) -> None:
        if path.endswith("two"):
            raise TimeoutError("no answer")
        whole(self, path, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", breaks)
        with pytest.raises(UserError, match="memory://bucket/r cannot be read: TimeoutError"):
            stores.local("memory://bucket/r")
    copy = stores.local("memory://bucket/r")
    assert (copy / "two").read_bytes() == b"2" and not list(copy.glob("*.part"))


def test_zip_files_in_a_store_are_read_in_place_and_by_other_processes(
    memory: fsspec.AbstractFileSystem,
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("frames/train/drive/000001.png", b"pixels")
    memory.pipe_file("/bucket/zipped/mine.ZIP", packed.getvalue())
    memory.pipe_file("/bucket/zipped/.hidden", b"")
    tree = open_tree("memory://bucket/zipped/")
    assert tree.folders("frames") == ["train"] and list(tree.files("")) == ["mine.ZIP"]
    file = tree.files("frames/train/drive")["000001.png"]
    assert pickle.loads(pickle.dumps(file)).read_bytes() == b"pixels"
    assert str(file) == "memory://bucket/zipped/mine.ZIP/frames/train/drive/000001.png"


def test_what_is_not_there_or_no_store_is_told(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="There is nothing at memory://bucket/none"):
        open_tree("memory://bucket/none")
    with pytest.raises(UserError, match="nowhere://x is the address of no store"):
        stores.open_store("nowhere://x")
    with pytest.raises(UserError, match="There are no records at"):
        open_clips("memory://bucket/none", "train")
    assert isinstance(open_tree(tmp_path), SourceTree)
    asked = [f"--source={tmp_path}", f"--out={tmp_path}/out", "--upload=nowhere://x"]
    assert folder.main(asked) == 2
    assert "is the address of no store" in capsys.readouterr().err
