"""From videos, stills and labels to records; what the original did wrong, each on its own."""

import av
import cv2
import numpy as np
import pytest

from data_prep import camvid_source, extraction
from data_prep.camvid_source import SEQ01, SEQ05, SEQ16
from tests.made.small_camvid import (
    FIRST_NUMBERS,
    NUM_FRAMES,
    SPLITS,
    label_colours,
    label_indices,
    labels_path,
    shown,
    still_path,
    write_png,
)
from tests.made.small_camvid_records import clips_of, frame_files, prepare, read_png, shown_numbers
from tests.made.small_videos import number_of, numbered, packet_positions, write_video
from tmanet_jax.data.classes import CAMVID
from tmanet_jax.video.read import open_video

NUM_CLIPS = {"train": 6, "val": 4, "test": 3}


@pytest.fixture
def source(camvid):
    return camvid


def test_each_clip_holds_its_still_its_labels_and_the_frames_before_it(source, capsys):
    assert prepare(source) == 0
    for split, parts in SPLITS.items():
        clips = clips_of(source, split)
        assert clips.info.classes == CAMVID
        assert clips.info.memory_range == 4
        named = sorted((video.frame_name(n), video, n) for video, of in parts for n in of)
        assert len(clips) == len(named) == NUM_CLIPS[split]
        for index, (name, video, number) in enumerate(named):
            assert clips.clip_id(index) == name
            last = shown(video, number)
            assert shown_numbers(clips, index) == list(range(last - 4, last + 1))
            clip = clips.read(index, ())
            np.testing.assert_array_equal(clip.frames_SxHxWx3[0], numbered(last))
            np.testing.assert_array_equal(clip.labels_HxW, label_indices(number))
    report = capsys.readouterr().out
    for video, first in FIRST_NUMBERS.items():
        assert f"{video.file}: {NUM_FRAMES} frames; the first decoded frame is number {first};" in (
            report
        )
    assert "4 of 4 stills agree" in report
    assert report.count("their colours are 0.") == 4
    assert "13 clips, 59 frames (0 times one" in report


def test_the_format_of_the_published_videos(tmp_path, monkeypatch):
    """DVCPRO HD in MXF at the published size; stills 6 and 10 are the frames of index 7 and 11."""
    monkeypatch.setattr(camvid_source, "_SPLITS", {"test": ((SEQ05, range(6, 11, 4)),)})
    source, size = tmp_path / "source", (720, 960)
    reddish = np.array([40, 0, 0], np.uint8)
    frames = [numbered(index, size) + reddish for index in range(12)]
    write_video(source / SEQ05.file, frames, "dvvideo", pixel_format="yuv422p", rate=60)
    for number in (6, 10):
        name = SEQ05.frame_name(number)
        write_png(still_path(source, name), frames[shown(SEQ05, number)])
        labels = cv2.resize(label_colours(number), size[::-1], interpolation=cv2.INTER_NEAREST)
        write_png(labels_path(source, name), labels)
    assert prepare(source, "--splits=test") == 0
    assert [shown_numbers(clips_of(source, "test"), index) for index in range(2)] == [
        [3, 4, 5, 6, 7],
        [7, 8, 9, 10, 11],
    ]
    oldest_HxWx3 = clips_of(source, "test").read(0, (4, 3, 2, 1)).frames_SxHxWx3[0]
    off_by_HxWx3 = oldest_HxWx3.astype(int) - frames[3]
    assert np.abs(off_by_HxWx3.mean(axis=(0, 1))).max() < 2  # of 255, in each colour


def test_only_the_frames_that_are_needed_are_written_and_none_is_negative(source):
    prepare(source)
    needed = {
        video.frame_name(number - offset)
        for parts in SPLITS.values()
        for video, numbers in parts
        for number in numbers
        for offset in range(1, 5)
    }
    assert frame_files(source) == sorted(f"{name}.png" for name in needed)
    for name in frame_files(source):  # defect 3: the first decoded frame is number -1 in two videos
        video, number = camvid_source.parse_name(name.removesuffix(".png"))
        frame = read_png(source.parent / "out" / "frames" / name)
        assert number_of(frame) == shown(video, number)


