"""Networks from files of weights, without torch: names, loading, what does not fit."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from configs import default
from tests.made.small_networks import HEAD, SMALL, assert_same, backbone_of, build, random_tensors
from tests.made.tiny_weights import CLASSES, write_weights
from tmanet_jax import settings
from tmanet_jax.data.classes import CAMVID, CITYSCAPES, numbered_classes
from tmanet_jax.errors import UserError
from tmanet_jax.inputs import with_model_of_file
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.weights import conversion, files, load
from tmanet_jax.weights.names import expected_shapes, to_tensors
from tmanet_jax.weights.networks import network_of
from tmanet_jax.weights.weight_file import WeightFile

GOLDENS = Path(__file__).parents[1] / "goldens"
COUNT = "backbone.layer1.0.bn1.num_batches_tracked"


def spec(name):
    return {key: tuple(shape) for key, shape in json.loads((GOLDENS / name).read_text())}


def tensors_of(model):
    return to_tensors(nnx.state(model))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("spec_cityscapes.json", ModelConfig()),
        (
            "spec_camvid.json",
            ModelConfig(head=TMAHeadConfig(12, num_memory=4), align_corners=False),
        ),
    ],
)
def test_names_shapes_and_configuration_are_the_originals(name, config):
    assert expected_shapes(config) == spec(name)
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in spec(name).items()}
    assert network_of(WeightFile(tensors)).config == config


def test_the_backbone_is_named_as_the_published_one():
    names = backbone_of({name: np.empty(0) for name in expected_shapes(ModelConfig())})
    assert set(names) == set(spec("spec_resnet50_v1c.json"))


@pytest.mark.parametrize(("depth", "num_tensors"), [(18, 120), (50, 318), (101, 624)])
def test_a_plain_stem_is_named_as_torchvision_does(depth, num_tensors):
    """torchvision's state_dicts hold two tensors more: fc.weight and fc.bias."""
    config = ModelConfig(backbone=ResNetConfig(depth=depth, deep_stem=False))
    shapes = expected_shapes(config)
    names = backbone_of({name: np.empty(shape) for name, shape in shapes.items()})
    assert len(names) == num_tensors
    assert names["conv1.weight"].shape == (64, 3, 7, 7)
    assert names["bn1.running_var"].shape == (64,)
    assert names["layer2.0.downsample.0.weight"].ndim == 4
    assert network_of(WeightFile(names)).config == config.backbone


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL, head=dataclasses.replace(HEAD, num_memory=0)),
        dataclasses.replace(SMALL, backbone=ResNetConfig(18, width=4)),
        dataclasses.replace(SMALL, backbone=ResNetConfig(34, deep_stem=False, width=4)),
    ],
)
def test_saving_and_loading_changes_nothing(tmp_path, config):
    path = tmp_path / "model.safetensors"
    tensors = random_tensors(config, seed=1)
    load.save(path, build(config, tensors))
    assert load.model_config_of(files.read(path)) == config
    assert_same(files.read(path).tensors, tensors)
    model = build(config, random_tensors(config, seed=2))
    report = load.load_checkpoint(files.read(path), model)
    assert_same(tensors_of(model), tensors)
    assert set(report.loaded) == set(tensors)
    assert report.kept == report.ignored == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, tensors, model, value):
    name = "backbone.layer4.0.conv1.weight"
    spoilt = tensors[name].copy()
    spoilt[0, 0] = value
    load.save(tmp_path / "model.safetensors", build(SMALL, {**tensors, name: spoilt}))
    with pytest.raises(UserError, match=f"NaN or infinity in {name}"):
        load.load_checkpoint(files.read(tmp_path / "model.safetensors"), model)


def test_a_configuration_is_inferred_but_for_what_leaves_no_trace(written):
    path = written()
    inferred = load.model_config_of(files.read(path), align_corners=False)
    assert inferred.head == dataclasses.replace(HEAD, dropout=0.1, scale_scores=False)
    assert inferred.backbone == SMALL.backbone
    assert not inferred.align_corners
    with pytest.raises(UserError, match=r"5 classes.*--align-corners"):
        load.model_config_of(files.read(path))


