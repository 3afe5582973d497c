"""How frames are segmented: what it says of sizes, what it refuses, who says it last."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tmanet_jax.errors import UserError
from tmanet_jax.inference.windows import remarks
from tmanet_jax.protocol import EvalConfig, Protocol, parse_scale
from tmanet_jax.workdir import read_protocol

HD = (1080, 1920)


@pytest.mark.parametrize(
    ("protocol", "ratio", "size"),
    [
        (Protocol(), 1.0, HD),
        (Protocol(), 0.5, (540, 960)),
        (Protocol(scale=0.25), 1.0, (270, 480)),
        (Protocol(scale=0.25), 2.0, (540, 960)),
        (Protocol(scale=(512, 1024)), 1.0, (512, 910)),
        (Protocol(scale=(512, 1024)), 0.5, (256, 455)),
        (Protocol(train_height=128), 1.0, (128, 228)),
        (Protocol(train_height=128), 2.0, (256, 455)),
        (Protocol(train_height=720), 1.0, HD),
        (Protocol(train_height=719), 1.0, (719, 1278)),
        (Protocol(scale=1.0, train_height=128), 1.0, HD),
    ],
)
def test_frames_keep_their_ratio_at_every_scale(
    protocol: Protocol, ratio: float, size: tuple[int, int]
) -> None:
    assert protocol.size_of(HD, ratio) == size


@pytest.mark.parametrize("height", [193, 240, 1080, 1921])
@pytest.mark.parametrize("width", [1, 100, 1080, 4000])
def test_by_default_a_frame_gets_the_height_of_training_whatever_its_width(
    height: int, width: int
) -> None:
    assert Protocol(train_height=128).size_of((height, width)).height == 128


@pytest.mark.parametrize(
    ("fields", "ratio"), [({"scale": 1e-4}, 1.0), ({"scale": 1e4}, 1.0), ({}, 1e-3), ({}, 1000.0)]
)
def test_a_scale_that_leaves_nothing_or_too_much_is_refused(
    fields: dict[str, Any], ratio: float
) -> None:
    with pytest.raises(UserError, match=r"128x256 pixels would be resized to .*choose another"):
        Protocol(**fields).size_of((128, 256), ratio)


@pytest.mark.parametrize(
    "fields",
    [
        *({"mode": "tiles"}, {"crop_size": 769}, {"crop_size": None}, {"crop_size": (9.5, 9)}),
        *({"crop_size": (0, 9)}, {"stride": (800, 800)}, {"stride": (0, 1)}, {"stride": [1, 1]}),
        *({"scale": 0}, {"scale": -1.0}, {"scale": float("nan")}, {"scale": float("inf")}),
        *({"scale": True}, {"scale": "half"}, {"scale": (512,)}, {"scale": (512, 0)}),
        *({"memory_stride": 0}, {"memory_stride": 10**9}, {"memory_stride": 1.5}),
        *({"train_height": 0}, {"train_height": "1024"}),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused_by_name(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(UserError, match=name):
        Protocol(**fields)


def test_scales_of_a_command_line() -> None:
    assert parse_scale("0.5") == 0.5
    assert parse_scale("512x1024") == (512, 1024)
    for text in ("half", "512x", "x", "512x1024x3", ""):
        with pytest.raises(UserError, match="scale"):
            parse_scale(text)


def test_what_is_told_goes_before_the_weights_and_these_before_the_configuration() -> None:
    configured = EvalConfig(Protocol("whole", (64, 64), (32, 32)))
    of_weights = Protocol("slide", (96, 192), (32, 64), memory_stride=3, train_height=128)
    assert configured.for_weights(None) == configured
    assert configured.for_weights(of_weights).protocol == of_weights
    told = configured.override(scale=0.5, memory_stride=None)
    expected = Protocol("slide", (96, 192), (32, 64), 0.5, memory_stride=3, train_height=128)
    assert told.for_weights(of_weights).protocol == expected
    assert "configuration has whole" in configured.compared_with(of_weights)
    assert "configuration" not in EvalConfig(of_weights).compared_with(of_weights)


def test_what_is_remarkable_of_a_size_is_told() -> None:
    slide = Protocol("slide", (96, 192), (32, 64), train_height=128)
    assert remarks(slide, (128, 256)) == remarks(slide, (192, 300)) == []
    (line,) = remarks(slide, HD)
    assert "1080x1920 pixels are resized to 128x228" in line and "128 rows" in line
    (line,) = remarks(Protocol("slide", (96, 192), (32, 64), scale=1.0), HD)
    assert "1080x1920 pixels takes 896 windows" in line


def test_a_workdir_says_how_its_network_is_scored(tmp_path: Path) -> None:
    assert read_protocol(tmp_path) is None
    protocol = Protocol("slide", (96, 192), (32, 64), (128, 256), memory_stride=3)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"protocol": dataclasses.asdict(protocol)}))
    assert read_protocol(tmp_path) == protocol
    path.write_text('{"config": {}}')
    assert read_protocol(tmp_path) is None
    for damaged in ("{", '{"protocol": {"mode": "tiles"}}', '{"protocol": 3}'):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json"):
            read_protocol(tmp_path)