def test_all_frames_are_there_that_a_memory_of_that_stride_and_range_reaches(source):
    prepare(source, "--splits=test", "--memory-range=2", "--frame-stride=3")
    assert frame_files(source) == [
        f"Seq05VD_f{number:05d}.png" for query in (10, 20, 30) for number in range(query - 6, query)
    ]
    assert shown_numbers(clips_of(source, "test"), 0, memory_range=2) == [5, 8, 11]


def test_frames_of_all_videos_stay_when_more_are_extracted(source):
    """Defects 1 and 2: the folder of frames may exist, and keeps what is in it."""
    (source.parent / "out" / "frames").mkdir(parents=True)
    (source.parent / "out" / "frames" / "description").write_text("frames go here")
    prepare(source, "--splits=test")
    first = frame_files(source)
    assert prepare(source, "--splits=train", "--replace") == 0
    assert set(first) < set(frame_files(source))
    assert (source.parent / "out" / "frames" / "description").exists()


def test_a_container_may_name_more_frames_than_it_holds(source):
    """Defect 4."""
    video = source / "videos" / SEQ01.file
    content = bytearray(video.read_bytes())
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):  # AVI's two counts of frames
        place = content.index(chunk) + 8 + offset
        assert content[place : place + 4] == NUM_FRAMES.to_bytes(4, "little")
        content[place : place + 4] = (NUM_FRAMES + 4).to_bytes(4, "little")
    video.write_bytes(content)
    assert prepare(source, "--splits=train") == 0
    assert shown_numbers(clips_of(source, "train"), 2) == [26, 27, 28, 29, 30]


