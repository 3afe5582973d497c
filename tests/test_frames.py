"""Which files are frames."""

import pytest

from tmanet_jax.data.frames import picture_files


@pytest.mark.parametrize("pattern", ["", "/../*/?*.png"])
def test_hidden_pictures_are_no_frames(tmp_path, pattern):
    folder = tmp_path / ".cache" / "drive"
    for name in ("drive/1.png", "drive/._1.png", "drive/.2.png", "@eaDir/1.png", "__MACOSX/1.png"):
        path = tmp_path / ".cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = picture_files(f"{folder}{pattern}")
    assert [path.resolve() for path in found] == [folder / "1.png"]
