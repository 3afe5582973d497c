"""Several videos at once: each is segmented, and written, as if it were alone."""

import functools
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import in_process
from tests.made.small_predictions import SIZE, asked, broken_folder, contents, frames_of
from tests.made.small_videos import numbered, write_video
from tests.made.tiny_weights import CLASSES
from tests.models.test_tmanet import small_config, trained
from tmanet_jax.errors import UserError
from tmanet_jax.inference import batches
from tmanet_jax.inference.predict import predict
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.segmenter import OpenVideo, Segmenter
from tmanet_jax.protocol import Protocol
from tmanet_jax.video import frames as sources
from tmanet_jax.video import writer

SIZES = ((24, 32), (32, 24))
FLOAT32_ABSOLUTE = 1e-5

frame = st.sampled_from([*SIZES, SIZES[0], SIZES[0], None])
"""Of a size; None: it is broken."""
videos = st.lists(
    st.tuples(st.lists(frame, max_size=9), st.sets(st.integers(0, 8))), min_size=2, max_size=3
)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Short parts; and a network is compiled once for all tests."""
    load = functools.cache(Segmenter.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PIXELS_AT_A_TIME", 1)  # no batch rounds differently
        patch.setattr(writer, "PART_FRAMES", 4)
        patch.setattr(Segmenter, "load", load)
        yield


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(trained(small_config()), CLASSES, Protocol("whole"))


def opened(number: int, sizes: list[tuple[int, int] | None], unwanted: set[int]) -> OpenVideo:
    pictures = [
        "torn" if size is None else numbered(100 * number + index, size)
        for index, size in enumerate(sizes)
    ]
    frames = map(sources.numbered, range(len(pictures)), pictures)
    return OpenVideo(frames, lambda index: index not in unwanted)


def results_of(segmenter: Segmenter, some: list[OpenVideo]) -> list[list[FrameResult | UserError]]:
    found: list[list[FrameResult | UserError]] = [[] for _ in some]
    for number, result in segmenter.segment(some):
        found[number].append(result)
    return found


def assert_same(result: FrameResult | UserError, expected: FrameResult | UserError) -> None:
    """Batches of other sizes round differently: labels are equal but for ties."""
    if isinstance(expected, UserError) or isinstance(result, UserError):
        assert str(result) == str(expected)
        return
    assert (result.index, result.problem) == (expected.index, expected.problem)
    np.testing.assert_array_equal(result.frame, expected.frame)
    assert (result.labels != expected.labels).mean() < 0.01
    if result.problem is None:
        np.testing.assert_allclose(
            result.probabilities, expected.probabilities, rtol=0, atol=FLOAT32_ABSOLUTE
        )


@settings(max_examples=15, deadline=None)
@given(videos, st.sampled_from([10**9, 2 * 24 * 32]))
def test_videos_together_are_as_if_alone(
    segmenter: Segmenter,
    given_videos: list[tuple[list[tuple[int, int] | None], set[int]]],
    pixels: int,
) -> None:
    """Of any lengths, with cuts to another size, broken and unwanted frames."""
    with mock.patch.object(batches, "PIXELS_AT_A_TIME", pixels):
        together = results_of(segmenter, [opened(n, *v) for n, v in enumerate(given_videos)])
    for number, video in enumerate(given_videos):
        (alone,) = results_of(segmenter, [opened(number, *video)])
        for result, expected in zip(together[number], alone, strict=True):
            assert_same(result, expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos a, b, c and d; c is of another size, and d is none."""
    folder = tmp_path_factory.mktemp("videos")
    for name, length, size in (("a", 11, SIZE), ("b", 5, SIZE), ("c", 7, SIZE[::-1])):
        pictures = (numbered(length * index, size) for index in range(length))
        write_video(folder / f"{name}.mp4", pictures, "libx264", rate=10)
    (folder / "d.mp4").write_bytes(bytes(1000))
    return folder


