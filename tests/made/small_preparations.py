"""Preparations of seven clips of noise, in several starts."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from data_prep.records.writer import write_records
from tests.made.small_clips import NoiseClip, plan_of
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError

UNFINISHED = ".unfinished-records"
NUM_CLIPS = 7


@dataclass(frozen=True)
class CountedClip(NoiseClip):
    """Notes that it was loaded; cannot be loaded if it is bad."""

    loaded: list = dataclasses.field(default_factory=list, compare=False)
    error: Exception | None = None

    def load(self):
        self.loaded.append(self.number)
        if self.error is not None:
            raise self.error
        return super().load()


TORN = UserError("frame.png is torn")


def clips(bad=(), error=TORN, **fields):
    loaded: list[int] = []
    made = [
        CountedClip(number, error=error if number in bad else None, loaded=loaded, **fields)
        for number in range(NUM_CLIPS)
    ]
    return made, loaded


def write(out, made, classes=CITYSCAPES, memory_range=3, split="train", **options):
    plans = {split: plan_of(made)}
    return write_records(out, classes, memory_range, plans, **options)


def stopped(out, bad=4):
    """A preparation that stops at a bad clip, with two whole shards of two clips."""
    made, _ = clips(bad=[bad])
    with pytest.raises(UserError, match=r"frame\.png is torn\s.*16 frames are kept"):
        write(out, made)


def assert_whole(out, numbers=range(NUM_CLIPS)):
    source = open_clips(out, "train")
    assert [path.name for path in out.iterdir()] == ["clip_records"]
    assert source.ids == tuple(NoiseClip(number).id for number in numbers)
    for index, number in enumerate(numbers):
        expected, read = NoiseClip(number).load(), source.read(index, (3, 2, 1))
        np.testing.assert_array_equal(read.frames_SxHxWx3, expected.frames_SxHxWx3)
        np.testing.assert_array_equal(read.labels_HxW, expected.labels_HxW)