def test_align_corners_can_be_overruled(tmp_path, model):
    path = tmp_path / "model.safetensors"
    load.save(path, model)
    assert load.model_config_of(files.read(path), align_corners=True).align_corners


def test_what_nobody_stated_is_told_and_stays_an_assumption(tmp_path, tensors, caplog):
    head = dataclasses.replace(HEAD, num_classes=12, scale_scores=False)
    config = dataclasses.replace(SMALL, head=head)
    source, copy = tmp_path / "source.safetensors", tmp_path / "copy.safetensors"
    files.write(source, WeightFile(random_tensors(config, seed=1)))
    told = conversion.convert(source, copy)
    assert "assumed, as the file does not say: align_corners=False, as published for 12" in told
    assert "contract_dilation True, multi_grid None, style 'pytorch', scores that are" in told
    assert not load.model_config_of(files.read(copy)).align_corners
    assert "assumed, as the file does not say: align_corners=False" in caplog.text
    stated = tmp_path / "stated.safetensors"
    conversion.convert(copy, stated, align_corners=False)
    for path, aligned in ((copy, True), (stated, False)):
        found = network_of(files.read(path), assume_align_corners=True).config
        assert vars(found)["align_corners"] == aligned


def test_a_backbone_file_sets_the_backbone(tmp_path, tensors, model):
    path = tmp_path / "backbone.safetensors"
    fc = {"fc.weight": np.zeros((1000, 128), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    files.write(path, WeightFile(backbone_of(tensors) | fc))
    before = tensors_of(model)
    report = load.load_pretrained_backbone(path, model)
    in_backbone = {name for name in tensors if name.startswith("backbone.")}
    assert set(report.loaded) == in_backbone
    assert set(report.kept) == set(tensors) - in_backbone
    assert set(report.ignored) == set(fc)
    assert "ignored fc.bias, fc.weight; left at initial values: auxiliary_head.conv_seg" in str(
        report
    )
    expected = {n: tensors[n] if n in in_backbone else before[n] for n in tensors}
    assert_same(tensors_of(model), expected)


def test_the_backbone_of_a_whole_network_can_be_taken(written, tensors, model):
    report = load.load_pretrained_backbone(written(), model)
    assert set(report.ignored) == {n for n in tensors if not n.startswith("backbone.")}
    assert_same(backbone_of(tensors_of(model)), backbone_of(tensors))


def test_a_backbone_file_is_no_checkpoint(tmp_path, tensors, model):
    path = tmp_path / "backbone.safetensors"
    files.write(path, WeightFile(backbone_of(tensors)))
    with pytest.raises(UserError, match=r"config\.init\.pretrained"):
        load.load_checkpoint(files.read(path), model)
    with pytest.raises(UserError, match="holds a backbone"):
        load.model_config_of(files.read(path))


def test_update_counts_may_be_missing(written, tensors, model):
    """PyTorch before 0.4.1, and torchvision's older files, do not have them."""
    counts = [name for name in tensors if name.endswith("num_batches_tracked")]
    before = tensors_of(model)
    report = load.load_checkpoint(files.read(written(drop=counts)), model)
    assert set(report.kept) == set(counts)
    assert "left at initial values: num_batches_tracked; assumed" in str(report)
    np.testing.assert_array_equal(tensors_of(model)[COUNT], before[COUNT])


NAME = "decode_head.memory_key_conv.1.0.conv.weight"


@pytest.mark.parametrize(
    ("drop", "changes", "message"),
    [
        ([NAME], {}, f"missing: {NAME}"),
        ([], {"neck.weight": np.zeros(3, np.float32)}, "unexpected: neck.weight"),
        (
            [],
            {NAME: np.zeros((3, 3, 1, 1), np.float32)},
            f"of the wrong shape: {NAME} (3, 3, 1, 1) instead of (3, 3, 3, 3)",
        ),
        (
            [],
            {NAME: np.zeros((3, 3, 3, 3), np.int8)},
            f"of the wrong type: {NAME} int8 instead of float32",
        ),
        ([], {COUNT: np.zeros((), np.float32)}, f"{COUNT} float32 instead of int64"),
    ],
)
def test_what_does_not_fit_is_named(written, model, drop, changes, message):
    path = written(drop, **changes)
    before = tensors_of(model)
    with pytest.raises(UserError) as error:
        load.load_checkpoint(files.read(path), model)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert_same(tensors_of(model), before)


def test_a_long_list_of_misfits_is_cut_short(written, model):
    path = written(drop=[name for name in random_tensors(SMALL, 1) if "layer2" in name])
    with pytest.raises(UserError, match=r"missing: (\S+, ){5}\S+ and \d+ more"):
        load.load_checkpoint(files.read(path), model)


def test_another_number_of_classes_makes_the_classifiers_new(written, tensors):
    config = dataclasses.replace(SMALL, head=dataclasses.replace(HEAD, num_classes=9))
    model = build(config, random_tensors(config, seed=2))
    before = tensors_of(model)
    with pytest.raises(UserError, match=r"decode_head\.conv_seg\.bias \(5,\) instead of \(9,\)"):
        load.load_checkpoint(files.read(written()), model)
    report = load.load_checkpoint(files.read(written()), model, new_classifier_ok=True)
    classifiers = {
        f"{head}.conv_seg.{parameter}"
        for head in ("decode_head", "auxiliary_head")
        for parameter in ("weight", "bias")
    }
    assert set(report.kept) == set(report.ignored) == classifiers
    assert "the classifiers are new" in str(report)
    expected = {n: before[n] if n in classifiers else tensors[n] for n in tensors}
    assert_same(tensors_of(model), expected)


def test_the_same_number_of_classes_keeps_the_classifiers(written, tensors, model):
    report = load.load_checkpoint(files.read(written()), model, new_classifier_ok=True)
    assert report.kept == ()
    assert_same(tensors_of(model), tensors)


def test_a_run_from_weights_computes_as_its_configuration_says(tmp_path, tensors):
    path = tmp_path / "file.safetensors"
    files.write(path, WeightFile(tensors, SMALL))
    config = default.get_config()
    config.init.checkpoint = str(path)
    config.model.attention, config.model.precision = "chunked", "highest"
    model = with_model_of_file(settings.from_config(config), files.read(path)).model
    assert model == dataclasses.replace(SMALL, attention="chunked", precision="highest")
    loaded = load.load_model(path, attention="chunked", precision="highest")
    assert loaded.model.config == model


def test_the_neighbourhood_that_is_read_stays_with_the_weights(tmp_path: Path) -> None:
    near = dataclasses.replace(SMALL, head=dataclasses.replace(HEAD, neighbourhood=1))
    files.write(tmp_path / "near.safetensors", WeightFile(random_tensors(near, 0), near))
    file = files.read(tmp_path / "near.safetensors")
    assert network_of(file).config == near
    assert load.load_checkpoint(file, build(near, file.tensors)).notes == ()
    (note,) = load.load_checkpoint(file, build(SMALL, file.tensors)).notes
    assert "trained with neighbourhood=1, this run has None" in note


def test_weight_files_name_their_classes(tmp_path: Path) -> None:
    named = write_weights(tmp_path / "tmanet.safetensors")
    assert load.load_model(named)[1] == CLASSES
    assert files.classes_of_number(19) == CITYSCAPES
    assert files.classes_of_number(12) == CAMVID
    many = numbered_classes(150)
    assert len(set(many.palette_Cx3)) == len(set(many.names)) == 150
    old = write_weights(tmp_path / "old.safetensors", classes=None)
    assert load.load_model(old)[1].names[4] == "class 4"
    load.save(tmp_path / "new.safetensors", load.load_model(old)[0], CLASSES)
    assert load.load_model(tmp_path / "new.safetensors")[1] == CLASSES
