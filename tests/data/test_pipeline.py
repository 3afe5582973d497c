"""Batches and evaluation clips: contents, order, seeds, worker processes, damage."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.records.writer import write_records
from tests.made.small_clips import NoiseClip, damage, plan_of, write_noise
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.pipeline import eval_clips, train_batches
from tmanet_jax.data.records import open_clips
from tmanet_jax.data.samples import Batch, empty_batch
from tmanet_jax.errors import UserError

NUM_CLIPS = 7
AUGMENTATION = Augmentation(crop_size=(48, 64))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("records"), NUM_CLIPS)


def batches(source, augmentation=AUGMENTATION, **options):
    defaults = {"num_memory": 2, "memory_range": 3, "batch_size": 4, "seed": 5}
    return train_batches(source, augmentation, **(defaults | options))


def take(count, source, augmentation=AUGMENTATION, **options):
    with batches(source, augmentation, **options) as iterator:
        return [Batch(*map(np.array, next(iterator))) for _ in range(count)]


def assert_equal(left, right):
    assert len(left) == len(right)
    for batch, other in zip(left, right, strict=True):
        for array, other_array in zip(batch, other, strict=True):
            assert array.dtype == other_array.dtype
            np.testing.assert_array_equal(array, other_array)


def test_a_batch_has_the_shapes_it_promises(source):
    (batch,) = take(1, source)
    assert batch.frames.shape == (4, 3, 48, 64, 3)
    assert batch.labels.shape == (4, 48, 64)
    assert batch.sizes.shape == (4, 2)
    assert batch.indices.shape == (4,)
    dtypes = [array.dtype for array in batch]
    assert dtypes == [np.uint8, np.uint8, np.int32, np.int64]


def test_without_augmentation_a_batch_holds_the_clips_themselves(source):
    plain = Augmentation((80, 110), (1.0, 1.0), flip_probability=0.0, photometric="off")
    (batch,) = take(1, source, plain, memory_range=2)
    for frames, labels, size, index in zip(*batch, strict=True):
        clip = NoiseClip(int(index)).load()
        np.testing.assert_array_equal(size, (70, 100))
        np.testing.assert_array_equal(frames[:, :70, :100], clip.frames_SxHxWx3[1:])
        np.testing.assert_array_equal(labels[:70, :100], clip.labels_HxW)
        assert not frames[:, 70:].any()
        assert not frames[:, :, 100:].any()
        assert np.all(labels[70:] == 255)
        assert np.all(labels[:, 100:] == 255)


def test_all_frames_and_the_labels_share_one_geometry(tmp_path):
    size = (60, 90)
    labels = np.random.default_rng(0).integers(0, 19, size, np.uint8)

    class PaintedClip(NoiseClip):
        def load(self):
            clip = super().load()
            clip.frames_SxHxWx3[:] = labels[..., None]
            clip.labels_HxW[:] = labels
            return clip

    plans = {"train": plan_of([PaintedClip(0, size=size)])}
    write_records(tmp_path, CITYSCAPES, 3, plans)
    plain = Augmentation((32, 32), (1.0, 1.0), flip_probability=0.5, photometric="off")
    for batch in take(4, open_clips(tmp_path, "train"), plain):
        for frames, cropped in zip(batch.frames, batch.labels, strict=True):
            np.testing.assert_array_equal(
                frames, np.broadcast_to(cropped[None, ..., None], (3, 32, 32, 3))
            )


def test_every_epoch_shows_each_clip_once_in_another_order(source):
    indices = np.concatenate([batch.indices for batch in take(14, source, batch_size=2)])
    epochs = indices.reshape(-1, NUM_CLIPS)
    assert all(sorted(epoch) == list(range(NUM_CLIPS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_clip_is_augmented_anew_each_time(source):
    seen = [frames.tobytes() for batch in take(7, source) for frames in batch.frames]
    assert len(set(seen)) == len(seen)


def test_a_seed_is_a_stream_and_another_seed_another(source):
    assert_equal(take(3, source, seed=1), take(3, source, seed=1))
    assert not np.array_equal(take(1, source, seed=1)[0].frames, take(1, source, seed=2)[0].frames)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_nothing(source, num_threads):
    expected = take(5, source, num_threads=2)
    assert_equal(take(4, source, start_step=1, num_threads=num_threads), expected[1:])


def test_two_processes_together_see_what_one_sees(source):
    parts = [take(3, source, start_step=1, part_index=index, part_count=2) for index in range(2)]
    together = [
        Batch(*(np.concatenate(arrays) for arrays in zip(*pair, strict=True)))
        for pair in zip(*parts, strict=True)
    ]
    assert_equal(together, take(4, source)[1:])


def test_two_processes_together_see_each_clip_once_an_epoch(source):
    parts = [
        take(NUM_CLIPS, source, batch_size=2, part_index=index, part_count=2) for index in range(2)
    ]
    pairs = zip(*parts, strict=True)
    indices = np.concatenate([batch.indices for pair in pairs for batch in pair])
    for epoch in indices.reshape(2, NUM_CLIPS):
        assert sorted(epoch) == list(range(NUM_CLIPS))


def test_memory_frames_are_drawn_anew_each_time_from_the_whole_range(tmp_path):
    class NumberedClip(NoiseClip):
        """Each frame's pixels are how many frames it lies before the query."""

        def load(self):
            clip = super().load()
            clip.frames_SxHxWx3[:] = np.arange(3, -1, -1)[:, None, None, None]
            return clip

    plans = {"train": plan_of([NumberedClip(0)])}
    write_records(tmp_path, CITYSCAPES, 3, plans)
    plain = Augmentation((32, 32), (1.0, 1.0), photometric="off")
    epochs = take(30, open_clips(tmp_path, "train"), plain, batch_size=1)
    offsets = [tuple(batch.frames[0, :, 0, 0, 0].tolist()) for batch in epochs]
    assert set(offsets) == {(3, 2, 0), (3, 1, 0), (2, 1, 0)}  # oldest first, the query last


