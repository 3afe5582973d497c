from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from tests.small_videos import SIZE, number_of, numbered, packet_positions, write_video
from tmanet_jax.data.video import open_video
from tmanet_jax.errors import UserError

NUM_FRAMES = 20

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "interlaced MPEG-2 in MXF": (
        "video.mxf",
        "mpeg2video",
        {"interlaced": True, "options": {"g": "6", "bf": "2", "b": "4M"}},
    ),
    "MPEG-4 with B-frames in AVI": ("video.avi", "mpeg4", {"options": {"bf": "2", "b": "4M"}}),
    "MJPEG in AVI": ("video.avi", "mjpeg", {"pixel_format": "yuvj420p"}),
    "H.264 in MP4": ("video.mp4", "libx264", {"container_options": {"movflags": "faststart"}}),
    "H.264 in Matroska": ("video.mkv", "libx264", {}),
}


def write(tmp_path, kind, num_frames=NUM_FRAMES):
    name, codec, settings = KINDS[kind]
    return write_video(tmp_path / name, map(numbered, range(num_frames)), codec, **settings)


def read(path):
    """The number of each frame, or its problem; indices are checked on the way."""
    with open_video(path) as video:
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    for frame in frames:
        assert (frame.pixels_HxWx3 is None) == (frame.problem is not None)
    return [
        frame.problem if frame.pixels_HxWx3 is None else number_of(frame.pixels_HxWx3)
        for frame in frames
    ]


def pictures(path):
    """The frames of a video without problems."""
    with open_video(path) as video:
        frames = [frame.pixels_HxWx3 for frame in video]
    assert all(frame is not None for frame in frames)
    return [frame for frame in frames if frame is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_comes_once_and_in_order(tmp_path, kind):
    assert read(write(tmp_path, kind)) == list(range(NUM_FRAMES))


@pytest.mark.parametrize(
    ("name", "codec", "size", "settings"),
    [
        (
            "video.mxf",
            "dnxhd",
            (720, 1280),
            {"pixel_format": "yuv422p", "rate": 25, "options": {"b": "60M"}},
        ),
        (
            "video.mov",
            "dnxhd",
            (128, 256),
            {"pixel_format": "yuv422p", "options": {"profile": "2"}},
        ),
        ("video.avi", "dvvideo", (576, 720), {"rate": 25}),
        ("video.mxf", "dvvideo", (720, 960), {"pixel_format": "yuv422p", "rate": 60}),
    ],
    ids=["DNxHD in MXF", "DNxHR in MOV", "DV in AVI", "DVCPRO HD in MXF"],
)
def test_studio_formats(tmp_path, name, codec, size, settings):
    frames = [numbered(number, size) for number in (0, 1, 2, 3, 100, 2500)]
    path = write_video(tmp_path / name, frames, codec, **settings)
    decoded = pictures(path)
    assert decoded[0].shape[:2] == size
    assert [number_of(pixels) for pixels in decoded] == [0, 1, 2, 3, 100, 2500]
    assert np.abs(decoded[4].astype(int) - frames[4]).mean() < 6


def test_what_is_known_before_the_frames(tmp_path):
    with open_video(write(tmp_path, "H.264 in MP4")) as video:
        assert video.size == SIZE
        assert video.average_rate == 30
        assert video.expected_frames == NUM_FRAMES
        assert not video.has_audio
        times = [(frame.pts, frame.seconds) for frame in video]
        assert [pts * video.time_base for pts, _ in times if pts is not None] == [
            Fraction(number, 30) for number in range(NUM_FRAMES)
        ]
    assert [seconds for _, seconds in times] == [number / 30 for number in range(NUM_FRAMES)]


def test_mxf_does_not_say_how_many_frames_it_has(tmp_path):
    with open_video(write(tmp_path, "interlaced MPEG-2 in MXF")) as video:
        assert video.expected_frames is None


def test_sound_is_noticed_and_not_decoded(tmp_path):
    path = tmp_path / "video.mkv"
    with av.open(path, "w") as container:
        picture = container.add_stream("libx264", rate=30)
        picture.height, picture.width = SIZE
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.sample_rate = 8000
        for number in range(3):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered(number))))
            container.mux(sound.encode(samples))
        container.mux(picture.encode())
    with open_video(path) as video:
        assert video.has_audio
    assert read(path) == [0, 1, 2]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_video_of_a_turned_phone_is_upright(tmp_path, rotation):
    frames = [numbered(number) for number in range(3)]
    path = write_video(tmp_path / "phone.mp4", frames, "libx264", rotation=rotation)
    expected_HxWx3 = np.rot90(frames[1], rotation // 90)  # both counterclockwise
    with open_video(path) as video:
        assert video.size == expected_HxWx3.shape[:2]
    pixels_HxWx3 = pictures(path)[1]
    assert pixels_HxWx3.flags.c_contiguous
    assert np.abs(pixels_HxWx3.astype(int) - expected_HxWx3).mean() < 8


@pytest.mark.parametrize("matrix", [1, 5], ids=["BT.709", "BT.601"])
def test_colours_follow_the_matrix_that_the_stream_is_tagged_with(tmp_path, matrix):
    colour_HxWx3 = np.full((64, 64, 3), (200, 40, 90), np.uint8)
    frame = av.VideoFrame.from_ndarray(colour_HxWx3)
    with av.open(tmp_path / "video.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv444p"
        stream.codec_context.colorspace = matrix
        container.mux(stream.encode(frame.reformat(format="yuv444p", dst_colorspace=matrix)))
        container.mux(stream.encode())
    (decoded,) = pictures(tmp_path / "video.mp4")
    assert np.abs(decoded.astype(int) - colour_HxWx3).max() <= 2


def test_frames_keep_their_own_size_when_it_changes(tmp_path):
    parts = []
    for name, size in (("small.h264", (64, 96)), ("large.h264", (96, 160))):
        frames = [numbered(number, size) for number in range(3)]
        parts.append(write_video(tmp_path / name, frames, "libx264").read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    with open_video(tmp_path / "both.h264") as video:
        assert video.size == (64, 96)
    shapes = [frame.shape for frame in pictures(tmp_path / "both.h264")]
    assert shapes == [(64, 96, 3)] * 3 + [(96, 160, 3)] * 3


def spoil(path, packet):
    """Overwrites most of a packet with zeros."""
    position, size = packet_positions(path)[packet]
    content = bytearray(path.read_bytes())
    content[position + 8 : position + size - 4] = bytes(size - 12)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "packet", "shown", "problem"),
    [
        ("MJPEG in AVI", 7, 7, "Invalid data found when processing input"),
        ("H.264 in MP4", 19, 18, "Invalid data found when processing input"),
        ("interlaced MPEG-2 in MXF", 8, 7, "its data gave no frame"),
        ("MPEG-4 with B-frames in AVI", 8, 7, "the decoder marks it as corrupt"),
    ],
)
def test_a_broken_frame_is_told_in_its_place_and_the_rest_goes_on(
    tmp_path, kind, packet, shown, problem
):
    path = write(tmp_path, kind)
    spoil(path, packet)
    assert read(path) == [*range(shown), problem, *range(shown + 1, NUM_FRAMES)]


@pytest.mark.parametrize(
    ("kind", "packets"),
    [
        ("interlaced MPEG-2 in MXF", (3, 5, 6, 8, 9, 17)),  # others are referred to
        ("H.264 in MP4", range(1, NUM_FRAMES)),
    ],
)
def test_numbers_stay_right_whichever_packet_is_broken(tmp_path, kind, packets):
    path = write(tmp_path, kind)
    whole = path.read_bytes()
    for packet in packets:
        path.write_bytes(whole)
        spoil(path, packet)
        found = read(path)
        assert len(found) == NUM_FRAMES
        assert any(isinstance(item, str) for item in found)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "H.264 in Matroska"])
