"""Records of version 2, whole clips, are read like those of today."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.formats import write_version_2
from tests.made.small_clips import NoiseClip, damage
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.clips import EncodedClip, EncodedFrame
from tmanet_jax.data.codec import encode_frame, encode_labels
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.videos import find_videos


def write_older(out: Path, clips: list[NoiseClip], frame_stride: int = 1) -> None:
    """Writes the split `train` as version 2 did."""
    write_version_2(out, [encoded(clip) for clip in clips], "train", CITYSCAPES, frame_stride)


def encoded(clip: NoiseClip) -> EncodedClip:
    loaded = clip.load()
    frames = tuple(EncodedFrame(encode_frame(frame), "") for frame in loaded.frames_SxHxWx3)
    labels = encode_labels(loaded.labels_HxW)
    return EncodedClip(clip.id, clip.group, frames, labels, CITYSCAPES.num_classes)


def test_clips_of_version_2_come_back_and_train(tmp_path):
    clips = [NoiseClip(number, group) for number, group in ((5, "clean"), (6, ""), (2, ""))]
    write_older(tmp_path, clips, frame_stride=2)
    source = open_clips(tmp_path, "train")
    assert source.ids == tuple(clip.id for clip in clips) and source.group(0) == "clean"
    assert source.frame_stride == 2
    for index, clip in enumerate(clips):
        read, written = source.read(index, (3, 1)), clip.load()
        np.testing.assert_array_equal(read.frames_SxHxWx3, written.frames_SxHxWx3[[0, 2, 3]])
        np.testing.assert_array_equal(read.labels_HxW, written.labels_HxW)
    assert [video.indices for video in find_videos(source)] == [(2,), (0, 1)]
    sampling = {"num_memory": 2, "memory_range": 3, "batch_size": 2, "seed": 0}
    with train_batches(source, Augmentation((48, 64)), **sampling) as batches:
        assert next(batches).frames.shape == (2, 3, 48, 64, 3)


def test_what_version_2_does_not_hold_is_refused(tmp_path):
    write_older(tmp_path, [NoiseClip(0)], frame_stride=2)
    source = open_clips(tmp_path, "train")
    source.check_memory(3, 3)
    with pytest.raises(UserError, match=r"hold the 6 frames before.*\n.*--memory-range=4"):
        source.check_memory(4, 4)
    with pytest.raises(UserError, match=r"memory frames 2 apart, not 1.*\n.*--frame-stride=1"):
        open_clips(tmp_path, "train", frame_stride=1)


def test_damage_of_version_2_is_named(tmp_path):
    write_older(tmp_path, [NoiseClip(number) for number in range(3)])
    path = damage(source := open_clips(tmp_path, "train"))
    with pytest.raises(UserError, match=rf"Clip noise_00000\d \(record \d of {path}\)"):
        for index in range(3):
            source.read(index, (3, 2, 1))
