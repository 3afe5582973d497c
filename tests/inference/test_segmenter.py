"""Three lines from any source of frames to labels; threads end, and memory does not grow."""

import dataclasses
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from flax import nnx

import tmanet_jax
from tests.made.small_videos import numbered, packet_positions, write_video
from tests.made.tiny_weights import CLASSES, write_weights
from tests.models.test_tmanet import small_config, trained
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError
from tmanet_jax.inference.engine import Computation
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.segmenter import Segmenter, ahead
from tmanet_jax.protocol import Protocol

SIZE = (36, 48)
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Segmenter:
    return tmanet_jax.Segmenter.load(weights)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [numbered(number, SIZE) for number in range(12)]


@pytest.fixture(scope="module")
def results(segmenter: Segmenter, frames: list[np.ndarray]) -> list[FrameResult]:
    return list(segmenter.stream(frames))


def assert_same(result: FrameResult, expected: FrameResult) -> None:
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)


def test_another_device_computes_a_copy_and_as_many_videos_as_gain_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trained(small_config())
    segmenter = Segmenter(model, CLASSES, computation=Computation(device="cpu"))
    assert not any(leaf.committed for leaf in jax.tree.leaves(nnx.state(model)))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert segmenter.videos_at_once == 1
    assert Segmenter(model, CLASSES).videos_at_once > 1


def test_a_result_has_what_it_promises(
    results: list[FrameResult], frames: list[np.ndarray]
) -> None:
    assert [result.index for result in results] == list(range(len(frames)))
    for result, frame in zip(results, frames, strict=True):
        np.testing.assert_array_equal(result.frame, frame)
        assert result.problem is None
        assert (result.labels.shape, result.labels.dtype) == (SIZE, np.uint8)
        assert (result.overlay.shape, result.overlay.dtype) == ((*SIZE, 3), np.uint8)
        probabilities = result.probabilities
        assert (probabilities.shape, probabilities.dtype) == ((*SIZE, 5), np.float32)
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(probabilities.argmax(-1), result.labels)
    assert len({result.labels.tobytes() for result in results}) > 1


@pytest.mark.parametrize("wanted", [{0}, {1, 2}, {3, 4, 5, 11}, {2, 9}])
def test_results_do_not_depend_on_which_are_wanted(
    segmenter: Segmenter, frames: list[np.ndarray], results: list[FrameResult], wanted: set[int]
) -> None:
    some = list(segmenter.stream(frames, wanted=wanted.__contains__))
    assert {result.index for result in some} == wanted
    for result in some:
        assert_same(result, results[result.index])


