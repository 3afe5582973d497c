"""The original's configuration and classes in a checkpoint's meta, as its train.py writes them."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import default
from tests.made.small_networks import (
    BACKBONE,
    SMALL,
    SMALL_CITYSCAPES,
    backbone_of,
    build,
    cityscapes_tensors,
    random_tensors,
)
from tmanet_jax import settings
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.errors import UserError
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.inputs import with_model_of_file
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import files, load, original_config
from tmanet_jax.weights.networks import network_of
from tmanet_jax.weights.weight_file import WeightFile

CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='./init_models/resnet50_v1c-2cccc1ad.pth',
    backbone=dict(
        type='ResNetV1c',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        contract_dilation=True),
    decode_head=dict(
        type='TMAHead',
        in_index=3,
        sequence_num=2,
        key_channels=3,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=True,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
train_cfg = dict()
test_cfg = dict(mode='slide', crop_size=(640, 640), stride=(512, 512))
data = dict(
    val=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(
            type='MultiScaleFlipAug',
            img_scale=(960, 720),
            transforms=[
                dict(
                    type='Normalize',
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                    to_rgb=True)
            ])
    ]))
gpu_ids = range(0, 1)
workflow = [('train', 1)]
seed = None
"""


def network(text: str = CONFIG) -> Any:
    return network_of(
        WeightFile(cityscapes_tensors(), original=original_config.parse(text), path="a.pth")
    )


def test_what_no_tensor_shows_is_taken_from_it() -> None:
    found = network()
    assert found.config.align_corners
    assert not found.config.head.scale_scores
    assert found.assumed == found.notes == ()
    assert found.protocol == Protocol("slide", (640, 640), (512, 512), train_height=720)
    other = CONFIG.replace("align_corners=True", "matmul_norm=True").replace("'slide'", "'whole'")
    found = network(other)
    assert not found.config.align_corners  # the framework's default
    assert found.config.head.scale_scores
    assert found.protocol.mode == "whole"


@pytest.mark.parametrize(
    ("written", "instead", "named"),
    [
        ("style='pytorch'", "style='tensorflow'", r"backbone\.style='tensorflow'"),
        ("style='pytorch'", "multi_grid=(1, 2, 4)", r"multi_grid must be a dilation for each"),
        ("dilations=(1, 1, 2, 4)", "dilations=tuple(x)", r"backbone\.dilations=tuple\(x\)"),
        ("ResNetV1c", "ResNeSt", r"backbone\.type='ResNeSt'"),
        ("ResNetV1c", "ResNeXt", r"backbone\.type='ResNeXt' instead of 'ResNet'"),
        ("style='pytorch'", "avg_down=True", r"avg_down=True instead of False"),
        ("style='pytorch'", "groups=32", r"backbone\.groups=32"),
        ("type='SyncBN'", "type='GN'", r"norm_cfg\.type='GN'"),
        ("type='SyncBN'", "type='BN', eps=0.001", r"norm_cfg\.eps=0\.001"),
        ("TMAHead", "ASPPHead", r"decode_head\.type='ASPPHead'"),
        ("TMAHead", "PSPHead", r"decode_head\.sequence_num=2"),
        ("in_index=3", "in_index=2", r"decode_head\.in_index=2"),
        ("in_index=3", "act_cfg=dict(type='GELU')", r"decode_head\.act_cfg={'type': 'GELU'}"),
        ("align_corners=True", "align_corners=1", r"decode_head\.align_corners=1"),
        ("EncoderDecoder", "CascadeEncoderDecoder", r"model\.type='CascadeEncoderDecoder'"),
        ("to_rgb=True", "to_rgb=False", r"Normalize\.to_rgb=False"),
        ("mean=[123.675,", "mean=[0.0,", r"Normalize\.mean=\(0\.0, 116\.28, 103\.53\)"),
        ("sequence_num=2", "sequence_num=4", r"num_memory=4 instead of 2"),
        ("num_classes=19", "num_classes=12", r"num_classes=12 instead of 19"),
        (
            "crop_size=(640, 640)",
            "crop_size=640",
            r"test_cfg of its configuration: crop_size is 640",
        ),
    ],
)
def test_what_this_project_does_not_have_is_refused_by_name(
    written: str, instead: str, named: str
) -> None:
    assert written in CONFIG
    with pytest.raises(UserError, match=rf"^a\.pth: .*{named}"):
        network(CONFIG.replace(written, instead))


