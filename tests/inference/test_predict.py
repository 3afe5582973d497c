"""`run.py predict`: what it writes, what it refuses, and that stopping it leaves no trace."""

import contextlib
import functools
import signal
import struct
import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from tests import processes
from tests.made.small_predictions import SIZE, asked, broken_folder, contents, frames_of
from tests.made.small_videos import numbered, packet_positions, write_video
from tests.made.tiny_weights import CLASSES, write_weights
from tmanet_jax.errors import Stopped, UserError
from tmanet_jax.inference import outputs
from tmanet_jax.inference.predict import predict
from tmanet_jax.inference.prediction import Prediction
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.protocol import Protocol
from tmanet_jax.video import writer
from tmanet_jax.video.read import open_video

NUM_FRAMES = 26


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Short parts; and a network is compiled once for all tests."""
    load = functools.cache(Segmenter.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PART_FRAMES", 8)
        patch.setattr(Segmenter, "load", load)
        yield


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = (numbered(number, SIZE) for number in range(NUM_FRAMES))
    return write_video(tmp_path_factory.mktemp("video") / "drive.mp4", frames, "libx264", rate=10)


@pytest.fixture(scope="module")
def once(weights: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that was never stopped."""
    output = tmp_path_factory.mktemp("once")
    predict(asked(weights, video, output))
    return output


def test_every_frame_is_in_every_format(once: Path) -> None:
    names = {f"{number:06d}.png" for number in range(NUM_FRAMES)}
    assert {path.name for path in (once / "labels").iterdir()} == names
    assert {path.name for path in (once / "overlays").iterdir()} == names
    assert {path.name for path in once.iterdir()} == {
        *("overlay.mp4", "overlays", "labels", "predict.json", "run.lock"),
    }
    pictures = frames_of(once / "overlay.mp4")
    assert len(pictures) == NUM_FRAMES
    with av.open(once / "overlay.mp4") as container:
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(10)
    labels = Image.open(once / "labels" / "000007.png")
    assert labels.mode == "P"
    overlay = np.asarray(Image.open(once / "overlays" / "000007.png"))
    assert overlay.shape == (*SIZE, 3)
    painted = CLASSES.paint(np.asarray(labels))
    np.testing.assert_array_equal(np.asarray(labels.convert("RGB")), painted)
    enlarged = overlay.repeat(8, axis=0).repeat(8, axis=1)
    shown = pictures[7][: enlarged.shape[0]].astype(int)
    assert np.abs(shown - enlarged).mean() < 6
    legend = pictures[7][enlarged.shape[0] :]
    assert legend.shape[0] >= 20
    assert (legend.min(-1) > 200).mean() > 0.5


class _CrashError(Exception):
    """The power fails."""


@pytest.mark.parametrize("at", [0, 5, 19])
def test_going_on_gives_the_same_files_and_redoes_nothing(
    weights: Path, video: Path, once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    write = writer.PartWriter.write
    calls = []

    def failing(self: writer.PartWriter, picture: np.ndarray, pts: int) -> None:
        calls.append(pts)
        if len(calls) == at + 1:
            raise _CrashError
        write(self, picture, pts)

    monkeypatch.setattr(writer.PartWriter, "write", failing)
    with pytest.raises(_CrashError):
        predict(asked(weights, video, tmp_path))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "labels").iterdir()}
    calls.clear()
    calls.extend([-1] * 100)
    predict(asked(weights, video, tmp_path))
    assert len(calls) == 100 + NUM_FRAMES - at // 8 * 8
    assert contents(tmp_path) == contents(once)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


@pytest.mark.parametrize("missing", ["labels/000013.png", "overlay.mp4"])
def test_what_is_missing_is_made_again(
    weights: Path, video: Path, once: Path, tmp_path: Path, missing: str
) -> None:
    predict(asked(weights, video, tmp_path, formats=["video", "labels"]))
    (tmp_path / missing).unlink()
    predict(asked(weights, video, tmp_path, formats=["video", "labels"]))
    assert (tmp_path / missing).read_bytes() == (once / missing).read_bytes()


STUCK_AT_250 = """
import runpy, sys, time
from tmanet_jax.workdir import LOCK_FILE, alone_in
from tmanet_jax.inference import outputs

write = outputs.PictureOutput.write

def write_250(output, result):
    if result.index == 250:
        time.sleep(3600)
    write(output, result)

outputs.PictureOutput.write = write_250
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script that never gets further than 250 pictures."""