def test_a_still_from_beyond_a_torn_video_is_named(source, capsys):
    video = source / "videos" / SEQ05.file
    position, size = packet_positions(video)[25]
    video.write_bytes(video.read_bytes()[: position + size // 2])
    assert prepare(source, "--splits=test") == 2
    message = capsys.readouterr().err
    assert "Seq05VD_f00030.png does not belong to 0005VD.MXF: it matches no frame" in message
    assert prepare(source, "--splits=test", "--on-error=skip") == 0
    assert len(clips_of(source, "test")) == 2


def test_stills_of_another_size_than_the_video_are_named_before_it_is_decoded(
    source, monkeypatch, capsys
):
    monkeypatch.setattr(extraction.Watch, "over", None)
    frames = [cv2.resize(numbered(index), (64, 48)) for index in range(NUM_FRAMES)]
    write_video(source / "videos" / SEQ16.file, frames, "mpeg2video", options={"b": "4M"})
    assert prepare(source, "--splits=val") == 2
    message = capsys.readouterr().err
    assert "0016E5.MXF are 96x128 pixels (height x width), such as" in message
    assert "0016E5_00020.png, but its frames are 48x64" in message


def test_broken_frames_are_missing_ones(source, capsys):
    video = source / "videos" / SEQ05.file
    position, size = packet_positions(video)[8]  # shown as the 7th, of number 6
    content = bytearray(video.read_bytes())
    content[position + 8 : position + size - 4] = bytes(size - 12)
    video.write_bytes(content)
    assert prepare(source, "--splits=test") == 0
    assert "1 of its frames are broken" in (report := capsys.readouterr().out)
    assert "(1 times one stands in" in report
    assert "Seq05VD_f00006.png" not in frame_files(source)
    assert prepare(source, "--splits=test", "--missing=error") == 2
    assert "Clip Seq05VD_f00010 has no frame 6 of 0005VD.MXF" in capsys.readouterr().err


def test_frames_that_refer_to_a_lost_one_are_missing_too(source):
    video = source / "videos" / SEQ05.file
    with av.open(video) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    referred_to = [i for i, packet in enumerate(packets) if packet.pts > packet.dts]
    position, size = packet_positions(video)[[i for i in referred_to if packets[i].pts < 9][-1]]
    content = bytearray(video.read_bytes())
    content[position + 8 : position + size - 4] = bytes(size - 12)
    video.write_bytes(content)
    with open_video(video) as reader:
        unusable = {f"Seq05VD_f{frame.index - 1:05d}.png" for frame in reader if frame.is_doubtful}
    assert unusable & {f"Seq05VD_f{number:05d}.png" for number in range(6, 10)}
    assert prepare(source, "--splits=test") == 0
    assert frame_files(source) and not unusable & set(frame_files(source))


def test_records_that_may_not_be_replaced_are_told_before_a_video_is_read(source, capsys):
    assert prepare(source, "--splits=val") == 0
    assert "stills agree" in capsys.readouterr().out
    assert prepare(source, "--splits=val", "--memory-range=6") == 2
    told = capsys.readouterr()
    assert "say --replace" in told.err and "stills agree" not in told.out


def test_a_query_at_the_start_of_a_video_has_stand_ins(source, monkeypatch, capsys):
    """Defect 10: frames before the first are no files."""
    name = SEQ05.frame_name(2)
    monkeypatch.setattr(camvid_source, "_SPLITS", {"test": ((SEQ05, range(2, 3)),)})
    write_png(still_path(source, name), numbered(shown(SEQ05, 2)))
    write_png(labels_path(source, name), read_png(labels_path(source, SEQ05.frame_name(10))))
    assert prepare(source, "--splits=test") == 0
    assert shown_numbers(clips_of(source, "test"), 0) == [1, 1, 1, 2, 3]
    assert "(2 times one stands in" in capsys.readouterr().out
    assert frame_files(source) == ["Seq05VD_f00000.png", "Seq05VD_f00001.png"]


def test_a_missing_video_is_named(source, capsys):
    (source / "videos" / SEQ01.file).unlink()
    assert prepare(source, "--splits=train") == 2
    assert "neither the video 01TP_extract.avi nor a frame of it" in capsys.readouterr().err
    assert prepare(source, "--splits=train", "--memory-range=0") == 0


@pytest.mark.parametrize(
    ("path_of", "message"),
    [
        (still_path, "Clip 0016E5_00022 has no still: expected 0016E5_00022.png"),
        (labels_path, "Clip 0016E5_00022 has no labels: expected 0016E5_00022_L.png"),
    ],
)
def test_a_clip_without_still_or_labels_is_named_or_skipped(source, path_of, message, capsys):
    path_of(source, "0016E5_00022").unlink()
    assert prepare(source, "--splits=val") == 2
    assert message in capsys.readouterr().err
    assert prepare(source, "--splits=val", "--on-error=skip") == 0
    assert message in capsys.readouterr().out


def test_a_torn_still_is_named(source, capsys):
    path = still_path(source, "0016E5_00022")
    path.write_bytes(path.read_bytes()[:200])
    assert prepare(source, "--splits=val") == 2
    assert "0016E5_00022.png cannot be decoded" in capsys.readouterr().err
    assert prepare(source, "--splits=val", "--on-error=skip") == 0
    assert len(clips_of(source, "val")) == 3


def test_a_directory_of_frames_that_cannot_be_written_is_named(source, capsys):
    (source.parent / "file").write_text("")
    assert prepare(source, "--splits=val", f"--frames={source.parent / 'file'}") == 2
    assert "Traceback" not in (message := capsys.readouterr().err)
    assert f"{source.parent / 'file'}" in message


def test_records_are_verified_against_stills_labels_and_frames(source, capsys):
    prepare(source, "--splits=val")
    assert prepare(source, "--verify") == 0
    write_png(still_path(source, "0016E5_00022"), numbered(23))
    assert prepare(source, "--verify") == 2
    assert "0016E5_00022" in capsys.readouterr().out
