"""A narrow network through the TPU's own compiler, for four chips that are not there."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from benchmarks.chips import GIB, parse_topology
from benchmarks.command import read_settings
from benchmarks.compile import Compiled, Shortage, compile_program, topology_devices
from benchmarks.programs import Program, scoring_step, stream_step, training_step
from tests.processes import PROJECT
from tmanet_jax.errors import UserError
from tmanet_jax.models.tmanet import abstract_model, num_parameters
from tmanet_jax.settings import Settings

pytestmark = pytest.mark.tpu

NARROW = [
    "--config.model.dtype=bfloat16",
    "--config.model.width=4",
    "--config.model.blocks=(1,1,1,1)",
    "--config.model.key_channels=4",
    "--config.model.value_channels=8",
    "--config.model.head_channels=8",
    "--config.model.aux_channels=8",
    "--config.model.num_memory=1",
    "--config.data.crop_size=(97,97)",
]


@pytest.fixture(autouse=True)
def no_cache():
    """A cached program cannot be read."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


def settings_of(*fields: str) -> Settings:
    return read_settings(str(PROJECT / "configs" / "cityscapes.py"), [*NARROW, *fields])


def compiled(*fields: str, slices: int = 1) -> tuple[Program, Compiled]:
    devices = topology_devices(parse_topology("v5e:2x2", slices))
    step = training_step(settings_of(*fields), devices)
    return step, fitting(step)


def fitting(program: Program) -> Compiled:
    outcome = compile_program(program.lowered)
    assert isinstance(outcome, Compiled)
    return outcome


def test_a_step_with_a_clip_a_chip_sums_and_gathers_nothing() -> None:
    step, outcome = compiled("--config.batch_size=4")
    assert step.mesh == {"data": 4, "space": 1}
    assert {one.kind for one in outcome.collectives} == {"all-reduce"}
    (sums,) = outcome.collectives
    assert sums.group_size == 4
    assert sums.in_unknown_loops == 0
    parameters = num_parameters(abstract_model(settings_of().model))
    assert sums.bytes >= 2 * parameters  # gradients in bfloat16, and the sums of the batch norms
    assert sum(outcome.memory.values()) < 2**30


def test_a_step_whose_images_are_shared_exchanges_rows() -> None:
    step, outcome = compiled("--config.batch_size=2", "--config.mesh.space=2")
    assert step.mesh == {"data": 2, "space": 2}
    kinds = {one.kind: one for one in outcome.collectives}
    assert kinds["collective-permute"].count > 0
    assert all(one.in_unknown_loops == 0 for one in outcome.collectives)
    gathered = kinds["all-gather"]
    assert gathered.group_size == 2
    assert gathered.bytes < 2**20  # keys and values, not features of every block


def test_slices_sum_within_themselves_and_send_the_sums_to_each_other() -> None:
    step, outcome = compiled("--config.batch_size=8", slices=2)
    assert step.mesh == {"data": 8, "space": 1}
    kinds = {one.kind: one for one in outcome.collectives}
    assert kinds["all-reduce"].group_size == 4
    assert kinds["send"].count > 0
    assert kinds["send"].bytes > 0


def test_scoring_spreads_clips_over_the_chips_of_a_host_and_streaming_takes_one() -> None:
    devices = topology_devices(parse_topology("v5e:2x2"))
    settings = settings_of("--config.eval.crop_size=(97,97)", "--config.eval.stride=(65,65)")
    scoring = scoring_step(settings, devices, (97, 162))
    assert scoring.count == 4  # of two windows each
    of_clip = training_step(settings_of("--config.batch_size=4"), devices).flops
    assert 0.5 * of_clip < scoring.flops < of_clip  # a backward pass is two forward passes
    assert fitting(scoring).collectives == ()
    stream = stream_step(settings, devices, (97, 162))
    assert stream.mesh == {"data": 1, "space": 1}
    assert stream.flops < scoring.flops / 4
    in_bfloat16 = fitting(stream)
    assert in_bfloat16.collectives == ()
    in_int8 = fitting(stream_step(settings, devices, (97, 162), int8=True))
    assert set(in_bfloat16.products) == {"bf16", "f32"}  # the latter upsample logits
    assert in_int8.products == {
        "s8": in_bfloat16.products["bf16"],
        "f32": in_bfloat16.products["f32"],
    }


def test_a_program_that_is_too_large_says_what_it_needs() -> None:
    (device,) = topology_devices(parse_topology("v5e:1x1"))
    x = jax.ShapeDtypeStruct((5 * GIB // 4,), jnp.float32, sharding=SingleDeviceSharding(device))
    lowered = jax.jit(lambda x: (x + 1, x * 2, x - 3)).lower(x)
    outcome = compile_program(lowered)
    assert isinstance(outcome, Shortage)
    assert re.fullmatch(r"20\.\d+G", outcome.needed)
    assert re.fullmatch(r"15\.\d+G", outcome.available)


def test_a_topology_that_the_compiler_refuses_is_named() -> None:
    with pytest.raises(UserError, match=r"v5e:3x3.*v5e:4x4"):
        topology_devices(parse_topology("v5e:3x3"))