@pytest.fixture(scope="module")
def one_by_one(weights: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("one_by_one")
    for name in "abc":
        predict(asked(weights, folder / f"{name}.mp4", output / name))
    return output


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_several_videos_are_written_as_one_by_one_and_a_broken_one_is_told(
    weights: Path,
    folder: Path,
    one_by_one: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at_once: int,
) -> None:
    monkeypatch.setattr(Segmenter, "videos_at_once", at_once)
    with pytest.raises(UserError, match=r"1 of 4 inputs failed, as told above: .*d\.mp4\."):
        predict(asked(weights, folder / "*.mp4", tmp_path))
    assert contents(tmp_path) == contents(one_by_one)
    told = capsys.readouterr().out
    assert f"d.mp4: {folder}/d.mp4 cannot be opened as a video" in told
    assert all(f"frames, 0 broken: {tmp_path}/{name}" in told for name in "abc")


class _CrashError(Exception):
    """The power fails."""


@pytest.mark.parametrize("at", [3, 9, 17])
def test_several_videos_go_on_where_they_were(
    weights: Path,
    folder: Path,
    one_by_one: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    monkeypatch.setattr(Segmenter, "videos_at_once", 8)
    write, calls = writer.PartWriter.write, []

    def failing(self: writer.PartWriter, picture: np.ndarray, pts: int) -> None:
        calls.append(pts)
        if len(calls) == at:
            raise _CrashError
        write(self, picture, pts)

    monkeypatch.setattr(writer.PartWriter, "write", failing)
    wishes = asked(weights, [folder / f"{name}.mp4" for name in "abc"], tmp_path)
    with pytest.raises(_CrashError):
        predict(wishes)
    predict(wishes)
    assert contents(tmp_path) == contents(one_by_one)
    num_written = len(calls)
    predict(wishes)
    assert len(calls) == num_written


def test_a_broken_frame_stops_its_own_input_alone(
    weights: Path, folder: Path, one_by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "videos_at_once", 8)
    source = broken_folder(tmp_path / "frames", {4})
    wishes = asked(weights, [source, folder / "a.mp4"], tmp_path / "out", on_error="stop")
    with pytest.raises(UserError, match=r"1 of 2 inputs failed, as told above: .*frames\."):
        predict(wishes)
    assert len(list((tmp_path / "out" / "frames" / "labels").iterdir())) == 4
    assert contents(tmp_path / "out" / "a") == contents(one_by_one / "a")


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_size_that_cannot_be_segmented_ends_its_own_input_alone(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at_once: int,
) -> None:
    """Also where whole frames came before it, which are kept."""
    monkeypatch.setattr(Segmenter, "videos_at_once", at_once)
    sources = [broken_folder(tmp_path / name, set()) for name in ("thin", "later", "good")]
    for folder, broken in zip(sources, ({0, 1}, {3}, ()), strict=False):
        for number in broken:
            cv2.imwrite(str(folder / f"{number}.png"), np.zeros((1, 64, 3), np.uint8))
    formats = ["video", "labels"]
    wishes = asked(weights, sources, tmp_path / "out", scale="0.4", formats=formats)
    with pytest.raises(UserError, match=r"2 of 3 inputs failed, as told above: .*thin, .*later\."):
        predict(wishes)
    told = capsys.readouterr().out
    for name in ("thin", "later"):
        assert f"{name}: A frame of 1x64 pixels would be resized" in told
    assert f"8 frames, 0 broken: {tmp_path}/out/good" in told
    written = {path.parts[0] for path in map(Path, contents(tmp_path / "out"))}
    assert written == {"thin", "later", "good"}
    for name, num_frames in (("later", 3), ("good", 8)):
        assert len(list((tmp_path / "out" / name / "labels").iterdir())) == num_frames
        assert len(frames_of(tmp_path / "out" / name / "overlay.mp4")) == num_frames


def test_two_inputs_of_one_name_are_told_before_anything_is_done(
    weights: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / name).touch()
    for inputs in ([folder / "a.mp4", tmp_path / "a.mkv"], [tmp_path / "*.m*"]):
        with pytest.raises(UserError, match=r"a\.m.. and .*a\.m.. would both be written to .*a: r"):
            predict(asked(weights, inputs, tmp_path / "out"))
    several = asked(weights, [tmp_path, "0", "x/*.png"], "out").inputs
    assert [one.output for one in several] == [
        Path("out", name) for name in (tmp_path.name, "0", "x")
    ]


def test_each_input_has_a_folder_of_its_own_below_the_output(tmp_path: Path) -> None:
    folders, videos = ("run.1", "run.2"), ("a[1].mp4", "a[2].mp4")
    for name in folders:
        (tmp_path / name).mkdir()
    for name in videos:
        (tmp_path / name).touch()
    for told, names in (
        ([tmp_path / name for name in folders], folders),
        ([tmp_path / "*.mp4"], ("a[1]", "a[2]")),
        (["/*.png", "0"], ("root", "0")),
    ):
        inputs = asked(tmp_path, told, "out").inputs
        assert [one.output for one in inputs] == [Path("out", name) for name in names]


def test_a_glob_of_one_video_has_a_folder_for_it_and_an_input_alone_has_none(
    weights: Path, folder: Path, one_by_one: Path, tmp_path: Path
) -> None:
    words = ["predict", "--config=configs/demo.py", "--config.eval.mode=whole"]
    words += [f"--checkpoint={weights}", "--format=video,png,labels"]
    done = in_process.called([*words, f"--input={folder}/b*.mp4", f"--output={tmp_path}"])
    assert done.returncode == 0
    assert contents(tmp_path) == {
        name: content for name, content in contents(one_by_one).items() if name[0] == "b"
    }
    missing = [f"--input={folder}/b.mp4", f"--input={folder}/none.mp4", f"--output={tmp_path}"]
    done = in_process.called([*words, *missing])
    assert done.returncode == 2
    assert f"none.mp4: There is nothing to segment at {folder}/none.mp4" in done.stdout
    assert "1 of 2 inputs failed" in done.stderr