def test_a_batch_may_be_larger_than_the_data_set(source):
    (batch,) = take(1, source, batch_size=3 * NUM_CLIPS)
    assert np.bincount(batch.indices).tolist() == [3] * NUM_CLIPS


def test_a_batch_may_be_one_clip(source):
    assert len(take(NUM_CLIPS + 1, source, batch_size=1)) == NUM_CLIPS + 1


def test_a_network_without_memory_gets_the_query_alone(source):
    plain = Augmentation((70, 100), (1.0, 1.0), flip_probability=0.0, photometric="off")
    (batch,) = take(1, source, plain, num_memory=0, memory_range=0)
    expected = [NoiseClip(int(index)).load().frames_SxHxWx3[-1:] for index in batch.indices]
    np.testing.assert_array_equal(batch.frames, expected)


def test_a_batch_that_processes_do_not_divide_is_refused(source):
    with pytest.raises(UserError, match="batch of 4 clips cannot be divided among 3"):
        batches(source, part_count=3)


def test_more_memory_than_the_records_hold_is_refused(source):
    with pytest.raises(UserError, match="--memory-range=4"):
        batches(source, memory_range=4)
    with pytest.raises(UserError, match="--memory-range=4"):
        eval_clips(source, num_memory=4)


def test_clips_without_labels_are_not_trained_on(tmp_path):
    write_records(tmp_path, CITYSCAPES, 3, {"test": plan_of([NoiseClip(0)], labelled=False)})
    with pytest.raises(UserError, match=r"'test' of .* has no labels"):
        batches(open_clips(tmp_path, "test"))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damage_found_by_a_worker_is_told_as_it_is(tmp_path, num_workers):
    source = write_noise(tmp_path, NUM_CLIPS)
    path = damage(source)
    with pytest.raises(UserError, match=rf"^Clip noise_00000\d \(record \d+ of {path}\) cannot"):
        take(NUM_CLIPS, source, num_workers=num_workers)


def test_evaluation_sees_whole_clips_in_order_with_the_newest_memory(source):
    clips = list(eval_clips(source, num_memory=2))
    assert [clip.id for clip in clips] == [NoiseClip(number).id for number in range(NUM_CLIPS)]
    for number, clip in enumerate(clips):
        expected = NoiseClip(number).load()
        np.testing.assert_array_equal(clip.frames_SxHxWx3, expected.frames_SxHxWx3[1:])
        np.testing.assert_array_equal(clip.labels_HxW, expected.labels_HxW)


@pytest.mark.parametrize("process_count", [1, 2, 3, NUM_CLIPS + 2])
def test_processes_evaluate_each_clip_once(source, process_count):
    ids = [
        clip.id
        for process_index in range(process_count)
        for clip in eval_clips(
            source, num_memory=1, process_index=process_index, process_count=process_count
        )
    ]
    assert sorted(ids) == [NoiseClip(number).id for number in range(NUM_CLIPS)]


def wait_until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_first_batch_is_made_before_it_is_asked_for(source, monkeypatch):
    begun = threading.Event()

    def begin(*shape):
        begun.set()
        return empty_batch(*shape)

    monkeypatch.setattr("tmanet_jax.data.pipeline.empty_batch", begin)
    with batches(source):
        assert begun.wait(15)


def test_closing_ends_the_workers(source):
    with batches(source, num_workers=1) as iterator:
        next(iterator)
        workers = multiprocessing.active_children()
        assert workers
    wait_until(lambda: not any(worker.is_alive() for worker in workers))


def test_workers_change_nothing_and_a_killed_one_is_an_error_not_a_hang(source):
    with batches(source, num_workers=2, num_threads=2, start_step=1) as iterator:
        taken = [Batch(*map(np.array, next(iterator))) for _ in range(4)]
        multiprocessing.active_children()[0].kill()
        with pytest.raises(UserError, match=r"has died: .*exit code -9.*num_workers"):
            for _ in range(20):
                next(iterator)
    assert_equal(taken, take(5, source)[1:])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_workers_die_with_their_parent(source, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, os, signal
            from tmanet_jax.data.pipeline import train_batches
            from tmanet_jax.data.records import open_clips
            from tmanet_jax.data.augment import Augmentation

            if __name__ == "__main__":
                batches = train_batches(
                    open_clips({str(source.data_dir)!r}, "train"), Augmentation((48, 64)),
                    num_memory=1, memory_range=1, batch_size=2, seed=0, num_workers=1,
                )
                next(batches)
                print(multiprocessing.active_children()[0].pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    parent = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    assert parent.returncode == -signal.SIGKILL
    wait_until(lambda: not is_running(int(parent.stdout)))
