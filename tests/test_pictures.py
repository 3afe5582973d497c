"""Label pictures: whatever depth a PNG has, its samples are the indices."""

import io

import numpy as np
import pytest
from PIL import Image

from data_prep.pictures import holds_colours, read_indices
from data_prep.source_tree import UnpackedFile


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_pngs_of_all_depths_hold_indices(tmp_path, bits):
    indices_HxW = np.random.default_rng(bits).integers(0, 2**bits, (13, 21), np.uint8)
    picture = Image.fromarray(indices_HxW, mode="P")
    picture.putpalette(bytes(range(255, -1, -1)) * 3)
    picture.save(tmp_path / "labels.png", bits=bits)
    file = UnpackedFile(tmp_path / "labels.png")
    assert file.read_bytes()[24] == bits
    assert not holds_colours(file)
    np.testing.assert_array_equal(read_indices(file), indices_HxW)


def test_a_black_and_white_png_holds_the_indices_0_and_1(tmp_path):
    indices_HxW = np.random.default_rng(0).integers(0, 2, (13, 21), np.uint8)
    content = io.BytesIO()
    Image.fromarray(indices_HxW.astype(bool)).save(content, "png")
    (tmp_path / "labels.png").write_bytes(content.getvalue())
    file = UnpackedFile(tmp_path / "labels.png")
    assert file.read_bytes()[24] == 1
    np.testing.assert_array_equal(read_indices(file), indices_HxW)
