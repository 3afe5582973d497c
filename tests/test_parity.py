"""This project against the original: every golden case of a folder (`--goldens=DIR`)."""

import pytest

from tests.parity.checks import Check, checks_of
from tests.parity.goldens import Case, load_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    pairs = [
        pytest.param(case, check, id=f"{case.path.stem}-{name}")
        for case in load_cases(metafunc.config.getoption("goldens"))
        for name, check in checks_of(case).items()
    ]
    metafunc.parametrize(("case", "check"), pairs)


def test_parity(case: Case, check: Check) -> None:
    check(case)


def test_the_folder_holds_cases(pytestconfig: pytest.Config) -> None:
    assert load_cases(pytestconfig.getoption("goldens"))