def test_folder_and_glob_in_natural_order_and_any_iterable(
    segmenter: Segmenter, frames: list[np.ndarray], results: list[FrameResult], tmp_path: Path
) -> None:
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"street{number}.png"), frame[:, :, ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    for source in (tmp_path, f"{tmp_path}/street*.png", iter(frames)):
        found = list(segmenter.stream(source))
        assert len(found) == len(results)
        assert_same(found[-1], results[-1])


def test_an_array_may_be_filled_again(
    segmenter: Segmenter, frames: list[np.ndarray], results: list[FrameResult]
) -> None:
    def refilled() -> Iterator[np.ndarray]:
        array = np.empty_like(frames[0])
        for frame in frames:
            array[:] = frame
            yield array

    for result, expected in zip(segmenter.stream(refilled()), results, strict=True):
        np.testing.assert_array_equal(result.frame, expected.frame)
        assert_same(result, expected)


def test_a_video_is_read_with_its_times(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mp4", map(numbered, range(5)), "libx264", rate=10)
    found = list(segmenter.stream(path))
    np.testing.assert_allclose([result.seconds for result in found], np.arange(5) / 10, atol=1e-6)


def test_a_camera_is_a_source(
    segmenter: Segmenter,
    frames: list[np.ndarray],
    results: list[FrameResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Camera:
        def __init__(self, number: int):
            self.frames = iter(frames if number == 0 else [])
            self.is_there = number == 0

        def isOpened(self) -> bool:  # noqa: N802, OpenCV's name
            return self.is_there

        def get(self, _: int) -> float:
            return 30.0

        def read(self) -> tuple[bool, np.ndarray | None]:
            frame = next(self.frames, None)
            return frame is not None, None if frame is None else frame[:, :, ::-1]

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    found = list(segmenter.stream(0))
    assert_same(found[-1], results[-1])
    with pytest.raises(UserError, match="Camera 1 cannot be opened"):
        list(segmenter.stream(1))


def test_where_frames_change_their_size_the_memory_starts_anew(
    segmenter: Segmenter, frames: list[np.ndarray], results: list[FrameResult]
) -> None:
    portrait = [np.ascontiguousarray(frame.transpose(1, 0, 2)) for frame in frames[:3]]
    found = list(segmenter.stream([*portrait, *frames, *portrait]))
    for result, expected in zip(found[3:-3], results, strict=True):
        assert_same(result, expected)
    assert_same(found[-1], found[2])
    wanted = [3 + 1, 3 + 11, 3 + 12]
    for result in segmenter.stream([*portrait, *frames, *portrait], wanted=wanted.__contains__):
        assert_same(result, found[result.index])


def broken_pictures(folder: Path, frames: list[np.ndarray], broken: set[int]) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), frame[:, :, ::-1])
        if number in broken:
            path.write_bytes(b"torn")
    return folder


def test_a_broken_frame_repeats_the_one_before_and_does_not_enter_the_memory(
    segmenter: Segmenter, frames: list[np.ndarray], tmp_path: Path
) -> None:
    whole = [frame for number, frame in enumerate(frames) if number not in (4, 5)]
    expected = list(segmenter.stream(whole))
    source = broken_pictures(tmp_path / "frames", frames, {4, 5})
    found = list(segmenter.stream(source))
    assert [result.index for result in found if result.problem] == [4, 5]
    np.testing.assert_array_equal(found[5].labels, expected[3].labels)
    np.testing.assert_array_equal(found[5].frame, frames[3])
    with pytest.raises(ValueError, match="frame 5 is broken"):
        _ = found[5].probabilities
    assert_same(found[6], expected[4])
    for wanted in (5, 6):
        (alone,) = segmenter.stream(source, wanted=wanted.__eq__)
        np.testing.assert_array_equal(alone.labels, found[wanted].labels)


def test_before_the_first_whole_frame_labels_are_unknown(
    segmenter: Segmenter, frames: list[np.ndarray], tmp_path: Path
) -> None:
    source = broken_pictures(tmp_path / "a", frames[:4], {0, 1})
    found = list(segmenter.stream(source))
    assert [result.index for result in found] == [0, 1, 2, 3]
    assert (found[0].labels == IGNORE).all()
    for wanted in ({0}, {1, 3}):
        some = list(segmenter.stream(source, wanted=wanted.__contains__))
        assert {result.index for result in some} == wanted
        for result in some:
            np.testing.assert_array_equal(result.labels, found[result.index].labels)
    with pytest.raises(UserError, match="Not one frame can be read: 0"):
        list(segmenter.stream(broken_pictures(tmp_path / "b", frames[:2], {0, 1})))


def test_one_frame_no_frame_and_what_is_no_frame(
    segmenter: Segmenter, frames: list[np.ndarray], results: list[FrameResult], tmp_path: Path
) -> None:
    (alone,) = segmenter.stream(frames[:1])
    assert_same(alone, results[0])
    assert list(segmenter.stream([])) == []
    with pytest.raises(UserError, match="uint8"):
        list(segmenter.stream([frames[0].astype(float)]))
    with pytest.raises(UserError, match="nothing to segment"):
        list(segmenter.stream(tmp_path))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UserError, match=r"empty\.mp4 is empty"):
        list(segmenter.stream(tmp_path / "empty.mp4"))


def test_a_torn_video_gives_what_can_be_read(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "torn.mp4",
        map(numbered, range(10)),
        "libx264",
        options={"bf": "0"},
        container_options={"movflags": "faststart"},
    )
    start, size = packet_positions(path)[6]
    path.write_bytes(path.read_bytes()[: start + size // 2])
    found = list(segmenter.stream(path))
    assert [result.index for result in found if result.problem is None][:6] == list(range(6))
    assert any(result.problem for result in found[6:])


def settle(condition: Callable[[], bool]) -> bool:
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_closing_early_ends_the_threads(segmenter: Segmenter) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield numbered(0, SIZE)

    before = threading.active_count()
    stream = segmenter.stream(endless())
    next(stream)
    assert threading.active_count() > before
    stream.close()
    assert settle(lambda: threading.active_count() == before)
    next(segmenter.stream(endless()))  # dropped
    assert settle(lambda: threading.active_count() == before)


def test_errors_of_the_source_surface_after_the_frames_before(
    segmenter: Segmenter, frames: list[np.ndarray]
) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield from frames[:3]
        raise RuntimeError("the disk is gone")

    found = []
    with pytest.raises(RuntimeError, match="the disk is gone"):
        for result in segmenter.stream(failing()):
            found.append(result.index)
    assert found == [0, 1, 2]


def test_no_more_than_depth_items_are_made_ahead() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    stream = ahead(items(), 3)
    next(stream)
    time.sleep(0.3)
    assert len(made) <= 4
    stream.close()


def test_frames_are_decoded_while_the_network_compiles(
    segmenter: Segmenter,
    frames: list[np.ndarray],
    results: list[FrameResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_decoded, step = threading.Event(), segmenter._network.step

    def first_step(*args: Any) -> Any:
        assert is_decoded.wait(60)
        return step(*args)

    def decoding() -> Iterator[np.ndarray]:
        yield from frames[:3]
        is_decoded.set()
        yield frames[3]

    monkeypatch.setattr(segmenter._network, "step", first_step)
    for result, expected in zip(segmenter.stream(decoding()), results[:4], strict=True):
        assert_same(result, expected)


def test_windows_and_memory_stride_are_options(
    weights: Path, frames: list[np.ndarray], results: list[FrameResult]
) -> None:
    options = Segmenter.load(
        weights, mode="slide", crop_size=(32, 32), stride=(16, 16), memory_stride=2
    )
    found = list(options.stream(frames[:4]))
    assert found[0].labels.shape == SIZE
    assert not np.array_equal(found[3].probabilities, results[3].probabilities)
    for wrong in (
        {"mode": "tiles"},
        {"memory_stride": 0},
        {"stride": (800, 800)},
        {"precision": "f8"},
        {"precision": "int8"},
        {"calibrate": frames},
        {"device": "abacus"},
        {"products": "TF32"},
        {"attention": "x"},
    ):
        with pytest.raises(UserError):
            Segmenter.load(weights, **wrong)


def test_frames_are_segmented_as_the_weights_were_scored_unless_told_otherwise(
    tmp_path: Path, frames: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    path, big = tmp_path / "tmanet.safetensors", [frame.repeat(2, axis=0) for frame in frames[:3]]
    protocol = Protocol("slide", (24, 32), (16, 24), memory_stride=2, train_height=36)
    write_weights(path, protocol=protocol)
    by_default = Segmenter.load(path)
    assert by_default.protocol == protocol
    assert Segmenter.load(path, mode="whole", scale=0.5).protocol == dataclasses.replace(
        protocol, mode="whole", scale=0.5
    )
    by_name = Segmenter.load(
        write_weights(tmp_path / "old.safetensors"),
        mode="slide",
        crop_size=(24, 32),
        stride=(16, 24),
        scale=(36, 24),
        memory_stride=2,
    )
    for result, expected in zip(by_default.stream(big), by_name.stream(big), strict=True):
        assert result.labels.shape == big[0].shape[:2]
        assert_same(result, expected)
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert "72x48 pixels are resized to 36x24" in line


def test_what_names_no_weights_is_told() -> None:
    with pytest.raises(UserError, match="path is None: name a file of weights"):
        Segmenter.load(None)  # type: ignore[arg-type]


MEMORY = """
import resource, sys
import numpy as np
import tmanet_jax

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

rng = np.random.default_rng(0)
frames = (rng.integers(0, 256, (96, 192, 3), np.uint8) for _ in range(580))
sizes = [rss() for result in tmanet_jax.Segmenter.load(sys.argv[1]).stream(frames)]
print(max(sizes[-20:]) - max(sizes[60:80]), len(sizes))
"""


def test_memory_is_flat_over_500_frames(weights: Path) -> None:
    """Keeping one frame (55 kB) a step would make 27 MB of it."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(weights)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    growth, count = map(int, done.stdout.split())
    assert count == 580
    assert growth < 10e6
