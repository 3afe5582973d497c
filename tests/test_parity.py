"""This project against the original: every golden case of a folder (`--goldens=DIR`).

The project's own in float64 take a minute more and are a group: `python -m pytest -m float64`.
So is one of two pictures for multi-scale testing: what it shows of views, flips and windows the
other shows too, which is also resized from another size.
"""

import pytest

from tests.parity.checks import Check, checks_of
from tests.parity.goldens import OWN_GOLDENS, Case, load_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("goldens")
    pairs = [
        pytest.param(
            case,
            check,
            id=f"{case.path.stem}-{name}",
            marks=[pytest.mark.float64] if folder == OWN_GOLDENS and is_long(case, name) else [],
        )
        for case in load_cases(folder)
        for name, check in checks_of(case).items()
    ]
    if not pairs:
        raise pytest.UsageError(f"there are no golden cases in {folder}")
    metafunc.parametrize(("case", "check"), pairs)


def is_long(case: Case, check: str) -> bool:
    return check == "float64" or case.path.stem == "e_aug_cityscapes"


def test_parity(case: Case, check: Check) -> None:
    check(case)
