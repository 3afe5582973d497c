"""The parity checks themselves: they fail a case of nothing, and compare all that is stored."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from tests.parity import inference, training
from tests.parity.checks import checks_of
from tests.parity.goldens import OWN_GOLDENS, Case, load_cases
from tests.parity.training import Step

CASES = {case.path.stem: case for case in load_cases(OWN_GOLDENS)}


def changed(case: Case, arrays: Mapping[str, np.ndarray] | None = None, **facts: Any) -> Case:
    """The case with other facts and, if they are given, other arrays."""
    return dataclasses.replace(
        case, facts=case.facts | facts, arrays=case.arrays if arrays is None else arrays
    )


def without(case: Case, beginning: str) -> Case:
    """The case without the facts and arrays whose names begin so."""
    facts, arrays = (
        {name: value for name, value in named.items() if not name.startswith(beginning)}
        for named in (case.facts, case.arrays)
    )
    return dataclasses.replace(case, facts=facts, arrays=arrays)


@pytest.mark.parametrize(
    ("name", "emptied"),
    [
        ("a_backbone", {"inputs": []}),
        ("b_full_camvid", {"inputs": []}),
        ("c_memory", {"inputs": []}),
        ("d_slide_camvid", {"inputs": []}),
        ("f_train_cityscapes", {"lr": {}}),
        ("f2_sgd", {"lr": {}}),
        ("g1_resize", {"cases": []}),
        ("g1_resize", {"shape_table_HWscale_hw": []}),
        ("g1_resize", {"keep_ratio_cases": []}),
        ("g2_crop", {"cases": []}),
        ("g3_flip_norm_pad", {"flip_by_legacy_seed": []}),
        ("g4_photometric", {"cases": []}),
        ("g5_pipeline", {"cases": []}),
        ("h_metrics", {"sets": []}),
        ("i_indexing", {"cases": {}}),
    ],
)
def test_an_empty_list_fails(name: str, emptied: Mapping[str, Any]) -> None:
    case = changed(CASES[name], **emptied)
    for check in checks_of(case).values():
        with pytest.raises((AssertionError, pytest.fail.Exception), match="nothing to compare"):
            check(case)


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("b_full_camvid", "in"),
        ("d_slide_camvid", "in"),
        ("f_train_cityscapes", "log_max"),
        ("f2_sgd", "grad_"),
        ("g1_resize", "src0_u"),
        ("g1_resize", "test"),
    ],
)
def test_a_case_that_stores_no_results_fails(name: str, beginning: str) -> None:
    case = without(CASES[name], beginning)
    case = changed(case, inputs=CASES[name].facts.get("inputs", True))
    for check in checks_of(case).values():
        with pytest.raises(AssertionError, match="nothing to compare"):
            check(case)


def test_float32_losses_are_held_against_the_float32_run() -> None:
    case = CASES["f_train_cityscapes"]
    float64_run = case.facts["log_max10_f64"]
    case = changed(case, log_max10=[log | {"loss": 1.1 * log["loss"]} for log in float64_run])
    steps = [Step(log, grads={}, params={}, statistics={}) for log in float64_run]
    with pytest.raises(AssertionError, match=r"^loss of step 0 off by 9\.1%"):
        training._check_later_steps(case, steps, "log_max10", "float32")


def of_one_ratio(case: Case, *names: str, **arrays: np.ndarray) -> Case:
    """A case of multi-scale testing at its first ratio alone, with what it was given."""
    kept = ("img_bgr", "sequence_bgr", *names)
    arrays |= {name: case.arrays[name] for name in kept}
    return changed(case, arrays, ratios=case.facts["ratios"][:1], order=case.facts["order"][:2])


def test_multi_scale_testing_is_asked_for_no_more_than_it_stores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[list[jax.Array]] = []
    compute = inference._view_probabilities

    def once(*arguments: Any) -> list[jax.Array]:
        if not computed:
            computed.append(compute(*arguments))
        return computed[0]

    monkeypatch.setattr(inference, "_view_probabilities", once)
    case = of_one_ratio(CASES["e_aug_cityscapes"], "prob_half_flipped")
    checks = checks_of(case)
    assert [*checks] == ["float32"]
    checks["float32"](case)
    wrong = case.arrays["prob_half_flipped"] + np.float32(1e-3)
    with pytest.raises(AssertionError, match="prob_half_flipped: off by"):
        checks["float32"](changed(case, {**case.arrays, "prob_half_flipped": wrong}))
    nothing = of_one_ratio(case)
    with pytest.raises(AssertionError, match="nothing to compare"):
        checks["float32"](nothing)


@pytest.mark.float64
def test_multi_scale_testing_compares_in_float64_too() -> None:
    case = CASES["e_aug_cityscapes"]
    float64 = case.arrays["prob_half_flipped"].astype(np.float64)
    right = of_one_ratio(case, prob_half_flipped_f64=float64)
    checks_of(right)["float64"](right)
    wrong = of_one_ratio(case, prob_half_flipped_f64=float64 + 1e-3)
    with pytest.raises(AssertionError, match="prob_half_flipped: off by"):
        checks_of(wrong)["float64"](wrong)


@pytest.mark.float64
def test_sliding_windows_compare_in_float64_too() -> None:
    case = CASES["d_slide_camvid"]
    small, raw = case.facts["inputs"][1], case.arrays["in1_raw"]
    case = changed(case, {"in0_raw_f64": raw.astype(np.float64)}, inputs=[small])
    # A float32 run is near a float64 one, and not as near as the original's own.
    with pytest.raises(AssertionError, match=r"^in0_raw: off by \d\.\d+e-0[5-8]"):
        checks_of(case)["float64"](case)
