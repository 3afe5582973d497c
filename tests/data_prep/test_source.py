"""A data set in folders and zip files is found, listed once, and damage is named."""

import os
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_prep.source import SourceTree
from tmanet_jax.errors import UserError


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a" / "train" / "aachen").mkdir(parents=True)
    (tmp_path / "a" / "train" / "aachen" / "2.png").write_bytes(b"unpacked 2")
    (tmp_path / "a" / "train" / "aachen" / "deep").mkdir()
    make_zip(
        tmp_path / "a_trainvaltest.zip",
        {
            "license.txt": b"terms",
            "a/train/aachen/1.png": b"zipped 1",
            "a/train/aachen/2.png": b"zipped 2",
            "a/train/zurich/": b"",
            "a/train/zurich/3.png": b"zipped 3",
        },
    )
    make_zip(tmp_path / "a_part2.zip", {"a/val/ulm/4.png": b"zipped 4"}, zipfile.ZIP_STORED)
    return tmp_path


def contents(tree, folder):
    return {name: file.read_bytes() for name, file in tree.files(folder).items()}


def test_folders_and_zip_files_are_one_tree_and_the_unpacked_file_is_taken(root):
    tree = SourceTree(root)
    assert tree.folders("a") == ["train", "val"]
    assert tree.folders("a/train") == ["aachen", "zurich"]
    assert contents(tree, "a/train/aachen") == {"1.png": b"zipped 1", "2.png": b"unpacked 2"}
    assert contents(tree, "a/train/zurich") == {"3.png": b"zipped 3"}
    assert contents(tree, "a/val/ulm") == {"4.png": b"zipped 4"}
    assert tree.folders("b") == []
    assert tree.files("b/train") == {}


def test_a_file_says_where_it_is(root):
    files = SourceTree(root).files("a/train/aachen")
    assert str(files["1.png"]) == f"{root}/a_trainvaltest.zip/a/train/aachen/1.png"
    assert str(files["2.png"]) == f"{root}/a/train/aachen/2.png"
    assert [file.name for file in files.values()] == ["1.png", "2.png"]


def test_the_fingerprint_changes_with_the_file(root):
    before = {n: f.fingerprint for n, f in SourceTree(root).files("a/train/aachen").items()}
    again = {n: f.fingerprint for n, f in SourceTree(root).files("a/train/aachen").items()}
    assert before == again
    os.utime(root / "a" / "train" / "aachen" / "2.png", (1, 1))
    make_zip(root / "a_trainvaltest.zip", {"a/train/aachen/1.png": b"zipped X"})
    after = {n: f.fingerprint for n, f in SourceTree(root).files("a/train/aachen").items()}
    assert before["1.png"] != after["1.png"]
    assert before["2.png"] != after["2.png"]


def test_each_folder_is_listed_once_and_no_file_is_looked_at(root, monkeypatch):
    listed = []
    scandir = os.scandir

    def count(folder):
        listed.append(os.path.relpath(folder, root))
        return scandir(folder)

    tree = SourceTree(root)
    monkeypatch.setattr(os, "scandir", count)
    monkeypatch.setattr(os, "stat", None)
    for _ in range(3):
        assert len(tree.files("a/train/aachen")) == 2
    assert listed == ["a/train/aachen"]


def test_many_threads_read_one_zip_file(tmp_path):
    pictures = {f"a/{i}.png": np.random.default_rng(i).bytes(20_000) for i in range(30)}
    make_zip(tmp_path / "a.zip", pictures)
    files = [*SourceTree(tmp_path).files("a").values()] * 10
    with ThreadPoolExecutor(8) as executor:
        read = list(executor.map(lambda file: file.read_bytes(), files))
    assert read == [pictures[f"a/{file.name}"] for file in files]


def test_a_torn_zip_file_is_named(root):
    path = root / "a_part2.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a_part2\.zip cannot be read as a zip file"):
        SourceTree(root)


def test_a_changed_member_is_named(tmp_path):
    make_zip(tmp_path / "a.zip", {"a/1.png": b"x" * 1000}, zipfile.ZIP_STORED)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[500] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a/1\.png in .*a\.zip cannot be read: Bad CRC-32"):
        SourceTree(tmp_path).files("a")["1.png"].read_bytes()