def test_a_backbone_is_judged_by_its_part_alone() -> None:
    tensors = {
        f"backbone.{name}": tensor for name, tensor in backbone_of(cityscapes_tensors()).items()
    }
    file = WeightFile(
        tensors, original=original_config.parse(CONFIG.replace("TMAHead", "ASPPHead"))
    )
    alone = dataclasses.replace(file, tensors=backbone_of(tensors))
    assert network_of(alone).config == SMALL.backbone
    caffe = original_config.parse(CONFIG.replace("'pytorch'", "'caffe'"))
    found = network_of(dataclasses.replace(alone, original=caffe)).config
    assert found == dataclasses.replace(BACKBONE, style="caffe")


@pytest.mark.parametrize(
    ("written", "instead", "field", "value"),
    [
        ("style='pytorch'", "style='caffe'", "style", "caffe"),
        (",\n        contract_dilation=True", "", "contract_dilation", False),
        ("style='pytorch'", "multi_grid=(4,)", "multi_grid", (4,)),
        ("strides=(1, 2, 1, 1)", "strides=(1, 2, 2, 1)", "strides", (1, 2, 2, 1)),
        ("dilations=(1, 1, 2, 4)", "dilations=(1, 1, 1, 2)", "dilations", (1, 1, 1, 2)),
    ],
)
def test_what_no_tensor_shows_of_a_backbone_is_taken_from_it(
    tmp_path: Path, written: str, instead: str, field: str, value: object
) -> None:
    config = network(CONFIG.replace(written, instead)).config
    assert config.backbone == dataclasses.replace(SMALL.backbone, **{field: value})
    files.write(tmp_path / "file.safetensors", WeightFile(cityscapes_tensors(), config))
    with pytest.raises(UserError, match=rf"has {field}=.*set \"--config\.model\.{field}="):
        load.load_pretrained_backbone(tmp_path / "file.safetensors", small_of_19())


def test_names_and_parts_that_were_assigned_before_are_known() -> None:
    fields = original_config.parse(
        "base = dict(a=1, b=-2.5)\nmore = {**base, 'c': [None, True]}\nmodel = dict(**more, d=base)"
    )
    assert fields["model"] == {"a": 1, "b": -2.5, "c": (None, True), "d": {"a": 1, "b": -2.5}}


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(type=__import__('os').mkdir('{0}'))",
        "model = dict(**__import__('os').mkdir('{0}'))",
        "__import__('os').mkdir('{0}')\nmodel = dict(type='EncoderDecoder')",
        "model = dict(type=[open('{0}', 'w') for _ in range(3)])",
    ],
)
def test_nothing_in_it_is_run(tmp_path: Path, text: str) -> None:
    place = tmp_path / "ran"
    with contextlib.suppress(UserError):
        original_config.network_problems(original_config.parse(text.format(place)))
    assert not place.exists()


@pytest.mark.parametrize(
    "text", ["model = dict(", "a = 1", "(" * 10_000, "-" * 100_000 + "1", "\0", b"model", 7]
)
def test_what_is_no_configuration_is_told_at_once(text: object) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"its meta\['config'\]"):
        original_config.parse(text)
    assert time.monotonic() - begin < 1


CAMVID_OF_ORIGINAL = tuple(name.replace("sign_", "sing_") for name in CAMVID.names)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"CLASSES": CITYSCAPES.names, "PALETTE": CITYSCAPES.palette_Cx3}, CITYSCAPES),
        ({"CLASSES": list(CITYSCAPES.names), "PALETTE": None}, CITYSCAPES),
        (
            {"CLASSES": CAMVID_OF_ORIGINAL, "PALETTE": np.array(CAMVID.palette_Cx3).tolist()},
            CAMVID,
        ),
        ({"CLASSES": ("a",), "PALETTE": [[1, 2]]}, None),
        ({"CLASSES": ("a", "b"), "PALETTE": [[1, 2, 3]]}, None),
        ({"CLASSES": 19, "PALETTE": None}, None),
        ({}, None),
    ],
)
def test_classes_and_palette_are_taken_over(meta: dict[str, Any], expected: object) -> None:
    assert original_config.classes_of(meta) == expected


