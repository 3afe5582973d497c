"""Every configuration builds its full-size network; the published numbers stand in it."""

import importlib
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from configs import workdir
from tmanet_jax import settings
from tmanet_jax.errors import UserError
from tmanet_jax.fields import leaves, named_factors
from tmanet_jax.models.tmanet import abstract_model
from tmanet_jax.training.rates import factors_of_rate, names_of

NAMES = ("default", "cityscapes", "camvid", "vspw", "kitti_step", "demo", "benchmark")


def load(name: str):
    return importlib.import_module(f"configs.{name}").get_config()


BUILT = """
    cityscapes camvid vspw kitti_step demo pspnet_cityscapes fcn_cityscapes tmanet_convnext_t
    tmanet_mobile finetune
"""


@pytest.mark.parametrize("name", BUILT.split())
def test_builds_its_network_and_segments_its_crop(name: str) -> None:
    run = settings.from_config(load(name))
    model = abstract_model(run.model)
    crop = run.data.augmentation.crop_size
    frames = jax.ShapeDtypeStruct((2, run.model.head.num_memory + 1, *crop, 3), jnp.float32)
    logits = nnx.eval_shape(lambda model, frames: model(frames, train=False), model, frames)
    assert logits.main.shape == (2, *run.model.feature_size(crop), run.model.head.num_classes)


def test_convnexts_rates_are_those_of_its_recipe() -> None:
    """By the layers that its constructor gives to names, of 8 where 6 are asked for."""
    run = settings.from_config(load("tmanet_convnext_t"))
    params = nnx.state(abstract_model(run.model), nnx.Param)
    rates = named_factors(run.optimizer.rates, "rates")
    factors = factors_of_rate(params, run.optimizer.layer_decay, rates, ())
    names, found = jax.tree.leaves(names_of(params)), jax.tree.leaves(factors)
    for name, factor in zip(names, found, strict=True):
        part, of_part, index, *_ = name.split(".")
        layer = 7 if part != "backbone" else int(index) + 1 if of_part == "stages" else 0
        assert factor == pytest.approx(0.9 ** (8 - layer - 1), rel=1e-5), name


@pytest.mark.parametrize(("name", "millions"), [("cityscapes", 32.1), ("camvid", 34.7)])
def test_the_published_networks_have_their_size(name: str, millions: float) -> None:
    run = settings.from_config(load(name))
    model = abstract_model(run.model)
    count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_the_published_hyper_parameters(name: str) -> None:
    config = load(name)
    assert (config.batch_size, config.num_steps) == (8, 80_000)
    assert config.optimizer.to_dict() == {
        "name": "sgd",
        "schedule": "poly",
        "learning_rate": 0.01,
        "min_learning_rate": 1e-4,
        "power": 0.9,
        "warmup_steps": 0,
        "rise": 0.3,
        "momentum": 0.9,
        "beta2": 0.999,
        "weight_decay": 5e-4,
        "decay_norms_and_biases": True,
        "clip_norm": None,
        "layer_decay": 1.0,
        "rates": (),
        "frozen": (),
    }
    assert (config.loss.aux_weight, config.loss.average) == (0.4, "all")
    assert config.data.ratio_range == (0.5, 2.0)
    expected = {
        "cityscapes": (2, 19, (769, 769), (513, 513), True),
        "camvid": (4, 12, (640, 640), (512, 512), False),
    }
    assert expected[name] == (
        config.model.num_memory,
        config.model.num_classes,
        config.data.crop_size,
        config.eval.stride,
        config.model.align_corners,
    )
    assert config.eval.crop_size == config.data.crop_size


@pytest.mark.parametrize("name", NAMES)
def test_a_config_adds_no_field_to_the_default(name: str) -> None:
    def fields(config, prefix: str = "") -> set[str]:
        names: set[str] = set()
        for key in config:
            value = config.get_oneway_ref(key).get() if key in ("blocks",) else config[key]
            names |= fields(value, f"{prefix}{key}.") if hasattr(value, "keys") else {prefix + key}
        return names

    assert fields(load(name)) == fields(load("default"))


@pytest.mark.parametrize("ratios", [(), (0.5, 0.0), (-1.0,), (float("inf"),), ("1",)])
def test_ratios_that_are_no_factors_are_refused(ratios: tuple[object, ...]) -> None:
    config = load("demo")
    config.eval.ratios = ratios
    with pytest.raises(UserError, match=r"config\.eval\.ratios"):
        settings.from_config(config)


NUMBERS = [
    leaf.path
    for leaf in leaves(settings.Settings())
    if re.search(r"\b(int|float)\b", str(leaf.field.annotation))
]
TAKE_0 = """
    data.cat_max_ratio data.flip_probability data.memory_range data.num_workers data.render_eval
    data.render_memory_range data.render_train data.rotation data.rotation_probability
    data.vertical_flip_probability ema_decay eval.neighbourhood eval.num_overlays eval.num_worst
    eval.patience model.neighbourhood
    loss.aux_weight loss.class_weight_power max_skipped_steps model.aux_num_convs model.dropout
    model.frozen_stages model.num_memory optimizer.beta2 optimizer.learning_rate
    optimizer.min_learning_rate optimizer.momentum optimizer.power optimizer.warmup_steps
    optimizer.weight_decay seed
"""
TAKE_A_MILLIARD = """
    checkpoint.every checkpoint.keep eval.every eval.num_overlays eval.num_worst eval.patience
    log.every
    loss.ohem_kept
    max_skipped_steps num_steps optimizer.clip_norm optimizer.learning_rate
    optimizer.min_learning_rate optimizer.warmup_steps seed
"""
TAKE_MORE = "optimizer.clip_norm optimizer.learning_rate optimizer.min_learning_rate"
TAKEN: dict[float, list[str]] = {
    0: TAKE_0.split(),
    -1: ["model.frozen_stages"],
    10**9: TAKE_A_MILLIARD.split(),
    10**30: TAKE_MORE.split(),
}


def test_a_run_with_a_head_of_another_program_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"config": {"model.head": "mean"}}')
    with pytest.raises(UserError, match=r"does not know: .*not 'mean'\. If a file .*--config=FILE"):
        workdir.get_config(str(tmp_path))


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_has_a_range(path: str) -> None:
    config = load("demo")
    config.data.num_workers = 0
    config.model.num_memory = 0
    usual = flatten_dict(config.to_dict(), sep=".")[path]
    several = {"model.blocks": 4, "profile": 2}.get(path, len(usual) if type(usual) is tuple else 0)
    for value in (0, -1, 10**9, 10**30, math.nan, math.inf, 1e300):
        with config.unlocked(), config.ignore_type():
            config.update_from_flattened_dict({path: (value,) * several if several else value})
        if path in TAKEN.get(value, ()):
            settings.from_config(config)
            continue
        with pytest.raises(UserError) as error:
            settings.from_config(config)
        message = str(error.value)
        assert path.split(".")[-1] in message and len(message) < 400, value
