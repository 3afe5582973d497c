"""The memory read, forward and with its gradients: time and memory, and against PyTorch.

    python -m benchmarks attention --config=configs/cityscapes.py [--torch]

The sizes are those of one training clip of the configuration. On a CPU each side's memory is that
of a process of its own: what a call adds at its highest, with its inputs there and its program
compiled. XLA's own count leaves out what it fuses.
"""

import argparse
import functools
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from benchmarks import command
from benchmarks.chips import peak_flops
from benchmarks.findings import Findings, Target, load_note, publish
from benchmarks.harness import (
    Race,
    Side,
    Work,
    columns,
    host_peak_bytes,
    race,
    table_rows,
)
from tmanet_jax.errors import UserError
from tmanet_jax.models.layers import MatmulPrecision
from tmanet_jax.models.memory_kernels import Attention, read_memory
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

TIME_OF_WHOLE_MATRIX = 0.65
"""Share of the time of PyTorch's whole matrix that forward and gradients are to take."""

PEAK_MIB = 110
"""Memory that forward and gradients are to stay within, at 9,409 x 18,818 on a CPU."""

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}
"""Of each result, relative to its largest value, from side to side."""

OURS, WHOLE_MATRIX = "JAX", "torch, whole matrix"
WITH_GRADIENTS = ", with gradients"


class ReadSizes(NamedTuple):
    """What is read: sizes and type.

    Attributes:
        num_queries: positions of the query frame, N.
        num_keys: positions of all memory frames, M.
        key_channels: that are compared, K.
        value_channels: that are read, V.
        scale: of the scores.
        attention: `ModelConfig.attention`.
        dtype: of the arrays.
        precision: `ModelConfig.precision`.
    """

    num_queries: int
    num_keys: int
    key_channels: int
    value_channels: int
    scale: float
    attention: Attention
    dtype: str
    precision: MatmulPrecision = "default"

    @property
    def flops(self) -> int:
        """Of the scores and of the sum of the values; gradients cost twice as much again."""
        channels = self.key_channels + self.value_channels
        return 2 * self.num_queries * self.num_keys * channels


class Inputs(NamedTuple):
    """Arrays of a read, float32; what a side computes in is its own."""

    query_1xNxK: np.ndarray
    key_1xMxK: np.ndarray
    value_1xMxV: np.ndarray
    gradient_1xNxV: np.ndarray


class ReadSide(NamedTuple):
    """One way to read, ready to run; all work is done when a call returns.

    Attributes:
        forward: gives the read, 1xNxV.
        both: gives the read and the gradients by query, key and value.
    """

    forward: Callable[[], tuple[Any, ...]]
    both: Callable[[], tuple[Any, ...]]


MakeSide = Callable[[ReadSizes, Inputs], ReadSide]
"""Must be a function of a module: processes of their own call it."""


