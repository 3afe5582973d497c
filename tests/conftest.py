import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.parity")

COMPILED = Path.home() / ".cache" / "tmanet_jax" / "tests"
"""Tests and the processes that they start share compiled programs, also with the next run."""

OF_THE_WHOLE = """
    test_parity*.py test_bad_input.py test_readme.py benchmarks/* export/* inference/* parallel/*
    scoring/* training/* models/test_*_seam.py data_prep/test_browse.py
    data_prep/test_camvid_frames.py data_prep/test_prepare_*.py data_prep/test_synthetic.py
    data_prep/test_verification.py
"""
"""What trains, renders, or starts the program: the default suite, but not its group `unit`."""


LONGEST = """
    test_site.py parallel/test_multiprocess.py training/test_faults.py parallel/test_lost_peers.py
    test_mutation.py test_package.py benchmarks/test_compile_tpu.py export/test_export.py
    test_parity.py training/test_end_to_end.py models/test_tmanet.py inference/test_stream.py
    training/test_step.py test_bad_input.py data/test_pipeline.py test_configs.py
    training/test_workdir.py training/test_notebook.py models/test_head_seam.py
    models/test_backbone_seam.py inference/test_segmenter.py scoring/test_modes.py
"""
"""Files that begin first: a long one that begins last is waited for."""


STRICT = ("inference", "models", "scoring", "training", "weights")
"""Folders in whose tests the code says itself how ranks and types of arrays become equal."""


def pytest_configure(config: pytest.Config) -> None:
    """All but the group for accelerators runs on the CPU, and compiles a program once."""
    gc.set_threshold(100_000, 20, 10)  # programs that are traced are no garbage yet
    if not _wants_accelerator(config):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu alone looks for a TPU for minutes
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the group `unit`: tests of the default suite of a module or two; long files first."""
    here = Path(__file__).parent
    others = re.findall(r"not (\w+)", " ".join(config.getini("addopts")))
    of_the_whole = {path for pattern in OF_THE_WHOLE.split() for path in here.rglob(pattern)}
    for item in items:
        is_other = any(mark.name in others for mark in item.iter_markers())
        if not (is_other or item.path in of_the_whole):
            item.add_marker(pytest.mark.unit)
    order = {here / name: number for number, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True)
def nothing_is_promoted(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.parent.name not in STRICT:
        yield
        return
    import jax  # when its options are set

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of tiny runs, rendered once; whoever changes them takes a copy."""
    from tests.made import tiny_runs  # when jax has been told its platform

    path = tmp_path_factory.mktemp("data") / "records"
    tiny_runs.render_records(path)
    return path


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
