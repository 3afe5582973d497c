"""Which checks a case calls for."""

import re
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from tests.parity import (
    augmentation,
    backbones,
    heads,
    inference,
    labels,
    losses,
    network,
    scores,
    training,
)
from tests.parity.goldens import Case

Check = Callable[[Case], None]


def in_both(check: Callable[..., None]) -> Mapping[str, Check]:
    """The check in either floating-point type."""
    return {dtype: partial(check, dtype=dtype) for dtype in ("float32", "float64")}


CHECKS: Mapping[str, Mapping[str, Check]] = {
    r"ResNet.* eval features": in_both(network.check_backbone),
    r"encode_decode": in_both(network.check_full),
    r"backbone, eval": in_both(backbones.check_backbone),
    r"decode head": in_both(heads.check_head),
    r"OHEM": {"float32": losses.check_ohem},
    r"MemoryModule": in_both(network.check_memory),
    r"train steps": in_both(training.check_train),
    r"slide_inference": in_both(inference.check_slide),
    r"aug_test": in_both(inference.check_aug),
    r"torch SGD": {"float32": training.check_sgd},
    r"Resize": {"uint8": augmentation.check_resize},
    r"RandomCrop": {"uint8": augmentation.check_crop},
    r"RandomFlip": {"uint8": augmentation.check_flip_normalize_pad},
    r"PhotoMetricDistortion": {"uint8": augmentation.check_photometric},
    r"train pipeline": {"uint8": augmentation.check_pipeline},
    r"intersect_and_union": {"exact": scores.check_metrics},
    r"memory frames": {"exact": labels.check_indexing},
    r"label ids": {"exact": labels.check_labels},
}
"""The checks of each kind of case, by how the JSON's `what` begins."""

LISTS = ("inputs", "cases", "sets")
"""Where a JSON lists what is compared; one that is there and empty would pass as nothing failed."""


def kind_of(case: Case) -> str | None:
    """The key of `CHECKS` that describes the case; None if there is none."""
    what = case.facts.get("what", "")
    return next((kind for kind in CHECKS if re.match(kind, what)), None)


def checks_of(case: Case) -> Mapping[str, Check]:
    """The checks that the case has numbers for; one that fails if it is unknown or empty."""
    kind = kind_of(case)
    if kind is None:
        return {"unknown": _fail_unknown}
    if not all(case.facts.get(name, True) for name in LISTS):
        return {"empty": _fail_empty}
    has_float64 = any("_f64" in name for name in case.arrays)
    return {name: check for name, check in CHECKS[kind].items() if name != "float64" or has_float64}


def _fail_empty(case: Case) -> None:
    pytest.fail(f"{case.path}: lists nothing to compare")


def _fail_unknown(case: Case) -> None:
    pytest.fail(f"{case.path}: no check for a case of this kind: {case.facts.get('what')!r}")
