"""Label pictures: whatever depth a PNG has, its samples are the indices."""

import io

import numpy as np
import pytest
from PIL import Image

from data_prep.labels import LabelPicture
from data_prep.source import UnpackedFile


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_pngs_of_all_depths_hold_indices(tmp_path, bits):
    indices_HxW = np.random.default_rng(bits).integers(0, 2**bits, (13, 21), np.uint8)
    picture = Image.fromarray(indices_HxW, mode="P")
    picture.putpalette(bytes(range(255, -1, -1)) * 3)
    picture.save(tmp_path / "labels.png", bits=bits)
    labels = LabelPicture.read(UnpackedFile(tmp_path / "labels.png"))
    assert labels.bits == bits
    assert not labels.holds_colours
    np.testing.assert_array_equal(labels.indices(), indices_HxW)


def test_a_black_and_white_png_holds_the_indices_0_and_1(tmp_path):
    indices_HxW = np.random.default_rng(0).integers(0, 2, (13, 21), np.uint8)
    content = io.BytesIO()
    Image.fromarray(indices_HxW.astype(bool)).save(content, "png")
    (tmp_path / "labels.png").write_bytes(content.getvalue())
    labels = LabelPicture.read(UnpackedFile(tmp_path / "labels.png"))
    assert labels.bits == 1
    np.testing.assert_array_equal(labels.indices(), indices_HxW)
