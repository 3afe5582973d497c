from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.made.tiny_weights import write_weights  # when jax has been told its platform

    return write_weights(tmp_path_factory.mktemp("weights") / "tmanet.safetensors")