@pytest.mark.drills
def test_a_killed_process_goes_on(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = (numbered(number, SIZE) for number in range(300))
    source = write_video(tmp_path / "drive.mp4", frames, "libx264")
    words = [
        *("run.py", "predict", "--config=configs/demo.py", "--config.eval.mode=whole"),
        *(f"--checkpoint={weights}", f"--input={source}", f"--output={tmp_path / 'killed'}"),
        "--format=video,labels",
    ]
    labels = tmp_path / "killed" / "labels"
    stuck = [sys.executable, "-c", STUCK_AT_250, *words]
    with processes.started(stuck, tmp_path / "told") as victim:
        processes.wait_until(lambda: len(list(labels.glob("*.png"))) > 150, victim)
    assert not (tmp_path / "killed" / "overlay.mp4").exists()
    monkeypatch.setattr(writer, "PART_FRAMES", 120)  # as the process had it
    for output in ("killed", "whole"):
        predict(asked(weights, source, tmp_path / output, formats=["video", "labels"]))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_broken_frame_is_told_and_the_labels_before_it_are_kept(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = broken_folder(tmp_path / "frames", {4})
    predict(asked(weights, source, tmp_path / "out"))
    assert "Frame 4 at 0.16 s is broken (4.png cannot be read" in capsys.readouterr().out
    labels = tmp_path / "out" / "labels"
    assert (labels / "000004.png").exists() is False  # pictures keep their own names
    assert (labels / "4.png").read_bytes() == (labels / "3.png").read_bytes()
    assert '"4.png cannot be read as a picture"' in (tmp_path / "out" / "predict.json").read_text()
    assert len(frames_of(tmp_path / "out" / "overlay.mp4")) == 8


def test_on_error_stop_saves_what_is_done_and_can_go_on(weights: Path, tmp_path: Path) -> None:
    source = broken_folder(tmp_path / "frames", {4})
    with pytest.raises(UserError, match=r"Frame 4 at .* is broken"):
        predict(asked(weights, source, tmp_path / "out", on_error="stop"))
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 4
    assert len(frames_of(tmp_path / "out" / "overlay.mp4")) == 4
    predict(asked(weights, source, tmp_path / "out"))
    predict(asked(weights, source, tmp_path / "straight"))
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_an_interrupted_prediction_keeps_what_is_done_and_goes_on(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = broken_folder(tmp_path / "frames", set())
    write = outputs.PictureOutput.write

    def interrupted(output: outputs.PictureOutput, result: FrameResult) -> None:
        if result.index == 4:
            with contextlib.suppress(KeyboardInterrupt):  # as during a collection of garbage
                signal.raise_signal(signal.SIGINT)
        write(output, result)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="same command") as told:
        patch.setattr(outputs.PictureOutput, "write", interrupted)
        predict(asked(weights, source, tmp_path / "out", formats=["labels"]))
    assert told.value.status == 130
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 5
    predict(asked(weights, source, tmp_path / "out", formats=["labels"]))
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 8


def test_where_one_file_cannot_be_written_the_others_keep_what_is_done(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = outputs.PictureOutput.write

    def full(output: outputs.PictureOutput, result: FrameResult) -> None:
        if result.index == 4:
            raise OSError("no space")
        write(output, result)

    monkeypatch.setattr(outputs.PictureOutput, "write", full)
    source = broken_folder(tmp_path / "frames", {2})
    with pytest.raises(UserError, match=r"out cannot be written \(no space\)"):
        predict(asked(weights, source, tmp_path / "out", formats=["video", "labels"]))
    assert len(frames_of(tmp_path / "out" / "overlay.mp4")) == 5
    assert '"2.png cannot be read as a picture"' in (tmp_path / "out" / "predict.json").read_text()


def test_pictures_that_are_cut_off_or_claim_to_be_huge_are_broken(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = broken_folder(tmp_path / "frames", set())
    cv2.imwrite(str(source / "3.jpg"), numbered(3, SIZE))
    content = (source / "3.jpg").read_bytes()
    (source / "3.jpg").write_bytes(content[: len(content) // 2])
    (source / "3.png").unlink()
    huge = bytearray((source / "5.png").read_bytes())
    huge[16:24] = struct.pack(">II", 100_000, 100_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    (source / "5.png").write_bytes(huge)
    predict(asked(weights, source, tmp_path / "out", formats=["labels"]))
    told = capsys.readouterr().out
    assert "3.jpg cannot be read" in told and "5.png cannot be read" in told
    assert "8 frames, 2 broken" in told


def test_a_broken_frame_within_a_video(weights: Path, tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "broken.mov",
        (numbered(number, SIZE) for number in range(8)),
        "mjpeg",
        pixel_format="yuvj420p",
    )
    start, size = packet_positions(source)[4]
    content = bytearray(source.read_bytes())
    content[start : start + size] = bytes(size)
    source.write_bytes(content)
    predict(asked(weights, source, tmp_path / "out", formats=["video", "labels"]))
    assert len(frames_of(tmp_path / "out" / "overlay.mp4")) == 8
    labels = contents(tmp_path / "out" / "labels")
    assert labels["000004.png"] == labels["000003.png"]


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("size", "rotation"), [((97, 131), 0), ((64, 48), 0), ((48, 64), 90)])
def test_short_odd_portrait_and_turned_videos(
    weights: Path, tmp_path: Path, frames: int, size: tuple[int, int], rotation: int
) -> None:
    source = write_video(
        tmp_path / "a.mp4",
        (numbered(number, size) for number in range(frames)),
        "libx264",
        pixel_format="yuv444p",
        rotation=rotation,
    )
    predict(asked(weights, source, tmp_path / "out", formats=["video", "labels"]))
    with Image.open(tmp_path / "out" / "labels" / "000000.png") as labels:
        assert labels.size == (size if rotation else size[::-1])
    assert len(frames_of(tmp_path / "out" / "overlay.mp4")) == frames


def test_frames_are_segmented_as_the_weights_were_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol("slide", (24, 32), (16, 24), memory_stride=2, train_height=24)
    path = write_weights(tmp_path / "tmanet.safetensors", protocol=protocol)
    source = broken_folder(tmp_path / "frames", set())
    predict(asked(path, source, tmp_path / "out", formats=["labels"]))
    told = capsys.readouterr().out
    assert "so: slide 24x32 at 16x24, memory stride 2" in told
    assert "the configuration has whole" in told
    for result in Segmenter.load(path).stream(source):
        with Image.open(tmp_path / "out" / "labels" / f"{result.index}.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), result.labels)
    manifest = tmp_path / "out" / "predict.json"
    older = manifest.read_text().replace("24x32 at 16x24", "(24, 32) at (16, 24)")
    older = older.replace(", precision default, attention auto", "")
    assert "(24, 32) at (16, 24)" in older and "precision" not in older
    manifest.write_text(older)
    predict(asked(path, source, tmp_path / "out", formats=["labels"]))
    with pytest.raises(UserError, match=r"other settings.*resized by 0\.5"):
        predict(asked(path, source, tmp_path / "out", formats=["labels"], scale="0.5"))


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2), (1, 1)])
def test_videos_of_odd_shapes(weights: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    frames = [np.zeros((*size, 3), np.uint8)] * 2
    source = write_video(tmp_path / "a.avi", frames, "ffv1", pixel_format="bgr0")
    predict(asked(weights, source, tmp_path / "out", formats=["video"]))
    assert len(frames_of(tmp_path / "out" / "overlay.mp4")) == 2


def test_what_no_video_can_hold_is_told(tmp_path: Path) -> None:
    parts = writer.PartWriter(tmp_path, rate=Fraction(25), time_base=Fraction(1, 25))
    with pytest.raises(UserError, match=r"Frames of 20000x2 pixels .* choose --format=png"):
        parts.write(np.zeros((20000, 2, 3), np.uint8), 0)


def test_variable_frame_rate_is_kept(weights: Path, tmp_path: Path) -> None:
    times = [0, 40, 55, 400, 1000, 1001]
    with av.open(tmp_path / "vfr.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, SIZE))
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    predict(asked(weights, tmp_path / "vfr.mkv", tmp_path / "out", formats=["video"]))
    with open_video(tmp_path / "out" / "overlay.mp4") as video:
        seconds = [frame.seconds for frame in video]
    np.testing.assert_allclose(np.array(seconds, float), np.array(times) / 1000, atol=1.1e-3)


def test_frames_of_changing_size(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, size in enumerate([SIZE, SIZE, SIZE[::-1], SIZE]):
        cv2.imwrite(str(folder / f"{number}.png"), numbered(number, size))
    predict(asked(weights, folder, tmp_path / "out"))
    pictures = frames_of(tmp_path / "out" / "overlay.mp4")
    assert len(pictures) == 4
    assert pictures[2][:100, :80].max() < 30  # fitted between black borders
    with Image.open(tmp_path / "out" / "labels" / "2.png") as labels:
        assert labels.size == SIZE


def test_bad_input_is_told(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "torn.mp4").write_bytes(bytes(1000))
    for source in ("empty.mp4", "torn.mp4", "nothing", "*.jpg"):
        with pytest.raises(UserError, match=r"empty|torn|nothing"):
            predict(asked(weights, tmp_path / source, tmp_path / "out"))
    for folder in ("one", "two"):
        broken_folder(tmp_path / folder, set())
    with pytest.raises(UserError, match=r"Several pictures of .* are called 0.png"):
        predict(asked(weights, tmp_path / "*" / "*.png", tmp_path / "out"))
    with pytest.raises(UserError, match="Camera 99999999999"):
        predict(asked(weights, "99999999999", tmp_path / "out"))
    with pytest.raises(UserError, match="The weights"):
        predict(asked(tmp_path / "no.safetensors", tmp_path / "torn.mp4", tmp_path / "out"))
    for options, message in (
        ({"formats": ["gif"]}, "--format"),
        ({"on_error": "panic"}, "--on-error"),
        ({"sound": "loud"}, "--sound"),
        ({"memory_stride": 0}, "memory_stride"),
        ({"serve": 70000}, "--serve is 70000: choose a port"),
    ):
        with pytest.raises(UserError, match=message):
            asked(weights, "a.mp4", tmp_path / "out", **options)
    for told, output in (((), tmp_path), (("",), tmp_path), (("a.mp4",), None)):
        with pytest.raises(UserError, match="Say what to segment and where to"):
            Prediction(checkpoint=weights, source=told, output=output)
    assert not (tmp_path / "out").exists()
