"""What a folder of predictions says of itself, when somebody else has written it."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.made.tiny_weights import write_weights
from tmanet_jax.data.classes import CAMVID
from tmanet_jax.errors import UserError
from tmanet_jax.inference.outputs import (
    MANIFEST_FILE,
    Manifest,
    VideoOutput,
    fingerprint_weights,
    open_manifest,
)
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.pictures import legend
from tmanet_jax.video.frames import Frames
from tmanet_jax.video.writer import PartWriter
from tmanet_jax.weights import files

WANTED = Manifest("drive.mp4", "ab", "whole", problems=((3, "torn"),))


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    written = dataclasses.replace(WANTED, is_video_whole=True)
    written.write(tmp_path)
    assert open_manifest(tmp_path, WANTED, tmp_path / MANIFEST_FILE) == written


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**dataclasses.asdict(WANTED), "is_video_whole": "no"}),
        json.dumps({**dataclasses.asdict(WANTED), "is_video_whole": 1}),
        json.dumps({**dataclasses.asdict(WANTED), "problems": [[3]]}),
        json.dumps({**dataclasses.asdict(WANTED), "how": None}),
        json.dumps({**dataclasses.asdict(WANTED), "tentacles": 8}),
        json.dumps({"input": "drive.mp4"}),
        "[" * 5000,
        "null",
        "",
    ],
)
def test_a_damaged_manifest_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(UserError, match=r"predict\.json.*Delete the folder, and predict again"):
        open_manifest(tmp_path, WANTED, tmp_path / MANIFEST_FILE)


def test_a_manifest_of_anything_else_is_told_in_short(tmp_path: Path) -> None:
    dataclasses.replace(WANTED, checkpoint="x" * 100_000).write(tmp_path)
    with pytest.raises(UserError, match="other weights") as refusal:
        open_manifest(tmp_path, WANTED, tmp_path / MANIFEST_FILE)
    assert len(str(refusal.value)) < 1000


def test_another_up_sampling_of_the_same_tensors_is_another_network(tmp_path: Path) -> None:
    said = write_weights(tmp_path / "said.safetensors")
    other = write_weights(tmp_path / "other.safetensors", classes=None)
    assert fingerprint_weights(said) == fingerprint_weights(other)
    unsaid = tmp_path / "unsaid.safetensors"
    safetensors.numpy.save_file(files.read(said).tensors, unsaid)
    prints = {fingerprint_weights(unsaid, align_corners) for align_corners in (False, True)}
    assert len(prints) == 2
    assert fingerprint_weights(said) in prints


def test_weights_that_are_no_file_are_none_of_an_older_folder(tmp_path: Path) -> None:
    Manifest("frames", "0" * 64, "whole").write(tmp_path)
    wanted = Manifest("frames", "tensors 1", "whole")
    with pytest.raises(UserError, match="predictions of other weights"):
        open_manifest(tmp_path, wanted, tmp_path)


def test_another_precision_is_told_and_a_folder_that_names_none_goes_on(tmp_path: Path) -> None:
    older = Manifest("frames", "tensors 1", "whole, float32")
    older.write(tmp_path)
    how = "whole, float32, precision {}, attention auto"
    wanted = dataclasses.replace(older, how=how.format("default"))
    assert open_manifest(tmp_path, wanted, tmp_path) == wanted
    wanted.write(tmp_path)
    other = dataclasses.replace(older, how=how.format("highest"))
    with pytest.raises(UserError, match=r"other settings.*precision default.*precision highest"):
        open_manifest(tmp_path, other, tmp_path)


def test_a_video_s_legend_shows_faintly_what_a_frame_does_not_and_keeps_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: list[np.ndarray] = []
    monkeypatch.setattr(PartWriter, "write", lambda self, picture, pts: pictures.append(picture))
    frames = Frames(iter(()), rate=Fraction(10), time_base=Fraction(1, 10), expected=None)
    video = VideoOutput(tmp_path, CAMVID, frames, size_of_first=lambda: None, keeps_sound=False)
    for shown in (0, 1):
        labels_HxW = np.full((64, 512), shown, np.uint8)
        labels_HxW[0, :3] = 5  # a few pixels would only flicker
        frame_HxWx3 = np.zeros((64, 512, 3), np.uint8)
        video.write(FrameResult(shown, shown, 0.0, frame_HxWx3, labels_HxW, None, CAMVID, None))
    every = range(CAMVID.num_classes)
    for shown, picture in enumerate(pictures):
        expected = legend(every, CAMVID, 512, {*every} - {shown})
        np.testing.assert_array_equal(picture[64:], expected)
        assert np.abs(legend(every, CAMVID, 512).astype(int) - expected).max() > 100
