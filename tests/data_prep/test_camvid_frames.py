"""The frames before CamVid's stills: how their numbers are found; an extraction goes on."""

import json
import shutil
import signal
import sys

import numpy as np
import pytest

from data_prep import camvid_source, numbering
from data_prep.camvid_source import SEQ05, SEQ16
from tests import processes
from tests.made.small_camvid import (
    FIRST_NUMBERS,
    NUM_FRAMES,
    SPLITS,
    shown,
    still_path,
    write_png,
)
from tests.made.small_camvid_records import clips_of, frame_files, prepare, read_png, shown_numbers
from tests.made.small_videos import number_of, numbered, write_video


@pytest.fixture
def source(camvid):
    return camvid


@pytest.mark.parametrize("name", ["images_sequence", "image_sequence"])
def test_frames_that_were_extracted_already_need_no_video(source, name, capsys):
    """Defect 5: both names of the folder are read."""
    prepare(source, "--splits=test")
    expected = clips_of(source, "test").read(0, (4, 3, 2, 1)).frames_SxHxWx3
    (source.parent / "out" / "frames").rename(source / name)
    for note in (source / name).glob("*.json"):
        note.unlink()
    shutil.rmtree(source / "videos")
    shutil.rmtree(source.parent / "out")
    assert prepare(source, "--splits=test") == 0
    assert "12 frames were there already; none of them is that of a still" in (
        capsys.readouterr().out
    )
    np.testing.assert_array_equal(
        clips_of(source, "test").read(0, (4, 3, 2, 1)).frames_SxHxWx3, expected
    )
    assert not (source.parent / "out" / "frames").exists()


def test_foreign_frames_of_another_numbering_are_refused(source, capsys):
    frames = source.parent / "mine"
    for number in range(31):  # as the original numbers them, but for its first
        write_png(frames / f"Seq05VD_f{number:05d}.png", numbered(number))
    options = ("--splits=test", f"--frames={frames}")
    assert prepare(source, *options) == 2
    assert "look like the extracted frames 1 after those of their numbers" in (
        capsys.readouterr().err
    )
    for number in range(31):
        write_png(frames / f"Seq05VD_f{number:05d}.png", numbered(3000 + number))
    assert prepare(source, *options) == 2
    assert "4 of 4 stills do not show the extracted frame of their number" in (
        capsys.readouterr().err
    )
    for number in range(31):
        write_png(frames / f"Seq05VD_f{number:05d}.png", numbered(shown(SEQ05, number)))
    assert prepare(source, *options) == 0
    assert "4 of 4 stills agree with the frame of their number" in capsys.readouterr().out
    (frames / "Seq05VD_f00030.png").write_bytes(b"torn")  # no memory of any clip
    assert prepare(source, *options) == 0


def test_a_foreign_still_is_named_or_skipped(source, capsys):
    write_png(still_path(source, "0016E5_00022"), numbered(3000))
    assert prepare(source, "--splits=val") == 2
    message = capsys.readouterr().err
    assert "0016E5_00022.png does not belong to 0016E5.MXF: it matches no frame" in message
    assert prepare(source, "--splits=val", "--on-error=skip") == 0
    assert len(clips_of(source, "val")) == 3
    report = capsys.readouterr().out
    assert "Skipped 1 clips of val:\n  0016E5_00022: The still" in report
    assert "3 of 4 stills agree" in report


def test_a_still_that_was_put_right_counts(source):
    right = still_path(source, "0016E5_00022").read_bytes()
    write_png(still_path(source, "0016E5_00022"), numbered(3000))
    assert prepare(source, "--splits=val") == 2
    still_path(source, "0016E5_00022").write_bytes(right)
    assert prepare(source, "--splits=val") == 0


def test_frames_that_turn_out_to_be_numbered_wrongly_are_extracted_again(source):
    """Stills that all lie one too early, first; then the right ones."""
    val = [SEQ16.frame_name(number) for _, numbers in SPLITS["val"] for number in numbers]
    right = {name: still_path(source, name).read_bytes() for name in val}
    for name in val:
        write_png(still_path(source, name), numbered(int(name[-5:]) + 1))
    assert prepare(source, "--splits=val", "--memory-range=6") == 0
    assert shown_numbers(clips_of(source, "val"), 0) == [17, 18, 19, 20, 21]
    for name in val:
        still_path(source, name).write_bytes(right[name])
    assert prepare(source, "--splits=val", "--replace") == 0
    assert shown_numbers(clips_of(source, "val"), 0) == [16, 17, 18, 19, 20]
    assert prepare(source, "--splits=val", "--memory-range=6", "--replace") == 0
    assert shown_numbers(clips_of(source, "val"), 0, 6) == [14, 15, 16, 17, 18, 19, 20]


def test_foreign_frames_of_another_numbering_are_refused_beside_the_video_too(source, capsys):
    for number in range(17, 31):  # the video has to give 16
        path = source / "images_sequence" / f"{SEQ16.frame_name(number)}.png"
        write_png(path, numbered(shown(SEQ16, number) + 1))
    for _ in range(2):
        assert prepare(source, "--splits=val") == 2
        assert "The frames are numbered otherwise" in capsys.readouterr().err
    shutil.rmtree(source / "images_sequence")
    assert prepare(source, "--splits=val") == 0


def test_a_still_under_another_number_is_named_with_its_own(source, capsys):
    write_png(still_path(source, "0016E5_00022"), numbered(29))
    assert prepare(source, "--splits=val") == 2
    assert "but it looks like frame 29 (" in capsys.readouterr().err


