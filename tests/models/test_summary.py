"""What a network consists of and computes, against formulas and against the program as a whole."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tests.made.small_networks import BACKBONE, HEAD, SMALL
from tmanet_jax.models.summary import Work, summary_of, work_of
from tmanet_jax.models.tmanet import abstract_model, num_parameters

SIZE = (40, 56)


def shape(*lengths: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(lengths, jnp.float32)


def strided(x_NxHxWxI: jax.Array, kernel_hwio: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x_NxHxWxI,
        kernel_hwio,
        window_strides=(2, 2),
        padding="SAME",
        feature_group_count=3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def test_a_convolution_and_a_product_cost_their_formula() -> None:
    image, kernel = shape(2, 10, 14, 6), shape(3, 3, 2, 12)
    outputs = 2 * 5 * 7 * 12
    assert work_of(strided, image, kernel) == Work(2 * outputs * 3 * 3 * 2, outputs)
    assert work_of(jnp.matmul, shape(5, 6), shape(6, 7)) == Work(2 * 5 * 6 * 7, 5 * 7)


def test_a_gradient_costs_what_the_function_does_and_the_function_is_not_needed_for_it() -> None:
    image, kernel = shape(2, 10, 14, 6), shape(3, 3, 2, 12)
    gradient = jax.grad(lambda x, kernel: strided(x, kernel).sum())
    operations = work_of(strided, image, kernel).operations
    assert work_of(gradient, image, kernel).operations == operations


def test_a_loop_costs_its_rounds() -> None:
    def rounds(x_5x6: jax.Array, y_3x6x7: jax.Array) -> jax.Array:
        return lax.map(lambda y_6x7: x_5x6 @ y_6x7, y_3x6x7)

    assert work_of(rounds, shape(5, 6), shape(3, 6, 7)) == Work(3 * 2 * 5 * 6 * 7, 3 * 5 * 7)


def test_modules_add_up_to_the_network() -> None:
    backbone = dataclasses.replace(BACKBONE, frozen_stages=1)
    config = dataclasses.replace(SMALL, backbone=backbone)
    rows = {row.path: row for row in summary_of(config, SIZE)}
    model, whole = abstract_model(config), rows[""]
    parts = [rows[name] for name in ("backbone", "head", "aux_head")]
    assert whole.parameters == num_parameters(model) == sum(part.parameters for part in parts)
    assert whole.work == sum((part.work for part in parts), Work())
    graphdef, state = nnx.split(model)
    clip = shape(1, HEAD.num_memory + 1, *SIZE, 3)
    assert whole.work == work_of(lambda state, clip: nnx.merge(graphdef, state)(clip), state, clip)


def test_a_row_is_a_modules_own() -> None:
    rows = {row.path: row for row in summary_of(SMALL, SIZE)}
    positions, channels, classes = 5 * 7, HEAD.channels, HEAD.num_classes
    row = rows["head.classifier"]
    assert row.shape == (1, 5, 7, classes)
    assert row.parameters == channels * classes + classes
    assert row.work == Work(2 * positions * channels * classes, positions * classes)
