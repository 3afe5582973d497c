import pytest

from tests.made.small_networks import SMALL, build, random_tensors
from tmanet_jax.weights import files
from tmanet_jax.weights.weight_file import WeightFile


@pytest.fixture
def tensors():
    return random_tensors(SMALL, seed=1)


@pytest.fixture
def model():
    return build(SMALL, random_tensors(SMALL, seed=2))


@pytest.fixture
def written(tmp_path, tensors):
    """Writes the tensors, after changes, as a file that says nothing of its network."""

    def write(drop=(), **changes):
        path = tmp_path / "file.safetensors"
        kept = {name: tensor for name, tensor in (tensors | changes).items() if name not in drop}
        files.write(path, WeightFile(kept))
        return path

    return write
