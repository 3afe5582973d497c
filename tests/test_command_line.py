"""Modes, their options and help, and what is told of words that are none of these."""

import re

import pytest

from tests import in_process


@pytest.mark.parametrize(
    ("words", "own", "foreign"),
    [
        ((), ("--config", "--workdir", "--distributed", "predict  "), ("--submit", "--input")),
        (("predict",), ("--input", "--memory-stride", "--distributed"), ("--submit",)),
        (("eval", "--config=configs/demo.py"), ("--submit",), ("--memory-stride",)),
    ],
)
def test_each_mode_has_help_of_its_own(
    words: tuple[str, ...], own: tuple[str, ...], foreign: tuple[str, ...]
) -> None:
    done = in_process.called([*words, "--help"])
    assert done.returncode == 0
    assert all(option in done.stdout for option in own)
    assert not any(option in done.stdout for option in foreign)


def test_the_fields_of_a_configuration_are_printed_and_what_differs_is_marked() -> None:
    done = in_process.called(["config", "--config=camvid", "--config.seed=3"])
    assert done.returncode == 0
    said = re.sub(r"\s+", " ", done.stdout)
    assert "* config.seed = 3 of initial weights" in said
    assert "* config.data.crop_size = (640, 640) of the network's input; two whole numbers" in said
    assert "(height, width in pixels); default (769, 769) (the original's Cityscapes" in said
    assert " config.model.head_channels = 512 of the bottleneck" in said
    assert "* config.model.head_channels" not in said


def test_a_field_that_a_configuration_sets_can_be_none_again() -> None:
    words = ["--config.model.blocks=None", "--config.model.neighbourhood=None"]
    done = in_process.called(["config", "--config=configs/demo.py", *words])
    assert done.returncode == 0
    assert "  config.model.blocks = None" in done.stdout
    assert "  config.model.neighbourhood = None" in done.stdout


@pytest.mark.parametrize("config", ["citiscapes", "elsewhere/cityscapes.py"])
def test_a_configuration_that_is_not_there_is_told_with_the_nearest(config: str) -> None:
    done = in_process.called([f"--config={config}"])
    assert done.returncode == 2
    assert f"There is no configuration '{config}', neither a file nor one of" in done.stderr
    assert "Did you mean --config=cityscapes?" in done.stderr
    done = in_process.called(["--config=configs/finetun.py:runs/demo"])
    assert "Did you mean --config=finetune:runs/demo?" in done.stderr


def test_a_configuration_chooses_backbone_and_heads() -> None:
    done = in_process.called(
        [
            "config",
            "--config=configs/demo.py",
            "--config.model.backbone=mobilenet_v2",
            "--config.model.head",
            "psp",
            "--config.model.pool_scales=(1,2)",
            "--config.model.aux_head=psp",
        ]
    )
    assert done.returncode == 0
    said = re.sub(r"\s+", " ", done.stdout)
    assert (
        "* config.model.backbone = 'mobilenet_v2' from frames to features; one of 'resnet'" in said
    )
    assert "* config.model.pool_scales = (1, 2) rows and columns" in said
    assert "* config.model.head_channels = 64 of" in said  # the demo's
    assert "* config.model.aux_channels = 32 of" in said
    assert " config.model.aux_stages = (3,) stages" in said
    for of_others in ("depth", "key_channels", "num_memory", "aux_num_convs", "aux_num_classes"):
        assert f"config.model.{of_others} " not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.model.dept=18"], "Did you mean config.model.depth?"),
        (["--config.mdel.depth", "18"], "Did you mean config.model.depth?"),
        (["--config.model.head=psq"], "one of 'tma', 'fcn', 'psp', not 'psq'. Did you mean 'psp'?"),
        (
            ["--config.model.head=psp", "--config.model.num_memory=4"],
            "config.model.num_memory goes with config.model.head=tma, not with psp",
        ),
        (["--config.model.multi_gird=(1,)"], "Did you mean config.model.multi_grid?"),
        (["--config.model.aux_head=tma"], "config.model.aux_num_memory must be 0"),
        (["--submti=results"], "--submti is no option. Did you mean --submit?"),
        (["eval", "--input=drive.mp4"], "--input goes with mode predict and explain, not eval"),
        (["--num-processes=many"], "--num-processes: invalid int value: 'many'"),
        (["--start-timeout=0"], "'0' is no whole number from 1 on"),
        (["predict", "--workdir"], "--workdir: expected one argument"),
        (["config", "train"], "'config train' is no mode"),
    ],
)
def test_a_word_that_is_no_option_is_told_with_the_nearest(words: list[str], message: str) -> None:
    done = in_process.called(["--config=configs/demo.py", *words])
    assert done.returncode == 2
    assert message in done.stderr