def test_an_encrypted_member_is_told_to_be_unpacked(tmp_path):
    make_zip(tmp_path / "a.zip", {"a/1.png": b"x" * 1000})
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for place in (6, content.index(b"PK\x01\x02") + 8):  # the flags of the member, twice
        content[place] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a/1\.png in .*a\.zip .* is encrypted.* Unpack the zip"):
        SourceTree(tmp_path).files("a")["1.png"].read_bytes()


def test_a_file_that_is_gone_is_named(root):
    file = SourceTree(root).files("a/train/aachen")["2.png"]
    before = file.fingerprint
    (root / "a" / "train" / "aachen" / "2.png").unlink()
    with pytest.raises(UserError, match=r"2\.png cannot be read: No such file"):
        file.read_bytes()
    assert file.fingerprint != before


@pytest.mark.parametrize("name", [".x", "._2.png", ".DS_Store", "Thumbs.db", "DESKTOP.INI"])
def test_hidden_files_are_not_part_of_the_data(root, name):
    (root / "a/train/aachen" / name).write_bytes(b"left by a system")
    make_zip(root / "b.zip", {f"a/train/aachen/{name}": b"", f"a/train/{name}/3.png": b""})
    tree = SourceTree(root)
    assert list(tree.files("a/train/aachen")) == ["1.png", "2.png"]
    assert tree.folders("a/train") == ["aachen", "zurich"]


@pytest.mark.parametrize("folder", [".Trash", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_not_part_of_the_data(root, folder):
    (root / "a" / folder / "aachen").mkdir(parents=True)
    make_zip(root / "b.zip", {f"{folder}/a/train/aachen/9.png": b"", f"a/{folder}/9.png": b""})
    tree = SourceTree(root)
    assert tree.folders("") == ["a"]
    assert tree.folders("a") == ["train", "val"]


def test_what_macos_leaves_beside_an_archive_is_no_archive(root):
    (root / "._a_part2.zip").write_bytes(b"Mac OS X")
    assert contents(SourceTree(root), "a/val/ulm") == {"4.png": b"zipped 4"}


@pytest.mark.parametrize("name", ["a_part2.ZIP", "a_part2.Zip"])
def test_an_archive_may_be_named_in_capitals(root, name):
    (root / "a_part2.zip").rename(root / name)
    assert contents(SourceTree(root), "a/val/ulm") == {"4.png": b"zipped 4"}


COMPOSED, APART = (unicodedata.normalize(form, "Zürich/éé.png") for form in ("NFC", "NFD"))


def test_names_are_one_however_their_accents_are_composed(tmp_path):
    for path, content in ((f"a/{COMPOSED}", b"1"), (f"b/{APART}", b"2"), (f"c/{APART}x", b"3")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(content)
    make_zip(tmp_path / "d.zip", {f"d/{COMPOSED}": b"4", f"c/{COMPOSED}": b"5"})
    make_zip(tmp_path / "é.zip", {f"d/{APART}": b"6"})
    tree = SourceTree(tmp_path)
    city, name = COMPOSED.split("/")
    for folder, expected in (("a", b"1"), ("b", b"2"), ("c", b"5"), ("d", b"6")):
        assert tree.folders(folder) == [city]
        assert tree.files(f"{folder}/{city}")[name].read_bytes() == expected
    assert list(tree.files(f"c/{city}")) == [name, f"{name}x"]


@pytest.mark.parametrize("name", ["Zürich", "Łódź"])
def test_a_name_in_a_zip_file_that_is_utf_8_and_does_not_say_so_is_read(tmp_path, name):
    placeholder = "x" * len(name.encode())
    make_zip(tmp_path / "a.zip", {f"a/{placeholder}/1.png": b"1"})
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(placeholder.encode(), name.encode()))
    assert SourceTree(tmp_path).folders("a") == [name]


def test_a_name_in_a_zip_file_of_code_page_437_is_read(tmp_path):
    make_zip(tmp_path / "a.zip", {"a/Zxrich/1.png": b"1"})
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"Zxrich", "Zürich".encode("cp437")))
    assert SourceTree(tmp_path).folders("a") == ["Zürich"]


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no directory .*nowhere"):
        SourceTree(tmp_path / "nowhere")
