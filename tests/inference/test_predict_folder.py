"""The folder that `predict` goes on in: of one run, one network, and with nothing damaged."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from tests.made.small_predictions import asked, broken_folder, contents
from tests.made.small_videos import numbered, with_sound, write_video
from tests.made.tiny_weights import write_weights
from tmanet_jax.errors import UserError
from tmanet_jax.inference import outputs
from tmanet_jax.inference.predict import predict
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.parallel import distributed
from tmanet_jax.weights import files
from tmanet_jax.workdir import LOCK_FILE, alone_in


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """A network is compiled once for all tests."""
    load = functools.cache(Segmenter.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "load", load)
        yield


@pytest.mark.parametrize("left", [0, 40, -1], ids=["empty", "header", "cut"])
def test_a_picture_that_is_cut_is_made_again(weights: Path, tmp_path: Path, left: int) -> None:
    source = broken_folder(tmp_path / "frames", set())
    predict(asked(weights, source, tmp_path / "out", formats=["png", "labels"]))
    whole = contents(tmp_path / "out")
    for folder in ("labels", "overlays"):
        path = tmp_path / "out" / folder / "3.png"
        path.write_bytes(path.read_bytes()[:left])
    predict(asked(weights, source, tmp_path / "out", formats=["png", "labels"]))
    assert contents(tmp_path / "out") == whole


def test_the_same_weights_in_other_bytes_go_on_and_others_do_not(
    weights: Path, tmp_path: Path
) -> None:
    source = broken_folder(tmp_path / "frames", set())
    predict(asked(weights, source, tmp_path / "out", formats=["labels"]))
    same = tmp_path / "same.safetensors"
    file = files.read(weights)
    files.write(same, dataclasses.replace(file, classes=None))
    assert same.read_bytes() != weights.read_bytes()
    predict(asked(same, source, tmp_path / "out", formats=["labels"]))
    manifest = tmp_path / "out" / "predict.json"
    fields = json.loads(manifest.read_text())
    fields["checkpoint"] = hashlib.sha256(weights.read_bytes()).hexdigest()  # as it was noted
    manifest.write_text(json.dumps(fields))
    predict(asked(weights, source, tmp_path / "out", formats=["labels"]))
    for wrong in ({"is_video_whole": "yes"}, {"problems": [[1]]}, {"how": 3}, {"extra": 1}):
        manifest.write_text(json.dumps(fields | wrong))
        with pytest.raises(UserError, match=r"predict\.json"):
            predict(asked(weights, source, tmp_path / "out", formats=["labels"]))


def test_one_run_at_a_time_in_a_folder(weights: Path, tmp_path: Path) -> None:
    source = broken_folder(tmp_path / "frames", set())
    (tmp_path / "out").mkdir()
    with (
        alone_in(tmp_path / "out", "--output"),
        pytest.raises(UserError, match=r"Another run is at work in .*another --output"),
    ):
        predict(asked(weights, source, tmp_path / "out", formats=["labels"]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {LOCK_FILE}
    predict(asked(weights, source, tmp_path / "out", formats=["labels"]))


def test_sound_is_kept_unless_it_is_not_wanted(weights: Path, tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.avi", "libmp3lame", video_codec="mpeg4")

    def num_tracks(sound: str) -> int:
        predict(asked(weights, source, tmp_path / "out", formats=["video"], sound=sound))
        with av.open(tmp_path / "out" / outputs.VIDEO_FILE) as container:
            return len(container.streams.audio)

    assert num_tracks("none") == 0
    with pytest.raises(UserError, match=r"was made with --sound=none: delete it"):
        num_tracks("keep")
    (tmp_path / "out" / outputs.VIDEO_FILE).unlink()
    assert num_tracks("keep") == 1


def test_the_output_is_a_folder(weights: Path, tmp_path: Path) -> None:
    for name in ("out.mp4", "out.PNG"):
        with pytest.raises(UserError, match=r"--output=out gets overlay\.mp4"):
            asked(weights, "a.mp4", tmp_path / name)


def test_two_inputs_or_networks_are_never_mixed(weights: Path, tmp_path: Path) -> None:
    predict(asked(weights, broken_folder(tmp_path / "frames", set()), tmp_path / "out"))
    video = write_video(tmp_path / "a.mp4", map(numbered, range(2)), "libx264")
    before = contents(tmp_path / "out")
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(UserError, match="predictions of other input"):
        predict(asked(weights, video, tmp_path / "out"))
    with pytest.raises(UserError, match="predictions of other weights"):
        predict(asked(other, tmp_path / "frames", tmp_path / "out"))
    with pytest.raises(UserError, match="predictions of other settings"):
        predict(asked(weights, tmp_path / "frames", tmp_path / "out", memory_stride=2))
    with pytest.raises(UserError, match=r"predictions of other settings.*precision highest"):
        predict(asked(weights, tmp_path / "frames", tmp_path / "out", precision="highest"))
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "predict.json").unlink()
    with pytest.raises(UserError, match="of nobody knows what"):
        predict(asked(weights, tmp_path / "frames", tmp_path / "out"))
    (tmp_path / "killed" / "segments").mkdir(parents=True)
    with pytest.raises(UserError, match="killed holds segments of nobody knows what"):
        predict(asked(weights, tmp_path / "frames", tmp_path / "killed"))
    (tmp_path / "blocked").mkdir()
    predict(asked(weights, tmp_path / "frames", tmp_path / "blocked", formats=["png"]))
    (tmp_path / "blocked" / "labels").touch()
    with pytest.raises(UserError, match="blocked cannot be written"):
        predict(asked(weights, tmp_path / "frames", tmp_path / "blocked", formats=["labels"]))


def test_processes_share_out_the_inputs_and_tell_all_failures(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [
        write_video(tmp_path / f"{n}.mp4", map(numbered, range(n, n + 2)), "libx264")
        for n in range(3)
    ]
    predict(asked(weights, videos, tmp_path / "alone", formats=["labels"]))
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "exchange", lambda what, text: [text, '["far.mp4"]'])
    for index, folders in enumerate([{"0", "2"}, {"0", "1", "2"}]):
        monkeypatch.setattr(distributed, "index", lambda index=index: index)
        with pytest.raises(UserError, match=r"1 of 3 inputs failed, as told above: far\.mp4"):
            predict(asked(weights, videos, tmp_path / "shared", formats=["labels"]))
        assert {path.name for path in (tmp_path / "shared").iterdir()} == folders
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    with pytest.raises(UserError, match="leave --serve out"):
        predict(asked(weights, videos[0], tmp_path / "shown", serve=0))
