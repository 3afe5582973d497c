"""Which checkpoints are kept, and what is refused."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tmanet_jax.checkpoints import Checkpoints
from tmanet_jax.errors import UserError
from tmanet_jax.models.heads import HeadConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.sharding import make_mesh, replicated

MODEL = ModelConfig()


def state(value: float) -> dict[str, jnp.ndarray]:
    return {"weights": jnp.full(3, value)}


def save_all(directory: Path, scores: dict[int, float | None]) -> Checkpoints:
    checkpoints = Checkpoints(directory, keep=2, model=MODEL)
    for step, score in scores.items():
        checkpoints.save(step, state(step))
        if score is not None:
            checkpoints.add_score(step, score)
    checkpoints.close()
    return Checkpoints(directory, keep=2, model=MODEL)


def steps(directory: Path) -> set[int]:
    return {int(path.name) for path in directory.iterdir() if path.name.isdigit()}


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {1: 0.3, 2: 0.9, 3: None, 4: 0.5, 5: None, 6: 0.4})
    assert steps(tmp_path) == {2, 5, 6}
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (6, 2)


def test_without_scores_the_newest_is_the_best(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {1: None, 2: None, 3: None})
    assert checkpoints.best_step() == 3


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    checkpoints = save_all(tmp_path, {7: None})
    restored = checkpoints.restore(7, state(0), replicated(make_mesh()))
    np.testing.assert_array_equal(restored["weights"], [7.0, 7.0, 7.0])


def test_another_dropout_is_no_other_model(tmp_path: Path) -> None:
    save_all(tmp_path, {1: None})
    model = dataclasses.replace(MODEL, head=HeadConfig(dropout=0.5), dtype="bfloat16")
    Checkpoints(tmp_path, keep=2, model=model).restore(1, state(0), replicated(make_mesh()))


def test_another_model_is_refused_by_field(tmp_path: Path) -> None:
    save_all(tmp_path, {1: None})
    model = dataclasses.replace(MODEL, head=HeadConfig(num_memory=4), align_corners=False)
    with pytest.raises(UserError) as refusal:
        Checkpoints(tmp_path, keep=2, model=model).restore(1, state(0), replicated(make_mesh()))
    assert "head.num_memory is 2 there and 4" in str(refusal.value)
    assert "align_corners is True there and False" in str(refusal.value)
