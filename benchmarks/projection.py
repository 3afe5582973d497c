"""How long a step would take on chips that are not at hand: a model, not a measurement."""

import dataclasses
import math
from collections.abc import Sequence

from benchmarks.chips import Topology
from benchmarks.hlo import Collective

EFFICIENCY = 0.45
"""Share of the peak that the products are assumed to reach."""

HOP_SECONDS = 1e-6
"""What a message takes to a neighbouring chip however short it is (source: as for the links)."""

FORMULA = f"""\
step = max(compute, memory) + collectives; nothing is assumed to overlap with a collective.
  compute: FLOPs by formula / ({EFFICIENCY} x peak of bfloat16)
  memory: bytes that the optimised program moves from and to HBM / HBM bandwidth
  collectives: share x bytes / (2 x bandwidth of a link, one ring run both ways)
               + runs x hops x {HOP_SECONDS * 1e6:g} us, over groups of n chips on axes of a, b, ...
    all-reduce: share 2 (n-1)/n, hops 2 (a-1 + b-1 + ...); permutation: share 1, 1 hop;
    all others: share (n-1)/n, hops a-1 + b-1 + ...; never more hops than a ring of n has
  scaling = max(compute, memory) / step: of one chip's work, what is left with so many chips
The figures of the chips are the vendor's; an efficiency of {EFFICIENCY} is an assumption."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """Seconds of a step on one chip of many.

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
    topology: Topology,
    *,
    flops: float,
    memory_traffic: float,
    collectives: Sequence[Collective],
) -> Projection:
    """See `FORMULA`.

    Args:
        topology: the chips.
        flops: of one chip and step.
        memory_traffic: bytes of one chip and step.
        collectives: of one chip and step.
    """
    chip = topology.chip
    return Projection(
        compute=flops / (EFFICIENCY * chip.peak_flops),
        memory=memory_traffic / chip.memory_bandwidth,
        collectives=sum(collective_seconds(one, topology) for one in collectives),
    )


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """Seconds that all collectives of one kind take, one after the other."""
    n = collective.group_size
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
    chips, more = math.prod(topology.axes), math.prod(larger.axes)
    return tuple(
        dataclasses.replace(one, group_size=one.group_size * more // chips)
        if one.kind != "collective-permute" and one.group_size == chips
        else one
        for one in collectives
    )
