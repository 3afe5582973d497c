"""The documentation site, built as `make docs` builds it, and Python of its pages that runs.

Its notebooks run, too: an exception in a cell fails.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tmanet_jax
from tests import processes
from tests.made.small_videos import numbered, write_video
from tests.made.tiny_weights import write_weights

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(site)]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=processes.PROJECT,
        env=processes.environment(num_devices=1),
        capture_output=True,
        text=True,
        timeout=2 * processes.SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.parametrize(
    ("notebook", "num_pictures"), [("segment", 6), ("memory", 8), ("own_data", 7), ("original", 1)]
)
def test_a_notebook_shows_its_pictures(site: Path, notebook: str, num_pictures: int) -> None:
    page = (site / "notebooks" / f"{notebook}.html").read_text()
    assert len(re.findall(r'<img[^>]+src="\.\./_images/', page)) == num_pictures
    assert f"/{notebook}.ipynb" in page


def test_what_is_made_of_the_code_is_there(site: Path) -> None:
    for page, said in (
        ("configuration", "learning_rate"),
        ("configuration", "pool_scales"),
        ("commands", "--memory-stride"),
        ("commands", "python -m benchmarks stream"),
        ("map", "memory_kernels.py"),
        *(("api", f'id="tmanet_jax.{name}"') for name in tmanet_jax.__all__),
    ):
        assert said in (site / f"{page}.html").read_text(), (page, said)


def test_it_is_read_without_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)\"", page.read_text()
        )
        assert not loaded, page


def test_the_segmenter_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (processes.PROJECT / "docs" / "segment.md").read_text()
    write_video(
        tmp_path / "drive.mp4", (numbered(number, (64, 128)) for number in range(3)), "libx264"
    )
    monkeypatch.chdir(tmp_path)
    frame = np.zeros((64, 128, 3), np.uint8)
    there: dict[str, Any] = {
        "left_frame": frame,
        "right_frame": frame,
        "frames_SxHxWx3": np.zeros((3, 96, 192, 3), np.uint8),
    }
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    write_weights(tmp_path / "runs" / "demo" / "tmanet.safetensors")
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, there)
    assert there["result"].index == 2
    assert there["left"].labels.shape == (64, 128)
    assert there["maps_PxTxhxw"].shape[:2] == (1, 2)
