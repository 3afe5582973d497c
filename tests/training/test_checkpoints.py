"""Which checkpoints are kept, and what is refused."""

import contextlib
import dataclasses
import functools
import json
import math
import resource
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.made import tiny_runs
from tmanet_jax import settings
from tmanet_jax.checkpoints.damage import Damaged, Newest, damage_of, set_damaged_aside, steps_in
from tmanet_jax.checkpoints.store import BatchStream, Checkpoints
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.errors import UserError
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig, blank_model
from tmanet_jax.parallel.sharding import make_mesh, replicated
from tmanet_jax.training.resume import newest_state
from tmanet_jax.training.setup import initial_state
from tmanet_jax.weights import files
from tmanet_jax.workdir import check_path

MODEL = ModelConfig()
STREAM = BatchStream(
    seed=0,
    batch_size=8,
    num_clips=5,
    memory_range=2,
    augmentation=Augmentation(crop_size=(48, 80)),
    records="some",
)


def state(value: float) -> dict[str, jnp.ndarray]:
    """Large enough for a file of its own."""
    return {"weights": value + jnp.asarray(np.random.default_rng(0).normal(size=5000))}


def save_all(directory: Path, scores: dict[int, float | None]) -> Checkpoints:
    checkpoints = Checkpoints(directory, keep=2, model=MODEL)
    for step, score in scores.items():
        checkpoints.save(step, state(step))
        if score is not None:
            checkpoints.add_score(step, score)
    checkpoints.close()
    return Checkpoints(directory, keep=2, model=MODEL)


def restored(checkpoints: Checkpoints, step: int) -> np.ndarray:
    return np.asarray(checkpoints.restore(step, state(0), replicated(make_mesh()))["weights"])


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {1: 0.3, 2: 0.9, 3: None, 4: 0.5, 5: None, 6: 0.4})
    assert steps_in(tmp_path) == [6, 5, 2]
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (6, 2)


def test_without_scores_the_newest_is_the_best(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {1: None, 2: None, 3: None})
    assert checkpoints.best_step() == 3


def test_the_newest_of_equal_scores_is_the_best(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {1: 0.5, 2: 0.5, 3: 0.2, 4: None})
    assert steps_in(tmp_path) == [4, 3, 2]
    assert checkpoints.best_step() == 2


def test_a_score_that_no_pixel_defines_is_never_the_best(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {1: 0.3, 2: math.nan, 3: 0.2, 4: math.nan, 5: None})
    assert steps_in(tmp_path) == [5, 4, 1]
    assert checkpoints.best_step() == 1


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {7: None})
    np.testing.assert_array_equal(restored(checkpoints, 7), state(7)["weights"])


def test_another_dropout_or_way_to_compute_is_no_other_model(tmp_path: Path) -> None:
    save_all(tmp_path, {1: None})
    model = dataclasses.replace(
        MODEL,
        head=TMAHeadConfig(dropout=0.5),
        dtype="bfloat16",
        precision="highest",
        attention="chunked",
    )
    Checkpoints(tmp_path, keep=2, model=model).restore(1, state(0), replicated(make_mesh()))


def test_another_model_is_refused_by_field(tmp_path: Path) -> None:
    save_all(tmp_path, {1: None})
    model = dataclasses.replace(MODEL, head=TMAHeadConfig(num_memory=4), align_corners=False)
    with pytest.raises(UserError) as refusal:
        Checkpoints(tmp_path, keep=2, model=model).restore(1, state(0), replicated(make_mesh()))
    assert "head.num_memory is 2 there and 4" in str(refusal.value)
    assert "align_corners is True there and False" in str(refusal.value)


KEPT = Path(__file__).parents[1] / "kept" / "checkpoints_of_november_2026.tar.xz"
"""Step 2 of a tiny run, as version 0.1.0 wrote it."""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "checkpoints"


def kept_run(**fields: object) -> settings.Settings:
    names = ("width", "key_channels", "value_channels", "head_channels", "aux_channels")
    small = {f"model__{name}": 2 for name in names}
    return settings.from_config(tiny_runs.config(Path("nowhere"), **small, **fields))


def restored_kept(directory: Path, run: settings.Settings) -> int:
    _, like = initial_state(run, blank_model(run.model), None)
    stream = dataclasses.replace(STREAM, batch_size=2, num_clips=6)
    with contextlib.closing(
        Checkpoints(directory, keep=2, model=run.model, stream=stream)
    ) as checkpoints:
        state = checkpoints.restore(2, like, replicated(make_mesh()))
    assert all(np.abs(leaf).max() > 0 for leaf in state.params.values() if hasattr(leaf, "shape"))
    return int(state.step)


def test_a_checkpoint_of_an_earlier_version_goes_on(kept: Path) -> None:
    assert set_damaged_aside(kept).damaged == ()
    assert restored_kept(kept, kept_run()) == 2
    assert vars(files.read(kept / "2").config)["attention"] == "chunked"