def test_the_wrong_video_is_refused_whatever_the_options(source, capsys):
    frames = [numbered(2000 + index) for index in range(20)]
    write_video(source / "videos" / SEQ16.file, frames, "mpeg2video")
    assert prepare(source, "--splits=val", "--on-error=skip") == 2
    message = capsys.readouterr().err
    assert "4 of 4 stills do not show" in message
    assert "Is it the right video" in message


def test_a_video_without_one_still_is_named(source, capsys):
    for path in (source / "701_StillsRaw_full").glob("0016E5_*.png"):
        path.unlink()
    assert prepare(source, "--on-error=skip") == 2
    assert "No still of 0016E5.MXF lies below" in capsys.readouterr().err


def test_a_later_run_decodes_only_what_lacks(source, monkeypatch):
    prepare(source, "--splits=val")
    (source.parent / "out" / "frames" / "0016E5_00019.png").unlink()
    monkeypatch.setattr(numbering, "align", None)  # the note tells the numbers
    assert prepare(source, "--splits=val") == 0
    assert "0016E5_00019.png" in frame_files(source)
    shutil.rmtree(source / "videos")
    assert prepare(source, "--splits=val") == 0


def test_another_file_of_the_same_name_is_aligned_anew(source, capsys):
    prepare(source, "--splits=val")
    (source.parent / "out" / "frames" / "0016E5_00019.png").unlink()
    frames = [numbered(index) for index in range(5, NUM_FRAMES)]
    write_video(source / "videos" / SEQ16.file, frames, "mpeg2video", options={"b": "8M"})
    assert prepare(source, "--splits=val") == 0
    assert "0016E5.MXF: 35 frames; the first decoded frame is number 5;" in capsys.readouterr().out
    assert number_of(read_png(source.parent / "out" / "frames" / "0016E5_00019.png")) == 19


def test_a_torn_note_is_named(source, capsys):
    prepare(source, "--splits=val")
    path = source.parent / "out" / "frames" / "0016E5.MXF.json"
    note = json.loads(path.read_text())
    for damaged, words in (
        ("{", "it is no JSON"),
        ("[" * 100_000, "nested too deep"),
        ("7", "not an object"),
        (json.dumps({name: note[name] for name in note if name != "stills"}), "stills is missing"),
        (json.dumps(note | {"first_number": "5"}), "first_number is '5'"),
        (json.dumps(note | {"num_frames": 10**30}), "num_frames is 1000"),
        (json.dumps(note | {"num_frames": 0}), "0 frames"),
        (json.dumps(note | {"broken": {"1.5": "torn"}}), "broken is '1.5'"),
        (json.dumps(note | {"broken": {"999": "torn"}}), "beyond"),
        (json.dumps(note | {"faults": {"5": None}}), "faults.5 is None"),
        (json.dumps(note | {"report": True}), "report is True"),
    ):
        path.write_text(damaged)
        assert prepare(source, "--splits=val") == 2
        message = capsys.readouterr().err
        assert "0016E5.MXF.json cannot be read" in message and words in message
    path.write_text(json.dumps(note | {"broken": {"1": "torn"}}))
    noted = numbering.read_numbering(path)
    assert noted is not None and noted.broken == {1: "torn"}


EXTRACTION = """
import functools, itertools, os, signal, sys, threading
from data_prep import camvid, camvid_frames, camvid_source, extraction
from tests.made.small_camvid import SPLITS

camvid_source._SPLITS = SPLITS
told_to_stop = threading.Event()
camvid_frames.Watch = functools.partial(extraction.Watch, stop=told_to_stop)
write, count = extraction.write_frame, itertools.count()

def write_three(path, frame):
    number = next(count)
    if number == 3:
        signal.pthread_kill(threading.get_ident(), int(os.environ["SIGNAL"]))
    if number >= 3:
        told_to_stop.wait()
    write(path, frame)

extraction.write_frame = write_three
camvid.main(sys.argv[1:])
"""
"""Begins three frames; the next one's thread takes a signal, and none goes on before it is told.

The main thread waits meanwhile: which thread of a process takes a signal is the system's choice.
"""


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_extraction_goes_on_and_damages_nothing(source, signalled, monkeypatch):
    monkeypatch.setenv("SIGNAL", str(int(signalled)))
    frames_dir = source.parent / "out" / "frames"
    first_numbers = {video.file: number for video, number in FIRST_NUMBERS.items()}
    arguments = [f"--source={source}", f"--out={source.parent / 'out'}", "--splits=train"]
    with processes.started([sys.executable, "-c", EXTRACTION, *arguments]) as process:
        _, message = process.communicate(timeout=processes.SECONDS)
    if signalled != signal.SIGKILL:
        assert message.endswith("Stopped. The same command goes on from here.\n")
        assert "Traceback" not in message
    kept = {path: path.stat().st_mtime_ns for path in frames_dir.glob("*.png")}
    assert 0 < len(kept) < 24
    noted = {
        path.stem: json.loads(path.read_text())["first_number"]
        for path in frames_dir.glob("*.json")
    }
    assert noted and all(noted[name] == first_numbers[name] for name in noted)
    assert prepare(source, "--splits=train") == 0
    assert len(frame_files(source)) == 24
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in frame_files(source):
        video, number = camvid_source.parse_name(name.removesuffix(".png"))
        assert number_of(read_png(frames_dir / name)) == shown(video, number)
