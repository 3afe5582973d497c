"""Which checks a case calls for."""

import re
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from tests.parity import augmentation, inference, labels, network, scores, training
from tests.parity.goldens import Case

Check = Callable[[Case], None]

_FLOAT32_AND_64 = ("float32", "float64")

CHECKS: Mapping[str, Mapping[str, Check]] = {
    r"ResNet.* eval features": {
        dtype: partial(network.check_backbone, dtype=dtype) for dtype in _FLOAT32_AND_64
    },
    r"encode_decode": {
        dtype: partial(network.check_full, dtype=dtype) for dtype in _FLOAT32_AND_64
    },
    r"MemoryModule": {
        dtype: partial(network.check_memory, dtype=dtype) for dtype in _FLOAT32_AND_64
    },
    r"slide_inference": {"float32": inference.check_slide},
    r"aug_test": {"float32": inference.check_aug},
    r"train steps": {
        dtype: partial(training.check_train, dtype=dtype) for dtype in _FLOAT32_AND_64
    },
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


def checks_of(case: Case) -> Mapping[str, Check]:
    """The checks of the case's kind; of an unknown kind, one that fails."""
    what = case.facts.get("what", "")
    for kind, checks in CHECKS.items():
        if re.match(kind, what):
            return checks
    return {"unknown": _fail}


def _fail(case: Case) -> None:
    pytest.fail(f"{case.path}: no check for a case of this kind: {case.facts.get('what')!r}")
