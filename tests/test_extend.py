"""The examples of docs/extend.md, taken from the page: files that each add a part that works.

The data set is tried by data_prep/test_data_set.py.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import in_process, processes
from tests.made import tiny_runs
from tmanet_jax import command_line
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.losses import PIXEL_LOSSES, LossConfig
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.settings import Settings
from tmanet_jax.training.loggers import LOGGERS
from tmanet_jax.training.logs import RunLog
from tmanet_jax.weights import load

PAGE = (processes.PROJECT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"```python title=(\S+)\n(.*?)```", PAGE, flags=re.DOTALL))
OF = {
    "focal.py": {"TMAHeadConfig"},
    "json_lines.py": {"TMAHeadConfig"},
    "mean_head.py": {"MeanConfig"},
    "patches.py": {"PatchesConfig"},
}
"""Which configurations there are, and what their networks have."""


@pytest.fixture(autouse=True)
def tables_stay_as_they_are() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for table in (PIXEL_LOSSES, HEADS, BACKBONES, LOGGERS):
            stack.enter_context(mock.patch.dict(table))
        yield


def written(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_text(FILES[name])
    return path


def settings_of(name: str, folder: Path) -> Settings:
    return command_line.read_config(str(written(name, folder)), []).settings


def test_each_has_fewer_than_60_lines() -> None:
    assert len(FILES) == 5
    assert max(len(text.splitlines()) for text in FILES.values()) < 60


def test_the_loss_counts_what_is_easy_for_less(tmp_path: Path) -> None:
    settings = settings_of("focal.py", tmp_path)
    assert (settings.loss.name, settings.loss.added) == ("focal", ("dice=0.5",))
    nll_BxHxW = -jnp.log(jnp.array([[[0.5, 0.9]]]))
    loss = PIXEL_LOSSES["focal"](nll_BxHxW, jnp.zeros((1, 1, 2), jnp.uint8), LossConfig())
    expected = -(0.25 * np.log(0.5) + 0.01 * np.log(0.9)) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "size"),
    [("mean_head.py", (8, 12)), ("patches.py", (16, 24))],
    ids=["head", "backbone"],
)
def test_the_network_makes_logits_of_a_clip(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    model = settings_of(name, tmp_path).model
    frames_BxSxHxWx3 = jnp.zeros((2, 3, 64, 96, 3))
    logits = nnx.eval_shape(
        lambda frames: TMANet(model, rngs=nnx.Rngs(0))(frames, train=True), frames_BxSxHxWx3
    )
    assert logits.main.shape == (2, *size, 19)


def test_the_logger_writes_a_line_a_point(tmp_path: Path) -> None:
    settings = settings_of("json_lines.py", tmp_path)
    assert "json_lines" in settings.log.to
    with RunLog(tmp_path, 0, ("json_lines",)) as log:
        log.scalars(3, {"loss": 0.5})
    lines = (tmp_path / "curves.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 3, "loss": 0.5}]


@pytest.mark.docs
@pytest.mark.parametrize("name", OF)
def test_it_trains_and_its_weights_load(name: str, data_dir: Path, tmp_path: Path) -> None:
    config, workdir = written(name, tmp_path), tmp_path / "run"
    of_others = {
        "mean_head.py": ("key_", "value_", "neighbourhood"),
        "patches.py": ("width", "blocks"),
    }
    fields = [
        flag
        for flag in tiny_runs.FLAGS[1:]
        if not flag.startswith(tuple(f"--config.model.{of}" for of in of_others.get(name, ())))
    ]
    words = [f"--config={config}", f"--workdir={workdir}", f"--config.data.dir={data_dir}"]
    done = in_process.called([*words, *fields, "--config.num_steps=2"])
    assert done.returncode == 0, done.stderr
    network = load.load_model(workdir / "tmanet.safetensors").model.config
    assert {type(network.head).__name__, type(network.backbone).__name__} & OF[name]
