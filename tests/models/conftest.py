from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def nothing_is_promoted() -> Iterator[None]:
    """The network says itself how ranks and types of its arrays become equal."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
