"""What accelerators can do, by the name that JAX gives them: the denominator of MFU."""

import re
from typing import NamedTuple


class Peak(NamedTuple):
    """Dense bfloat16 operations a second of one device.

    Attributes:
        kind: the first words of `jax.Device.device_kind`.
        flops: a second, as the vendor names it.
    """

    kind: str
    flops: float


PEAKS = (
    Peak("NVIDIA H100", 989e12),
    Peak("NVIDIA H200", 989e12),  # 790e12 measured with large products
    Peak("NVIDIA A100", 312e12),
    Peak("NVIDIA L4", 121e12),
    Peak("TPU v4", 275e12),
    Peak("TPU v5 lite", 197e12),
    Peak("TPU v5e", 197e12),
    Peak("TPU v5p", 459e12),
    Peak("TPU v6 lite", 918e12),
    Peak("TPU v6e", 918e12),
)
"""Source: the vendors' data sheets; JAX's own names for TPUs of the same kind differ."""


def peak_flops(device_kind: str) -> float | None:
    """Of one device, or None if it is not known (a CPU, another chip)."""
    words = re.split(r"[ -]", device_kind)  # as in "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
    for peak in PEAKS:
        kind = peak.kind.split()
        if words[: len(kind)] == kind:
            return peak.flops
    return None