def add_command(commands: command.Subparsers) -> None:
    """`attention`."""
    parser = command.add(commands, "attention", __doc__, _run)
    command.add_options(parser, "torch", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    sizes = sizes_of(command.settings_of(options))
    rivals = TORCH_WAYS if options.torch else {}
    publish(measure(sizes, turns=options.turns, rivals=rivals), options.json)


def sizes_of(run: Settings) -> ReadSizes:
    """One training clip of this configuration.

    Raises:
        UserError: it has no memory.
    """
    head = run.model.head
    assert isinstance(head, TMAHeadConfig)
    if not head.num_memory:
        raise UserError(
            "config.model.num_memory is 0: there is no memory to read; set it to 1 or more."
        )
    height, width = run.model.feature_size(run.data.augmentation.crop_size)
    return ReadSizes(
        num_queries=height * width,
        num_keys=head.num_memory * height * width,
        key_channels=head.key_channels,
        value_channels=head.value_channels,
        scale=head.score_scale,
        attention=run.model.attention,
        dtype=str(run.model.dtype),
        precision=run.model.precision,
    )


def measure(sizes: ReadSizes, *, turns: int, rivals: Mapping[str, MakeSide]) -> Findings:
    """Runs this project's read and others in turns, after it has compared their results.

    Args:
        sizes: of one clip's read.
        turns: counted calls of each side.
        rivals: other ways, by name.

    Raises:
        UserError: a side computes something else than this project's read.
    """
    makers: dict[str, MakeSide] = {OURS: jax_side, **rivals}
    inputs = random_inputs(sizes)
    sides = {name: make(sizes, inputs) for name, make in makers.items()}
    forward = _race({name: Side(side.forward) for name, side in sides.items()}, sizes, turns)
    both = _race(
        {
            name + WITH_GRADIENTS: Side(side.both, functools.partial(_peak, makers[name], sizes))
            for name, side in sides.items()
        },
        sizes,
        turns,
    )
    peak = peak_flops(jax.devices()[0].device_kind)
    return Findings(
        title=f"Memory read, {sizes.num_queries} queries x {sizes.num_keys} keys, "
        f"K={sizes.key_channels}, V={sizes.value_channels}, {sizes.dtype}, {sizes.attention}, "
        f"on {jax.devices()[0].device_kind}",
        columns=columns(),
        rows=table_rows(forward, Work(sizes.flops, 1, peak))
        + table_rows(both, Work(3 * sizes.flops, 1, peak)),
        targets=_targets(both),
        notes=(
            f"Medians of {turns} turns; ratios turn by turn. One clip, random arrays.",
            f"Results of all sides agree to {both.difference:.1e} of the largest.",
            load_note(),
        ),
    )


def _race(sides: dict[str, Side], sizes: ReadSizes, turns: int) -> Race:
    ours = next(iter(sides))
    return race(ours, sides.pop(ours), sides, turns=turns, tolerance=TOLERANCE[sizes.dtype])


def _targets(both: Race) -> list[Target]:
    targets, peak = [], both.peaks[both.ours]
    if jax.default_backend() == "cpu" and peak is not None:
        name = "MiB that forward and gradients need"
        targets.append(Target(name, peak / 2**20, PEAK_MIB, at_least=False))
    whole = WHOLE_MATRIX + WITH_GRADIENTS
    if whole in both.taken:
        name = f"time of forward and gradients, share of that of {WHOLE_MATRIX}"
        share = both.ratio(both.ours, whole)
        targets.append(Target(name, share, TIME_OF_WHOLE_MATRIX, at_least=False))
    return targets


def jax_side(sizes: ReadSizes, inputs: Inputs) -> ReadSide:
    """This project's read."""
    read = functools.partial(read_memory, attention=sizes.attention, precision=sizes.precision)
    return side_of_read(read, sizes, inputs)


def chunked_side(sizes: ReadSizes, inputs: Inputs) -> ReadSide:
    """This project's read without a kernel of the chip's."""
    return jax_side(sizes._replace(attention="chunked"), inputs)


def tokamax_side(sizes: ReadSizes, inputs: Inputs) -> ReadSide:
    """The read of another library, which takes values wider than keys.

    It would read this program's own options as its own, and refuse them.
    """
    from absl import flags
    from tokamax import dot_product_attention

    flags.FLAGS.mark_as_parsed()

    def read(*arrays_BxNxC: jax.Array, scale: float) -> jax.Array:
        heads_BxNx1xC = (x[:, :, None] for x in arrays_BxNxC)
        return dot_product_attention(*heads_BxNx1xC, scale=scale)[:, :, 0]

    return side_of_read(read, sizes, inputs)


def side_of_read(read: Callable[..., jax.Array], sizes: ReadSizes, inputs: Inputs) -> ReadSide:
    """A read by jax: query, key, value, `scale` -> what is read."""
    *arrays, gradient = (jax.numpy.asarray(x, sizes.dtype) for x in inputs)
    read = functools.partial(read, scale=sizes.scale)

    def both(gradient: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        result, pull_back = jax.vjp(read, *arrays)
        return (result, *pull_back(gradient))

    run_read = jax.jit(read).lower(*arrays).compile()
    run_both = jax.jit(both).lower(gradient, *arrays).compile()
    return ReadSide(
        lambda: (jax.block_until_ready(run_read(*arrays)),),
        lambda: jax.block_until_ready(run_both(gradient, *arrays)),
    )


def random_inputs(sizes: ReadSizes) -> Inputs:
    """Keys as the network's: after a ReLU, never negative."""
    rng = np.random.default_rng(0)

    def normal(count: int, channels: int) -> np.ndarray:
        return rng.standard_normal((1, count, channels), np.float32)

    n, m, k, v = sizes[:4]
    query, key = (0.3 * np.maximum(normal(count, k), 0) for count in (n, m))
    return Inputs(query, key, normal(m, v), normal(n, v))


def _peak(make: MakeSide, sizes: ReadSizes, call: Callable[[], object]) -> int | None:
    """Of forward and gradients, in a new process: one that has freed memory holds some still."""
    del call
    if jax.default_backend() != "cpu":
        return None
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(peak_of_this_process, make, sizes).result()


def peak_of_this_process(make: MakeSide, sizes: ReadSizes) -> int | None:
    """What the first call that computes gradients adds to this process's memory."""
    tiny = sizes._replace(num_queries=8, num_keys=16)
    make(tiny, random_inputs(tiny)).both()  # libraries and their threads are there before
    return host_peak_bytes(make(sizes, random_inputs(sizes)).both)


def torch_whole(query: "Tensor", key: "Tensor", value: "Tensor", scale: float) -> "Tensor":
    """As the original: the whole matrix of scores."""
    return (scale * (query @ key.transpose(1, 2))).softmax(dim=-1) @ value


def torch_chunks(query: "Tensor", key: "Tensor", value: "Tensor", scale: float) -> "Tensor":
    """Chunks of queries; with gradients each one's scores are computed again."""
    import torch
    from torch.utils.checkpoint import checkpoint

    from benchmarks.torch_network import QUERY_CHUNK

    return torch.cat(
        [
            checkpoint(torch_whole, chunk, key, value, scale, use_reentrant=False)
            for chunk in query.split(QUERY_CHUNK, dim=1)
        ],
        dim=1,
    )


def torch_fused(query: "Tensor", key: "Tensor", value: "Tensor", scale: float) -> "Tensor":
    """`scaled_dot_product_attention`, values split into heads of the keys' width, all at once."""
    from torch.nn import functional

    k, v = key.shape[2], value.shape[2]
    heads = -(-v // k)
    value = functional.pad(value, (0, heads * k - v)).unflatten(2, (heads, k)).transpose(1, 2)
    query, key = (x[:, None].expand(-1, heads, -1, -1) for x in (query, key))
    read = functional.scaled_dot_product_attention(query, key, value, scale=scale)
    return read.transpose(1, 2).flatten(2)[..., :v]


def torch_side(read: Callable[..., "Tensor"], sizes: ReadSizes, inputs: Inputs) -> ReadSide:
    """A read in PyTorch; results are float32 on the host, so that the work is done."""
    import torch

    from benchmarks import torch_run

    torch_run.use_all_cores()
    device, dtype = torch_run.device_of_jax(), getattr(torch, sizes.dtype)
    *arrays, gradient = (torch.from_numpy(x).to(device, dtype) for x in inputs)

    def forward() -> tuple[np.ndarray]:
        with torch.inference_mode():
            return (read(*arrays, sizes.scale).float().cpu().numpy(),)

    def both() -> tuple[np.ndarray, ...]:
        inputs = [x.detach().requires_grad_() for x in arrays]
        result = read(*inputs, sizes.scale)
        gradients = torch.autograd.grad(result, inputs, gradient)
        return tuple(x.detach().float().cpu().numpy() for x in (result, *gradients))

    return ReadSide(forward, both)


TORCH_WAYS: Mapping[str, MakeSide] = {
    WHOLE_MATRIX: functools.partial(torch_side, torch_whole),
    "torch, chunks": functools.partial(torch_side, torch_chunks),
    "torch, scaled_dot_product_attention": functools.partial(torch_side, torch_fused),
}
"""By name."""
