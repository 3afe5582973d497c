"""What a chip can do, as its vendor publishes it; nothing here was measured.

Sources: Google's Cloud TPU documentation, "System architecture" (pages TPU v4, v5e, v5p and v6e:
memory, its bandwidth, peak of bfloat16, interconnect), and for the bandwidth of a single link "How
to Scale Your Model" (Austin et al., Google DeepMind, 2025), chapter "How to think about TPUs".
NVIDIA's data sheets for its GPUs, without sparsity.
"""

import dataclasses
import re

from tmanet_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        name: as topologies name it.
        memory: bytes of HBM. The compiler keeps some for itself: 0.25 of a v5e's 16 GiB.
        memory_bandwidth: bytes a second.
        peak_flops: multiplications and additions a second in bfloat16.
        link_bandwidth: bytes a second over one link to a neighbour, in one direction.
        torus_axes: dimensions of the network of chips; two links to each.
    """

    name: str
    memory: int
    memory_bandwidth: float
    peak_flops: float
    link_bandwidth: float
    torus_axes: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB, 1.2e12, 275e12, 45e9, 3),
        Chip("v5e", 16 * GIB, 819e9, 197e12, 45e9, 2),
        Chip("v5p", 95 * GIB, 2.765e12, 459e12, 90e9, 3),
        Chip("v6e", 32 * GIB, 1.64e12, 918e12, 90e9, 2),
    )
}

EXAMPLES = "v5e:1x1, v5e:4x4, v5e:8x8, v5e:16x16, v6e:4x4, v5p:2x2x4, v4:2x2x4"
"""Topologies that exist."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips and how they are wired.

    Attributes:
        name: as in "v5e:4x4".
        chip: what they are.
        axes: chips along each axis.
    """

    name: str
    chip: Chip
    axes: tuple[int, ...]


def parse_topology(name: str) -> Topology:
    """As in "v5e:4x4" or "v5p:2x2x4".

    Raises:
        UserError: this is no topology of a known chip.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    chip = CHIPS.get(match[1]) if match else None
    axes = tuple(int(axis) for axis in match[2].split("x")) if match else ()
    if chip is None or len(axes) != chip.torus_axes or min(axes) < 1:
        raise UserError(
            f"--topology is {name!r}: a chip ({', '.join(CHIPS)}) and the chips along each axis "
            f"(two for v5e and v6e, three for v4 and v5p), such as {EXAMPLES}."
        )
    return Topology(name, chip, axes)


_PEAK_OF_KIND = {
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,  # of which large products reach 790e12
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "TPU v4": CHIPS["v4"].peak_flops,
    "TPU v5 lite": CHIPS["v5e"].peak_flops,
    "TPU v5e": CHIPS["v5e"].peak_flops,
    "TPU v5": CHIPS["v5p"].peak_flops,
    "TPU v5p": CHIPS["v5p"].peak_flops,
    "TPU v6 lite": CHIPS["v6e"].peak_flops,
    "TPU v6e": CHIPS["v6e"].peak_flops,
}
"""By the first words of `jax.Device.device_kind`."""


def peak_flops(device_kind: str) -> float | None:
    """Operations a second of one device in bfloat16; None if it is not known (a CPU, say).

    Args:
        device_kind: as in "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB" or "TPU v5 lite".
    """
    words = re.split(r"[ -]", device_kind)
    for kind, flops in _PEAK_OF_KIND.items():
        if words[: len(kind.split())] == kind.split():
            return flops
    return None