def test_nineteen_classes_of_others_are_not_those_of_cityscapes() -> None:
    names = tuple(f"land {index}" for index in range(19))
    palette = np.arange(57).reshape(19, 3)
    found = original_config.classes_of({"CLASSES": names, "PALETTE": palette})
    assert found is not None
    assert (found.names, found.palette_Cx3[18]) == (names, (54, 55, 56))
    assert found.name not in (CITYSCAPES.name, CAMVID.name)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """A file of 19 classes, named or not."""

    def write(classes: Any) -> Path:
        file = WeightFile(cityscapes_tensors(), SMALL_CITYSCAPES, classes)
        files.write(tmp_path / "file.safetensors", file)
        return tmp_path / "file.safetensors"

    return write


OTHERS = dataclasses.replace(
    CITYSCAPES, name="mine", names=("street", *CITYSCAPES.names[1:18], "kick-scooter")
)


def small_of_19() -> Any:
    return build(SMALL_CITYSCAPES, random_tensors(SMALL_CITYSCAPES, seed=2))


def test_weights_of_other_classes_are_not_scored(write: Callable[[Any], Path]) -> None:
    with pytest.raises(UserError) as error:
        load.load_checkpoint(files.read(write(OTHERS)), small_of_19(), classes=CITYSCAPES)
    assert (
        "class 0 is 'street' there and 'road' here, class 18 is 'kick-scooter' there and 'bicycle' "
        "here" in str(error.value)
    )
    assert "--config.init.classes=keep" in str(error.value)


def test_training_takes_new_classifiers_for_other_classes(write: Callable[[Any], Path]) -> None:
    model = small_of_19()
    report = load.load_checkpoint(
        files.read(write(OTHERS)), model, classes=CITYSCAPES, new_classifier_ok=True
    )
    assert "the classifiers are new" in str(report)
    assert "class 0 is 'street' there and 'road' here" in str(report)
    assert "decode_head.conv_seg.weight" in report.kept


@pytest.mark.parametrize("classes", [None, CITYSCAPES])
def test_other_spellings_and_unnamed_classes_are_no_difference(
    write: Callable[[Any], Path], classes: Any
) -> None:
    spelt = tuple(name.title().replace(" ", "_") for name in CITYSCAPES.names)
    named = classes and dataclasses.replace(classes, names=spelt)
    report = load.load_checkpoint(files.read(write(named)), small_of_19(), classes=CITYSCAPES)
    assert report.kept == report.notes == ()


def test_the_scaling_of_scores_must_be_the_files(write: Callable[[Any], Path]) -> None:
    model = small_of_19()
    model.config = dataclasses.replace(
        model.config, head=dataclasses.replace(model.config.head, scale_scores=False)
    )
    with pytest.raises(UserError, match=r"set --config\.model\.scale_scores=True"):
        load.load_checkpoint(files.read(write(None)), model)


def test_another_up_sampling_than_the_files_is_told(write: Callable[[Any], Path]) -> None:
    model = small_of_19()
    model.config = dataclasses.replace(model.config, align_corners=True)
    report = load.load_checkpoint(files.read(write(None)), model)
    assert "trained with align_corners=False, this run has True" in str(report)


def test_who_says_how_logits_are_up_sampled_wins_over_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    files.write(path, WeightFile(cityscapes_tensors()))
    config = default.get_config()
    config.data.dir = "records"
    config.init.checkpoint = str(path)
    config.model.align_corners = False
    for told, expected in (((), True), (("model.align_corners",), False)):
        run = settings.from_config(config, told)
        assert with_model_of_file(run, files.read(path)).model.align_corners == expected
    assert not load.load_model(path, align_corners=False).model.config.align_corners
    with pytest.raises(UserError, match="align_corners is '64'"):
        Segmenter.load(path, align_corners="64")  # type: ignore[arg-type]