def test_a_torn_file_gives_what_decodes_and_one_problem(tmp_path, kind):
    path = write(tmp_path, kind)
    position, size = packet_positions(path)[15]
    path.write_bytes(path.read_bytes()[: position + size // 2])
    found = read(path)
    assert sum(isinstance(item, str) for item in found) == 1
    assert 15 <= len(found) <= 17
    assert found[:13] == list(range(13))


def test_a_file_torn_between_two_frames_is_noticed_where_the_index_tells(tmp_path):
    path = write(tmp_path, "H.264 in MP4")
    path.write_bytes(path.read_bytes()[: packet_positions(path)[15][0]])
    assert read(path) == [*range(15), "the file is torn here"]


def write_sound(path):
    with av.open(path, "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), r"video\.mkv is empty"),
        (lambda path: path.write_bytes(b"no video " * 100), "cannot be opened as a video"),
        (lambda path: path.mkdir(), "cannot be opened as a video"),
        (lambda path: None, "No such file"),
        (write_sound, "has no video stream"),
    ],
    ids=["empty", "text", "directory", "missing", "sound alone"],
)
def test_what_is_no_video_is_refused(tmp_path, make, message):
    make(tmp_path / "video.mkv")
    with pytest.raises(UserError, match=message):
        open_video(tmp_path / "video.mkv")


def test_a_video_without_one_good_frame_is_refused(tmp_path):
    path = write(tmp_path, "MJPEG in AVI", num_frames=2)
    spoil(path, 0)
    spoil(path, 1)
    with pytest.raises(UserError, match=r"No frame of .*video\.avi can be decoded \(Invalid data"):
        open_video(path)
