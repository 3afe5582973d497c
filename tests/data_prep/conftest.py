import shutil

import pytest

from data_prep import camvid_source
from tests.made.small_camvid import SPLITS, write_camvid


@pytest.fixture(scope="session")
def written_camvid(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("camvid") / "source")


@pytest.fixture
def camvid(written_camvid, tmp_path, monkeypatch):
    """A copy of a small CamVid that a test may change; its splits stand for the published ones."""
    monkeypatch.setattr(camvid_source, "_SPLITS", SPLITS)
    return shutil.copytree(written_camvid, tmp_path / "source")
