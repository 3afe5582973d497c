"""Commands of the pages, run one after the other, with the smallest network in the demo's place.

Left out is what a page's other commands show as well, what takes minutes, and what needs more than
the group has: downloads, other engines, a camera. `tests/test_readme.py` parses those.
"""

import contextlib
import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest

import run
from tests import in_process, processes
from tests.made import small_folder, tiny_runs
from tests.made.small_videos import numbered, write_video
from tests.test_readme import PAGES, blocks

pytestmark = pytest.mark.docs

RUN = ("start", "segment", "evaluate", "runs", "choosing", "export")
LEFT_OUT = re.compile(
    r"^pip |cityscapes\.py |weights tmanet_|benchmarks|--engine|--format=(onnx|web)|--serve"
    r"|^python run\.py --config=configs/demo\.py$"
)
CLASSES = "name,red,green,blue,values\nroad,90,90,90,0\nother,200,0,0,1;2\n"


def commands(page: str) -> list[str]:
    text = PAGES[processes.PROJECT / "docs" / f"{page}.md"]
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
    return [line for line in lines if not LEFT_OUT.search(line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader types: a trained network and its records, data of their own, and a video."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(processes.PROJECT / "configs")
    tiny_runs.render_records(folder / "data" / "demo")
    trains = (f"--workdir={folder / 'runs' / 'demo'}", "--config.num_steps=4")
    done = tiny_runs.called(folder / "data" / "demo", *trains)
    assert done.returncode == 0, done.stderr
    for name in ("a", "b"):
        shutil.copytree(folder / "runs" / "demo", folder / "runs" / name)
    source = small_folder.write_source(folder / "mine")
    (source / "classes.csv").write_text(CLASSES)
    shutil.copytree(source / "labels" / "val" / "drive", source / "labels" / "val" / "a")
    frames = [numbered(number) for number in range(42)]
    for path in (folder / "drive.mp4", source / "frames" / "val" / "a.mp4"):
        write_video(path, frames, "libx264")
    return folder


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_do_what_it_says(page: str, folder: Path) -> None:
    assert commands(page)
    with contextlib.chdir(folder), tiny_runs.rendered_here():
        for command in commands(page):
            assert status_of(shlex.split(command)[1:]) == 0, command


def status_of(words: list[str]) -> int:
    if words[0] == "-m":
        status: int = importlib.import_module(words[1]).main(words[2:])
        return status
    if "configs/finetune.py" in "".join(words):
        words += ["--config.num_steps=2"]
    if "--config=configs/demo.py" in words and words[1] in ("eval", "consistency"):
        words += [word for word in tiny_runs.FLAGS[1:] if word.split("=")[0] not in "".join(words)]
    with in_process.as_before(), mock.patch.object(sys, "argv", words):
        return run.main(words)
