"""What a device can do, by the name that JAX gives it: the denominator of MFU."""

import re

_TFLOPS_OF_KIND = {
    "NVIDIA H100": 989,
    "NVIDIA H200": 989,  # of which large products reach 790
    "NVIDIA A100": 312,
    "NVIDIA L4": 121,
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v5": 459,  # v5p
    "TPU v6 lite": 918,
}
"""Dense bfloat16, as the vendors name it, by the first words of `jax.Device.device_kind`."""


def peak_flops(device_kind: str) -> float | None:
    """Operations a second of one device in bfloat16; None if it is not known (a CPU, say)."""
    words = re.split(r"[ -]", device_kind)  # as in "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
    for kind, tflops in _TFLOPS_OF_KIND.items():
        if words[: len(kind.split())] == kind.split():
            return tflops * 1e12
    return None
