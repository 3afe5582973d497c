"""This project against the original: every golden case of a folder (`--goldens=DIR`)."""

import re
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from tests.parity import inference, network, training
from tests.parity.goldens import Case, load_cases

Check = Callable[[Case], None]

FLOAT32_AND_64 = ("float32", "float64")

CHECKS: Mapping[str, Mapping[str, Check]] = {
    r"ResNet.* eval features": {
        t: partial(network.check_backbone, dtype=t) for t in FLOAT32_AND_64
    },
    r"encode_decode": {t: partial(network.check_full, dtype=t) for t in FLOAT32_AND_64},
    r"MemoryModule": {t: partial(network.check_memory, dtype=t) for t in FLOAT32_AND_64},
    r"slide_inference": {"float32": inference.check_slide},
    r"aug_test": {"float32": inference.check_aug},
    r"train steps": {t: partial(training.check_train, dtype=t) for t in FLOAT32_AND_64},
    r"torch SGD": {"float32": training.check_sgd},
}
"""The checks of each kind of case, by how the JSON's `what` begins."""


def checks_of(case: Case) -> Mapping[str, Check]:
    """The checks of the case's kind; of an unknown kind, one that fails."""
    what = case.facts.get("what", "")
    for kind, checks in CHECKS.items():
        if re.match(kind, what):
            return checks
    return {"unknown": _fail}


def _fail(case: Case) -> None:
    pytest.fail(f"{case.path}: no check for a case of this kind: {case.facts.get('what')!r}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "check" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("goldens")
    pairs = [
        pytest.param(case, check, id=f"{case.path.stem}-{name}")
        for case in load_cases(folder)
        for name, check in checks_of(case).items()
    ]
    metafunc.parametrize(("case", "check"), pairs)


def test_case(case: Case, check: Check) -> None:
    check(case)


def test_the_folder_holds_cases(pytestconfig: pytest.Config) -> None:
    assert load_cases(pytestconfig.getoption("goldens"))
