"""Results of compile checks, made up."""

from benchmarks.chips import GIB
from benchmarks.compile import Compiled, CompileResult, Memory, Shortage
from benchmarks.hlo import Collective

GRADIENTS = Collective("all-reduce", 16, 100, 60_000_000, ("bf16", "f32"))
HALO = Collective("collective-permute", 2, 30, 1_000_000, ("bf16",))

FITS = Compiled(
    memory=Memory(
        arguments=(("parameters", 128_000_000), ("batch", 6_000_000)),
        padding=1_000_000,
        outputs=4_000_000,
        temporaries=6 * GIB,
        code=200_000_000,
    ),
    compiler_flops=4.8e12,
    memory_traffic=35_000_000_000,
    collectives=(GRADIENTS, HALO),
)

TOO_LARGE = Shortage(needed=20 * GIB, available=15 * GIB)


def result(outcome: Compiled | Shortage = FITS, topology: str = "v5e:4x4") -> CompileResult:
    return CompileResult(
        program="train",
        topology=topology,
        mesh=(("data", 16), ("space", 1)),
        batch_size=16,
        frame_size=(769, 769),
        num_memory=2,
        dtype="float32",
        flops=5e12,
        outcome=outcome,
        seconds=400.0,
        versions="jax 1, libtpu 2",
    )
