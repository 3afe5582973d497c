import itertools
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from tests.made.small_videos import (
    SIZE,
    number_of,
    numbered,
    packet_positions,
    with_sound,
    write_video,
)
from tmanet_jax.errors import UserError
from tmanet_jax.video.read import open_video

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


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("is_mirrored", [False, True], ids=["turned", "mirrored"])
def test_a_display_matrix_may_mirror(tmp_path, quarter_turns, is_mirrored):
    """The matrix is built from its definition: x, y is shown at a * x + c * y, b * x + d * y."""
    stored = numbered(0b1010_1100_0111)
    cosine, sine = ((1, 0), (0, -1), (-1, 0), (0, 1))[quarter_turns]  # y points down
    mirror = -1 if is_mirrored else 1
    a, b, c, d = (65536 * value for value in (mirror * cosine, sine, -mirror * sine, cosine))
    with av.open(tmp_path / "selfie.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored)))
        container.mux(stream.encode())
    shown = np.rot90(stored, quarter_turns)
    expected = shown[:, ::-1] if is_mirrored else shown
    (found,) = pictures(tmp_path / "selfie.mp4")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(("rotation", "upright"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_the_aspect_of_pixels_is_known_upright(tmp_path, rotation, upright):
    path = write_video(tmp_path / "wide.mp4", [numbered(0)], "libx264", rotation=rotation)
    with open_video(path) as video:
        assert video.pixel_aspect == 1
    path = write_video(
        tmp_path / "wide.mp4",
        [numbered(0)],
        "libx264",
        rotation=rotation,
        pixel_aspect=Fraction(4, 3),
    )
    with open_video(path) as video:
        assert video.pixel_aspect == upright


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
    ("name", "codec", "options"),
    [
        ("a.mxf", "mpeg2video", {"interlaced": True, "options": {"g": "6", "bf": "2", "b": "4M"}}),
        ("a.mp4", "libx264", {"options": {"g": "8", "bf": "2"}}),
        ("a.mov", "mjpeg", {"pixel_format": "yuvj420p"}),
    ],
)
def test_whichever_packet_is_broken_each_frame_is_right_or_told(tmp_path, name, codec, options):
    moving = [np.roll(numbered(number), 3 * number, axis=1) for number in range(NUM_FRAMES)]
    path = write_video(tmp_path / name, moving, codec, **options)
    whole, expected = path.read_bytes(), pictures(path)
    last = NUM_FRAMES - 1 if name == "a.mxf" else NUM_FRAMES  # none behind it: it is not missed
    for packet in range(1, last):
        path.write_bytes(whole)
        spoil(path, packet)
        with open_video(path) as video:
            found = list(video)
        assert len(found) == NUM_FRAMES
        assert any(frame.problem for frame in found)
        for frame in found:
            if frame.problem is None and not frame.is_doubtful:
                np.testing.assert_array_equal(frame.pixels_HxWx3, expected[frame.index])
        if name == "a.mov":  # each frame is a key frame
            assert not any(frame.is_doubtful for frame in found if frame.problem is None)


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


def test_joined_transport_streams_do_not_share_their_losses(tmp_path):
    """Times come again: what is cut off in one piece is not in the next."""
    path = write_video(tmp_path / "part.ts", map(numbered, range(NUM_FRAMES)), "libx264")
    whole = path.read_bytes()
    assert read(path) == list(range(NUM_FRAMES))
    start = packet_positions(path)[12][0] // 188 * 188 + 188 * 2
    damaged = whole[:start] + whole[start + 188 * 3 :]  # the continuity counters tell
    path.write_bytes(damaged + whole + whole)
    found = read(path)
    assert found[-2 * NUM_FRAMES :] == 2 * list(range(NUM_FRAMES))
    assert found[: -2 * NUM_FRAMES].count("its data is cut off") == 1


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_frame_is_cut_off_where_data_is_missing_and_not_where_streams_were_joined(
    tmp_path, codec
):
    path = write_video(tmp_path / "part.ts", map(numbered, range(NUM_FRAMES)), codec)
    whole = path.read_bytes()
    packets = [bytearray(whole[start : start + 188]) for start in range(0, len(whole), 188)]
    of_video = [i for i, packet in enumerate(packets) if packet[1] & 0x1F == 1 and not packet[2]]
    starts = [i for i in of_video if packets[i][1] & 0x40]

    def problems(*parts):
        path.write_bytes(b"".join(itertools.chain(*parts)))
        return [item for item in read(path) if isinstance(item, str)]

    assert problems([whole, whole, whole]) == []
    assert problems([whole, whole[: 188 * (starts[0] + 2)], whole])  # the first frame is torn
    assert problems(packets[: starts[8]], packets[starts[9] :]) == ["its data is cut off"]
    for i in of_video:
        if i >= starts[9]:  # counted anew, as in a file of its own
            packets[i][3] = packets[i][3] & 0xF0 | (packets[i][3] + 5) & 0xF
    assert problems(packets) == []
    assert problems(packets[: starts[8]], packets[starts[10] :]) == ["its data is cut off"]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")]
)
@pytest.mark.parametrize("has_sound", [False, True], ids=["mute", "sound"])
def test_a_torn_video_never_looks_whole(tmp_path, caplog, name, codec, has_sound):
    if has_sound:
        path = with_sound(tmp_path / name, "mp2", video_codec=codec)
    else:
        path = write_video(tmp_path / name, map(numbered, range(25)), codec, rate=25)
    whole = path.read_bytes()
    assert read(path) == list(range(25))
    assert not caplog.records
    first, size = packet_positions(path)[4]
    for position in range(first + size, len(whole), (len(whole) - first) // 24):
        path.write_bytes(whole[:position])
        caplog.clear()
        found = read(path)
        is_told = any(isinstance(item, str) for item in found) or caplog.records
        assert is_told or len(found) >= 24


def test_a_title_that_is_not_utf8_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.mkv", [numbered(7)], "libx264", title="Strasse")
    content = path.read_bytes()
    assert content.count(b"Strasse") == 1
    path.write_bytes(content.replace(b"Strasse", b"Stra\xdfe.", 1))
    assert read(path) == [7]


def write_sound(path):
    with av.open(path, "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))


def write_unknown_codec(path):
    write_video(path, [numbered(0)], "libx264")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), r"video\.mkv is empty"),
        (lambda path: path.write_bytes(b"no video " * 100), "cannot be opened as a video"),
        (lambda path: path.mkdir(), "cannot be opened as a video"),
        (lambda path: None, "No such file"),
        (write_sound, "has no video stream"),
        (write_unknown_codec, "of a codec that libav does not know"),
    ],
    ids=["empty", "text", "directory", "missing", "sound alone", "unknown codec"],
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