@pytest.mark.parametrize(
    ("field", "other"),
    [("head.scale_scores", {"model__scale_scores": True}), ("backbone.deep_stem", None)],
)
def test_a_field_that_a_checkpoint_does_not_know_had_its_default(
    kept: Path, field: str, other: dict[str, object] | None
) -> None:
    """As after an update of this program that added the field."""
    path = kept / "2" / "model" / "metadata"
    saved = json.loads(path.read_text())
    del saved[field]
    path.write_text(json.dumps(saved))
    assert restored_kept(kept, kept_run()) == 2
    if other is not None:
        with pytest.raises(UserError, match=f"{field} is False there and True"):
            restored_kept(kept, kept_run(**other))


def test_a_moving_average_is_kept_begins_where_there_was_none_and_may_end(kept: Path) -> None:
    equal = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    run, whole = kept_run(ema_decay=0.9), replicated(make_mesh())
    _, initial = initial_state(run, blank_model(run.model), None)
    checkpoints = Checkpoints(kept, keep=2, model=run.model)
    begun = newest_state(checkpoints, 2, initial, whole)
    equal(begun.ema, begun.network)
    average = jax.tree.map(lambda leaf: leaf + 1, begun.network)
    checkpoints.save(3, dataclasses.replace(begun, ema=average))
    checkpoints.wait()
    equal(newest_state(checkpoints, 3, initial, whole).ema, average)
    assert newest_state(checkpoints, 3, dataclasses.replace(initial, ema=None), whole).ema is None
    for step, scored in ((2, begun.network), (3, average)):
        equal(checkpoints.restore_scored(step, begun.network, whole), scored)
    bias = files.read(kept / "3").tensors["decode_head.conv_seg.bias"]
    np.testing.assert_array_equal(bias, average.params["head"]["classifier"]["bias"][...])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole checkpoints of steps 1 and 2, both scored."""
    directory = tmp_path_factory.mktemp("two")
    save_all(directory, {1: 0.3, 2: 0.4}).close()
    return directory


def torn_by(how: str, path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "half":
        path.write_bytes(content[: len(content) // 2])
    elif how == "zeros":
        path.write_bytes(bytes(len(content)))


@pytest.mark.parametrize("how", ["missing", "half", "zeros"])
def test_whichever_file_is_torn_a_checkpoint_is_set_aside_or_restored_as_it_was_saved(
    two: Path, tmp_path: Path, how: str
) -> None:
    found: list[Damaged] = []
    for number, file in enumerate(path for path in (two / "2").rglob("*") if path.is_file()):
        directory = shutil.copytree(two, tmp_path / str(number))
        torn_by(how, directory / file.relative_to(two))
        damaged = set_damaged_aside(directory).damaged
        found += damaged
        checkpoints = Checkpoints(directory, keep=2, model=MODEL)
        step = checkpoints.latest_step()
        assert step == (1 if damaged else 2)
        np.testing.assert_array_equal(restored(checkpoints, step), state(step)["weights"])
        checkpoints.close()
        assert [one.aside for one in damaged] == list(directory.glob("2.damaged"))
    assert len(found) >= 6  # files of JSON, and of arrays


def test_a_single_bit_that_changed_in_an_array_is_found(two: Path, tmp_path: Path) -> None:
    """Wherever it is: the step is set aside, or restored as it was saved."""
    rng = np.random.default_rng(0)
    data = [path for path in (two / "2" / "state").rglob("d/*") if path.stat().st_size > 1000]
    (largest,) = data
    found = 0
    for number in range(12):
        directory = shutil.copytree(two, tmp_path / str(number))
        path = directory / largest.relative_to(two)
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        with contextlib.closing(Checkpoints(directory, keep=2, model=MODEL)) as checkpoints:
            if damage_of(directory / "2") is None:
                np.testing.assert_array_equal(restored(checkpoints, 2), state(2)["weights"])
                continue
            found += 1
            with pytest.raises(UserError, match=r"2 is damaged .*Mode train sets"):
                restored(checkpoints, 2)
    assert found >= 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics/metrics", "[]"),
        ("metrics/metrics", '{"mIoU": "high"}'),
        ("metrics/metrics", "{}"),
        ("state/_METADATA", "null"),
        ("state/_METADATA", '{"tree_metadata": 3}'),
        ("state/_METADATA", '{"tree_metadata": {}}'),
        ("model/metadata", "7"),
        ("checksums/metadata", "[]"),
    ],
)
def test_values_of_other_types_are_told_as_damage(
    two: Path, tmp_path: Path, name: str, content: str
) -> None:
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    (directory / "2" / name).write_text(content)
    with pytest.raises(UserError, match=r"damaged|Damaged are those of steps \[2\]"):
        restored(Checkpoints(directory, keep=2, model=MODEL), 2)
    (damaged,) = set_damaged_aside(directory).damaged
    assert damaged.step == 2


def test_a_torn_array_is_told_by_whoever_reads_it(two: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    for path in (directory / "2" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match=r"2 is damaged .*Mode train sets"):
        restored(Checkpoints(directory, keep=2, model=MODEL), 2)


@pytest.mark.parametrize("name", ["a#1", "100%", "50%20", "a|b", "a b", "a]", "{a},b@2"])
def test_any_other_name_of_a_workdir_will_do(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    check_path(directory)
    save_all(directory, {1: None}).close()
    assert damage_of(directory / "1") is None
    np.testing.assert_array_equal(
        restored(Checkpoints(directory, keep=2, model=MODEL), 1), state(1)["weights"]
    )


@pytest.mark.parametrize("name", ["a[1]", "what?", "*", "a\\b"])
def test_a_workdir_that_is_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"No checkpoints can be kept in .*--workdir"):
        check_path(tmp_path / name / "checkpoints")


def test_a_damaged_step_is_saved_again_and_set_aside_again(two: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    for name in ("2.damaged", "2.damaged-2"):
        (directory / "2" / "model" / "metadata").write_text("{")
        (damaged,) = set_damaged_aside(directory).damaged
        assert damaged.aside == directory / name
        assert all(word in str(damaged) for word in ("step 2", "JSON", name))
        checkpoints = Checkpoints(directory, keep=2, model=MODEL)
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, state(2))
        checkpoints.close()
        assert damage_of(directory / "2") is None


def test_if_none_is_whole_all_stay_where_they_are(two: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    for step in (1, 2):
        (directory / str(step) / "stream" / "metadata").unlink()
    with pytest.raises(UserError, match=r"None of the checkpoints.*step 2: .*step 1: "):
        set_damaged_aside(directory)
    assert steps_in(directory) == [2, 1]
    assert set_damaged_aside(tmp_path / "nothing") == Newest({}, ())


def test_another_stream_of_batches_is_refused_and_not_set_aside(tmp_path: Path) -> None:
    with contextlib.closing(Checkpoints(tmp_path, keep=2, model=MODEL, stream=STREAM)) as one:
        one.save(1, state(1))
    assert set_damaged_aside(tmp_path).damaged == ()
    colours = dataclasses.replace(STREAM.augmentation, photometric="off")
    for changed, words in (
        ({"batch_size": 4}, "batch_size is 8 there and 4"),
        ({"records": "other"}, "records is 'some' there and 'other'"),
        ({"augmentation": colours}, r"augmentation\.photometric is 'frame' there and 'off'"),
    ):
        other = dataclasses.replace(STREAM, **changed)
        with (
            contextlib.closing(Checkpoints(tmp_path, keep=2, model=MODEL, stream=other)) as two,
            pytest.raises(UserError, match=words),
        ):
            restored(two, 1)


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Writing beyond fails, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_with_what_is_safe_and_leaves_earlier_checkpoints_whole(
    two: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    checkpoints = Checkpoints(directory, keep=2, model=MODEL)
    with files_of_at_most(10_000), pytest.raises(UserError) as refusal:
        checkpoints.save(3, state(3))
        checkpoints.wait()
    assert all(
        word in str(refusal.value)
        for word in ("step 3 cannot be written", str(directory), "step: 1, 2.")
    )
    assert set_damaged_aside(directory).damaged == ()
    again = Checkpoints(directory, keep=2, model=MODEL)
    assert again.latest_step() == 2
    np.testing.assert_array_equal(restored(again, 2), state(2)["weights"])
    again.save(3, state(3))
    again.close()
    assert damage_of(directory / "3") is None


def test_a_directory_that_is_removed_meanwhile_is_no_full_disk(two: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two, tmp_path / "run" / "checkpoints")
    checkpoints = Checkpoints(directory, keep=2, model=MODEL)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"next checkpoint cannot be written.*The folder was removed"
    ):
        checkpoints.add_score(2, 0.5)
    with pytest.raises(UserError, match=r"checkpoint cannot be written.*The folder was removed"):
        checkpoints.save(3, state(3))
        checkpoints.wait()


def test_a_damaged_score_of_an_older_checkpoint_is_named(two: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    (directory / "1" / "metrics" / "metrics").write_text("{")
    with pytest.raises(UserError, match=r"cannot be listed.*steps \[1\]: move them away"):
        Checkpoints(directory, keep=2, model=MODEL)


def test_an_older_checkpoint_that_is_half_deleted_hinders_nothing(
    two: Path, tmp_path: Path
) -> None:
    """As a run leaves it that is killed while it makes room."""
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    for name in ("_CHECKPOINT_METADATA", "metrics/metrics", "state/manifest.ocdbt"):
        (directory / "1" / name).unlink()
    assert set_damaged_aside(directory).damaged == ()
    checkpoints = Checkpoints(directory, keep=1, model=MODEL)
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (2, 2)
    checkpoints.save(3, state(3))
    checkpoints.close()
    assert steps_in(directory) == [3, 2]
