"""What chips can do, as their vendors publish it, and how long a step would take on them.

Nothing here was measured. Sources: Google's Cloud TPU documentation, "System architecture" (pages
TPU v4, v5e, v5p and v6e: memory, its bandwidth, peak of bfloat16, interconnect), and for the
bandwidth of a single link and a message's time to a neighbour "How to Scale Your Model" (Austin et
al., Google DeepMind, 2025), chapter "How to think about TPUs". NVIDIA's data sheets for its GPUs,
without sparsity.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

from benchmarks.hlo import Collective
from tmanet_jax.errors import UserError

GIB = 2**30

EFFICIENCY = 0.45
"""Share of the peak that the products are assumed to reach."""

HOP_SECONDS = 1e-6
"""What a message takes to a neighbouring chip however short it is."""

DCN_SECONDS = 50e-6
"""What a message takes to another slice however short it is: from chip to host, over the data
centre's network, and to the chip. An assumption: no figure is published."""

FORMULA = f"""\
step = max(compute, memory) + collectives; nothing is assumed to overlap with a collective.
  compute: FLOPs of the network / ({EFFICIENCY} x peak of bfloat16)
  memory: bytes that the optimised program moves from and to HBM / HBM bandwidth
  collectives: share x bytes / (2 x bandwidth of a link, one ring run both ways)
               + runs x hops x {HOP_SECONDS * 1e6:g} us, over groups of n chips on axes of a, b, ...
               a send to another slice: bytes / a chip's share of its host's network
               + {DCN_SECONDS * 1e6:g} us
    all-reduce: share 2 (n-1)/n, hops 2 (a-1 + b-1 + ...); permutation: share 1, 1 hop;
    all others: share (n-1)/n, hops a-1 + b-1 + ...; never more hops than a ring of n has
  scaling = max(compute, memory) / step: of one chip's work, what is left with so many chips
The figures of the chips are the vendor's; an efficiency of {EFFICIENCY} and what a send waits are
assumptions."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        memory: bytes of HBM. The compiler keeps some for itself: 0.25 of a v5e's 16 GiB.
        memory_bandwidth: bytes a second.
        peak_flops: multiplications and additions a second in bfloat16.
        link_bandwidth: bytes a second over one link to a neighbour, in one direction.
        torus_axes: dimensions of the network of chips; two links to each.
        dcn_bandwidth: a chip's share of its host's network, in bytes a second; None: not published.
    """

    memory: int
    memory_bandwidth: float
    peak_flops: float
    link_bandwidth: float
    torus_axes: int
    dcn_bandwidth: float | None = None


CHIPS = {
    "v4": Chip(32 * GIB, 1.2e12, 275e12, 45e9, 3),
    "v5e": Chip(16 * GIB, 819e9, 197e12, 45e9, 2, 3.125e9),
    "v5p": Chip(95 * GIB, 2.765e12, 459e12, 90e9, 3, 6.25e9),
    "v6e": Chip(32 * GIB, 1.64e12, 918e12, 90e9, 2, 12.5e9),
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
        slices: so many of it, which the data centre's network connects.
    """

    name: str
    chip: Chip
    axes: tuple[int, ...]
    slices: int = 1

    @property
    def num_chips(self) -> int:
        """All of them."""
        return self.slices * math.prod(self.axes)

    def __str__(self) -> str:
        chips = f"{math.prod(self.axes)} {self.name}"
        return chips if self.slices == 1 else f"{self.slices} slices of {chips}"


def parse_topology(name: str, slices: int = 1) -> Topology:
    """As in "v5e:4x4" or "v5p:2x2x4".

    Args:
        name: of one slice.
        slices: how many.

    Raises:
        UserError: this is no topology of a known chip, or what connects its slices is not known.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    chip = CHIPS.get(match[1]) if match else None
    axes = tuple(int(axis) for axis in match[2].split("x")) if match else ()
    if chip is None or len(axes) != chip.torus_axes or min(axes) < 1:
        raise UserError(
            f"--topology is {name!r}: a chip ({', '.join(CHIPS)}) and the chips along each axis "
            f"(two for v5e and v6e, three for v4 and v5p), such as {EXAMPLES}."
        )
    if slices > 1 and chip.dcn_bandwidth is None:
        raise UserError(
            f"--slices is {slices}: no bandwidth between slices of {name} is published."
        )
    return Topology(name, chip, axes, slices)


@dataclasses.dataclass(frozen=True)
class Projection:
    """Seconds of a step on one chip of many, by `FORMULA`.

    Attributes:
        compute: for the products alone.
        memory: for the traffic between chip and HBM alone.
        collectives: for the messages between chips.
    """

    compute: float
    memory: float
    collectives: float

    @property
    def step(self) -> float:
        """Seconds, with nothing hidden behind anything else."""
        return max(self.compute, self.memory) + self.collectives

    @property
    def scaling(self) -> float:
        """Share of a chip's work that is left when it works with others, at the same load."""
        return max(self.compute, self.memory) / self.step


def project(
    topology: Topology, *, flops: float, traffic: float, collectives: Sequence[Collective]
) -> Projection:
    """The step of a program whose operations, bytes and collectives are those of one chip."""
    return Projection(
        compute=flops / (EFFICIENCY * topology.chip.peak_flops),
        memory=traffic / topology.chip.memory_bandwidth,
        collectives=sum(collective_seconds(one, topology) for one in collectives),
    )


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """Seconds that all collectives of one kind take, one after the other."""
    n = collective.group_size
    if collective.kind == "send":
        assert topology.chip.dcn_bandwidth, "checked when the topology was read"
        return collective.bytes / topology.chip.dcn_bandwidth + collective.count * DCN_SECONDS
    across = min(sum(axis - 1 for axis in topology.axes), n - 1)
    if collective.kind == "all-reduce":
        share, hops = 2 * (n - 1) / n, 2 * across
    elif collective.kind == "collective-permute":
        share, hops = 1.0, 1
    else:
        share, hops = (n - 1) / n, across
    bandwidth = 2 * topology.chip.link_bandwidth
    return share * collective.bytes / bandwidth + collective.count * hops * HOP_SECONDS


def on_more_chips(
    collectives: Sequence[Collective], topology: Topology, larger: Topology
) -> tuple[Collective, ...]:
    """The collectives of the same work a chip on more chips: only groups of all chips grow."""
    return tuple(
        dataclasses.replace(one, group_size=larger.num_chips)
        if one.kind != "collective-permute" and one.group_size == topology.num_chips
        else one
        for one in collectives
    )


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
