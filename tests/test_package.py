"""The package: what it declares; and the group `package`: the wheel used without the checkout."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement

import tmanet_jax
from tests import processes
from tests.made import tiny_runs
from tmanet_jax.__main__ import PREPARATIONS
from tmanet_jax.program import advice

DECLARED = tomllib.loads((processes.PROJECT / "pyproject.toml").read_text())
INSIDE = "tmanet_jax.checkout."
OF_A_CHECKOUT = ("selenium", "cityscapesScripts", "libtpu", "qwix", "torchvision")
"""What tests and benchmarks use, and the package does not."""

PIN = re.compile(r"^(\w[\w.-]*)==(\S+)", re.MULTILINE)


def test_the_known_good_set_lies_in_the_ranges() -> None:
    groups = [DECLARED["project"]["dependencies"]]
    groups += DECLARED["project"]["optional-dependencies"].values()
    ranges = {
        Requirement(line).name: Requirement(line).specifier for each in groups for line in each
    }
    for file in processes.PROJECT.glob("requirements*.txt"):
        for name, version in PIN.findall(file.read_text()):
            assert name in OF_A_CHECKOUT or version in ranges[name], f"{file.name}: {name}"


def test_every_folder_of_modules_is_packaged() -> None:
    found = {
        ".".join(path.parent.relative_to(processes.PROJECT).parts)
        for folder in ("tmanet_jax", "configs", "data_prep")
        for path in (processes.PROJECT / folder).rglob("__init__.py")
    }
    packaged = {name.removeprefix(INSIDE) for name in DECLARED["tool"]["setuptools"]["packages"]}
    assert packaged == found | {INSIDE.rstrip(".")}


def test_every_program_that_prepares_has_its_command() -> None:
    programs = (processes.PROJECT / "data_prep").glob("*.py")
    assert set(PREPARATIONS) == {
        path.stem for path in programs if 'if __name__ == "__main__"' in path.read_text()
    }


def test_the_version_stands_in_the_citation_too() -> None:
    citation = (processes.PROJECT / "CITATION.cff").read_text()
    assert f"\nversion: {tmanet_jax.__version__}\n" in citation


def test_advice_is_what_the_user_can_type(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "python run.py config --config=configs/demo.py, python -m data_prep.folder --help"
    assert advice(text) == text
    monkeypatch.setattr(sys, "argv", ["/usr/bin/tmanet"])
    assert advice(text) == "tmanet config --config=demo, tmanet prepare folder --help"
    assert advice("python -m tmanet_jax.weights A B") == "tmanet weights A B"
    users = "/home/data_prep.old/a.png, x/--config=configs/demo.py"
    assert advice(users) == users
    torch = "pip install -r requirements-torch.txt."
    assert advice(torch) == 'pip install "tmanet-jax[torch]".'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of the source distribution, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(command, cwd=processes.PROJECT, capture_output=True, check=True)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of an environment with the wheel and the libraries of this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    paths = {"base": str(home), "platbase": str(home)}
    libraries = Path(sysconfig.get_path("purelib", "venv", paths))
    (libraries / "of_this_one.pth").write_text(sysconfig.get_path("purelib"))
    programs = Path(sysconfig.get_path("scripts", "venv", paths))
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], capture_output=True, check=True)
    return programs


def called(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = processes.environment()
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=processes.SECONDS,
        check=False,
    )


@pytest.mark.package
def test_the_wheel_owns_one_name_and_has_every_module(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    version = tmanet_jax.__version__
    assert {name.split("/")[0] for name in held} == {
        "tmanet_jax",
        f"tmanet_jax-{version}.dist-info",
    }
    for folder in ("tmanet_jax", "configs", "data_prep"):
        inside = "" if folder == "tmanet_jax" else INSIDE.replace(".", "/")
        for path in (processes.PROJECT / folder).rglob("*"):
            name = inside + path.relative_to(processes.PROJECT).as_posix()
            assert path.is_dir() or "__pycache__" in path.parts or name in held, name


@pytest.mark.package
def test_a_network_is_made_and_used_without_the_checkout(programs: Path, tmp_path: Path) -> None:
    tmanet, python = programs / "tmanet", programs / "python"
    for split in ("train", "val"):
        for kind in ("frames", "labels"):
            (tmp_path / f"mine/{kind}/{split}/a").mkdir(parents=True)
        for number in range(4):
            frame = np.random.default_rng(number).integers(0, 256, (64, 128, 3), np.uint8)
            cv2.imwrite(f"{tmp_path}/mine/frames/{split}/a/{number:06d}.png", frame)
            cv2.imwrite(f"{tmp_path}/mine/labels/{split}/a/{number:06d}.png", frame[..., 0] // 128)
    classes = "name,red,green,blue\nroad,90,90,90\ncar,200,0,0\n"
    (tmp_path / "mine/classes.csv").write_text(classes)
    done = called(tmp_path, tmanet, "prepare", "folder", "--source=mine", "--out=data/mine")
    assert done.returncode == 0, done.stderr
    tiny = [word for word in tiny_runs.FLAGS if not word.startswith("--config=")]
    of_mine = ("--config.data.dir=data/mine", "--config.model.num_classes=2")
    of_run = ("--config.num_steps=2", "--config.data.num_workers=2", "--workdir=run")
    done = called(tmp_path, tmanet, "--config=demo", *tiny, *of_mine, *of_run)
    assert done.returncode == 0, done.stderr
    done = called(
        tmp_path, tmanet, *("predict", "--workdir=run", "--input=mine/frames/val/a", "--output=out")
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("*.mp4"))
    done = called(tmp_path, tmanet, "weights", "run/last.safetensors", "other.safetensors")
    assert done.returncode == 0, done.stderr
    segment = (
        "import sys, tmanet_jax; "
        "tmanet_jax.Segmenter.load('other.safetensors'); "
        "tmanet_jax.read_settings('cityscapes', {'num_steps': 2}); "
        "print(tmanet_jax.__file__, *sys.path)"
    )
    done = called(tmp_path, python, "-c", segment)
    assert done.returncode == 0, done.stderr
    assert str(processes.PROJECT) not in done.stdout


@pytest.mark.package
@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--config=cityscapes"], 2, "tmanet prepare cityscapes --source=DIR"),
        (["--config=citiscapes"], 2, "Did you mean --config=cityscapes?"),
        (["prepare", "--help"], 0, "tmanet prepare cityscapes|camvid|"),
        (["prepare", "citiscapes"], 2, "tmanet prepare cityscapes|camvid|"),
        (["prepare", "folder", "--help"], 0, "tmanet prepare folder --source=DIR --out=DIR"),
        (["--help"], 0, "\n  prepare "),
    ],
)
def test_what_is_told_can_be_typed(
    programs: Path, tmp_path: Path, words: list[str], status: int, told: str
) -> None:
    done = called(tmp_path, programs / "tmanet", *words)
    assert done.returncode == status, done.stderr
    assert told in done.stdout + done.stderr
    assert "python run.py" not in done.stdout + done.stderr
