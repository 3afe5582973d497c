"""The memory read, forward and with its gradients: time and memory, and against a peer.

    python -m benchmarks attention --config=configs/cityscapes.py [--torch]

The sizes are those of one training clip of the configuration. Each side's memory is that of a
process of its own: what the process holds at most in its first call, less what it held before, with
its inputs there and its program compiled. XLA's own count leaves out what it fuses.
"""

import argparse
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
import psutil

from benchmarks import command
from benchmarks.harness import Report, Target, median_ratio, median_wall, publish, take_turns
from tmanet_jax.errors import UserError
from tmanet_jax.models.heads import TMAHeadConfig
from tmanet_jax.models.layers import Precision
from tmanet_jax.models.memory import read_memory
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.settings import Settings

TIME_OF_PEER = 0.65
"""Share of the whole-matrix peer's time that forward and gradients are to take."""

PEAK_MIB = 110
"""Memory that forward and gradients are to stay within, at 9,409 x 18,818 on a CPU."""

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}
"""Of each result, relative to its largest value, from side to side."""

OURS, PEER_WHOLE = "JAX", "peer, whole matrix"


class Case(NamedTuple):
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
    precision: Precision = "default"


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

    forward: Callable[[], np.ndarray]
    both: Callable[[], tuple[np.ndarray, ...]]


MakeSide = Callable[[Case, Inputs], ReadSide]
"""Must be a function of a module: processes of their own call it."""


def add_command(commands: command.Subparsers) -> None:
    """`attention`."""
    parser = command.add(commands, "attention", __doc__, _run)
    command.add_options(parser, "torch", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    case = case_of(command.settings_of(options))
    peers: Mapping[str, MakeSide] = {}
    if options.torch:
        from benchmarks.torch_attention import PEERS

        peers = PEERS
    publish(measure(case, turns=options.turns, peers=peers), options.json)


def case_of(run: Settings) -> Case:
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
    return Case(
        num_queries=height * width,
        num_keys=head.num_memory * height * width,
        key_channels=head.key_channels,
        value_channels=head.value_channels,
        scale=head.key_channels**-0.5 if head.scale_scores else 1.0,
        attention=run.model.attention,
        dtype=str(run.model.dtype),
        precision=run.model.precision,
    )


def jax_side(case: Case, inputs: Inputs) -> ReadSide:
    """This project's read."""
    arrays = [jax.numpy.asarray(x, case.dtype) for x in inputs]

    def read(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return read_memory(
            query,
            key,
            value,
            scale=case.scale,
            attention=case.attention,
            precision=case.precision,
        )

    def both(gradient: jax.Array, *read_inputs: jax.Array) -> tuple[jax.Array, ...]:
        result, pull_back = jax.vjp(read, *read_inputs)
        return (result, *pull_back(gradient))

    *read_inputs, gradient = arrays
    run_read = jax.jit(read).lower(*read_inputs).compile()
    run_both = jax.jit(both).lower(gradient, *read_inputs).compile()
    return ReadSide(
        lambda: jax.block_until_ready(run_read(*read_inputs)),
        lambda: jax.block_until_ready(run_both(gradient, *read_inputs)),
    )


def measure(case: Case, *, turns: int, peers: Mapping[str, MakeSide]) -> Report:
    """Runs this project's read and the peers' in turns, after it has compared their results.

    Args:
        case: the sizes.
        turns: counted calls of each side.
        peers: other ways, by name.

    Raises:
        UserError: a side computes something else than this project's read.
    """
    makers: dict[str, MakeSide] = {OURS: jax_side, **peers}
    peaks = {name: _peak_mib(make, case) for name, make in makers.items()}
    inputs = _random_inputs(case)
    sides = {name: make(case, inputs) for name, make in makers.items()}
    difference = check_agreement(sides, TOLERANCE[case.dtype])
    calls: dict[str, Callable[[], object]] = {}
    for name, side in sides.items():
        calls |= {f"{name} forward": side.forward, name: side.both}
    taken = take_turns(calls, turns=turns)
    wall = {name: [turn.wall for turn in taken_turns] for name, taken_turns in taken.items()}
    rows = [
        (
            name,
            f"{median_wall(taken[f'{name} forward']):.3g}",
            f"{median_wall(taken[name]):.3g}",
            f"{median_ratio(wall[f'{OURS} forward'], wall[f'{name} forward']):.2f}",
            f"{median_ratio(wall[OURS], wall[name]):.2f}",
            f"{peaks[name]:.0f}",
        )
        for name in sides
    ]
    targets = [Target("MiB that forward and gradients need", peaks[OURS], PEAK_MIB, at_least=False)]
    targets += [
        Target(
            f"time of forward and gradients, share of that of {name}",
            median_ratio(wall[OURS], wall[name]),
            TIME_OF_PEER,
            at_least=False,
        )
        for name in (PEER_WHOLE,)
        if name in sides
    ]
    return Report(
        title=f"Memory read, {case.num_queries} queries x {case.num_keys} keys, "
        f"K={case.key_channels}, V={case.value_channels}, {case.dtype}, {case.attention}, "
        f"on {jax.devices()[0].device_kind}",
        columns=(
            "",
            "forward, s",
            "with gradients, s",
            f"{OURS} / this, forward",
            f"{OURS} / this, with gradients",
            "with gradients, MiB of the host",
        ),
        rows=rows,
        targets=targets,
        notes=(
            f"Medians of {turns} turns; ratios turn by turn. One clip, random arrays.",
            f"Results of all sides agree to {difference:.1e} of the largest.",
        ),
    )


def check_agreement(sides: Mapping[str, ReadSide], tolerance: float) -> float:
    """The largest difference of a read or gradient, relative to its largest value.

    Raises:
        UserError: it is above the tolerance.
    """
    names = list(sides)
    expected = [np.asarray(x, np.float32) for x in sides[names[0]].both()]
    largest = 0.0
    for name in names[1:]:
        found = [np.asarray(x, np.float32) for x in sides[name].both()]
        for got, right in zip(found, expected, strict=True):
            difference = float(np.abs(got - right).max() / np.abs(right).max())
            if not difference <= tolerance:
                raise UserError(
                    f"{name!r} computes something else than {names[0]!r}: they differ by "
                    f"{difference:.1e} of the largest value. No time was taken."
                )
            largest = max(largest, difference)
    return largest


def _random_inputs(case: Case) -> Inputs:
    """Keys as the network's: after a ReLU, never negative."""
    rng = np.random.default_rng(0)

    def normal(count: int, channels: int) -> np.ndarray:
        return rng.standard_normal((1, count, channels), np.float32)

    n, m, k, v = case[:4]
    query, key = (0.3 * np.maximum(normal(count, k), 0) for count in (n, m))
    return Inputs(query, key, normal(m, v), normal(n, v))


def _peak_mib(make: MakeSide, case: Case) -> float:
    """Of forward and gradients, in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(_peak_of_this_process, make, case).result()


def _peak_of_this_process(make: MakeSide, case: Case) -> float:
    tiny = case._replace(num_queries=8, num_keys=16)
    make(tiny, _random_inputs(tiny)).both()  # libraries and their threads are part of the baseline
    side = make(case, _random_inputs(case))
    process, done = psutil.Process(), threading.Event()
    baseline = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        held = side.both()
        peak = max(peak, process.memory_info().rss)  # should the watcher not have had its turn
        del held
    finally:
        done.set()
        watcher.join()
    return (peak - baseline) / 2**20
