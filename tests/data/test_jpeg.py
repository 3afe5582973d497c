import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep.source import SourceTree, read_frame
from tmanet_jax.data.jpeg import warning_of
from tmanet_jax.video.frames import open_frames

PIXELS_HXWX3 = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8), (0, 0), 2
)
WAYS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "no subsampling": {"subsampling": 0},
    "many restarts": {"restart_marker_blocks": 1},
}


def jpeg(path, mode="RGB", **options):
    Image.fromarray(PIXELS_HXWX3).convert(mode).save(path, "JPEG", **options)
    return path


def with_a_wrong_byte(path):
    """The file, with a byte changed of which libjpeg warns and OpenCV does not."""
    whole = path.read_bytes()
    for position in range(len(whole) // 2, len(whole) - 2):
        wrong = bytes([whole[position] ^ 0x10])
        changed = whole[:position] + wrong + whole[position + 1 :]
        if cv2.imdecode(np.frombuffer(changed, np.uint8), 1) is not None and warning_of(changed):
            path.write_bytes(changed)
            return path
    raise AssertionError("libjpeg notices nothing")


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_has_no_warning(tmp_path, mode, options):
    content = jpeg(tmp_path / "frame.jpg", mode, **options).read_bytes()
    assert warning_of(content) is None
    assert warning_of(content + b"what a camera leaves behind it") is None


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_cannot_be_decoded_is_told_by_who_decodes_it(content):
    assert warning_of(content) is None


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_a_frame_with_a_wrong_byte_is_told_by_its_name(tmp_path, caplog, options):
    (tmp_path / "frames").mkdir()
    path = with_a_wrong_byte(jpeg(tmp_path / "frames" / "frame.jpg", **options))
    with caplog.at_level(logging.WARNING):
        (file,) = SourceTree(tmp_path).files("frames").values()
        prepared_HxWx3 = read_frame(file)
        with open_frames(path) as frames:
            (predicted,) = frames.frames
    assert predicted.pixels_HxWx3 is not None
    assert np.array_equal(prepared_HxWx3, predicted.pixels_HxWx3)
    assert len(caplog.messages) == 2
    assert all(f"{path} is damaged" in message for message in caplog.messages)
