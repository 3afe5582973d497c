import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.parity")


def pytest_configure(config: pytest.Config) -> None:
    """All but the group for accelerators runs on the CPU."""
    if not _wants_accelerator(config):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu alone looks for a TPU for minutes


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """An accelerator belongs to one process."""
    return 0 if _wants_accelerator(config) else None


def _wants_accelerator(config: pytest.Config) -> bool:
    return config.option.markexpr == "gpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "goldens",
        metavar="DIR",
        help="folder of golden cases",
    )
    parser.addoption(
        "--mutations",
        type=int,
        default=1000,
        metavar="N",
        help="of the group fuzz, over all targets",
    )
