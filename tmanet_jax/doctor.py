"""What this machine has for a run, what is wrong with it, and what to do about that."""

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import jax
import jax.numpy as jnp
from flax import nnx

from tmanet_jax import compilation_cache
from tmanet_jax.errors import UserError
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.program import FOLDER

DISTRIBUTION = "tmanet-jax"
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_LEAST_DISK = 2 * 2**30
_SMALL = ModelConfig(
    ResNetConfig(depth=18, width=4, blocks=(1, 1, 1, 1)),
    TMAHeadConfig(num_classes=3, num_memory=1, key_channels=4, value_channels=4, channels=8),
)


class Finding(NamedTuple):
    """A line of the examination.

    Attributes:
        name: what was looked at.
        found: what it is.
        remedy: what to do, where something is wrong.
    """

    name: str
    found: str
    remedy: str = ""


def examine_machine() -> None:
    """Prints every finding as it is made.

    Raises:
        UserError: something is wrong; it says what to do.
    """
    remedies = []
    for finding in _findings():
        print(f"{finding.name:<22}{finding.found}", flush=True)
        if finding.remedy:
            remedies.append(f"{finding.name}: {finding.remedy}")
    if remedies:
        raise UserError("Something is wrong. " + " ".join(remedies))


def _findings() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()}, {platform.platform()}")
    yield from _packages()
    yield Finding("cpu", _cpu())
    yield Finding("memory", _memory())
    yield from (_room(Path.cwd()), _cache())
    yield _encoder()
    for device in jax.local_devices():  # those of a pod's other machines are not at hand
        yield _step(device)


def _packages() -> Iterator[Finding]:
    """Those that a run needs, then those of extras, as the distribution or this checkout lists."""
    try:
        needed, is_installed = importlib.metadata.requires(DISTRIBUTION) or [], True
    except importlib.metadata.PackageNotFoundError:
        needed, is_installed = _needed_by_checkout(), False
        yield Finding(DISTRIBUTION, "run from its folder, not installed")
    listed: dict[str, str | None] = {}
    for line in needed:  # what a run needs comes first
        listed.setdefault(re.split(r"[^\w.-]", line)[0], _extra(line))
    listed |= {"jaxlib": None}
    versions = {name: _version(name) for name in listed}
    missing = [name for name, extra in listed.items() if not extra and versions[name] is None]
    there = [f"{name} {version}" for name, version in versions.items() if version is not None]
    remedy = f"install {' '.join(missing)}." if missing else ""
    yield Finding("packages", ", ".join(there), remedy)
    without: dict[str, list[str]] = {}
    for name, extra in listed.items():
        if extra and versions[name] is None:
            without.setdefault(extra, []).append(name)
    for extra, names in without.items():
        yield Finding(f"without {extra}", ", ".join(names))
    if without:
        of_checkout = " ".join(f"-r requirements-{extra}.txt" for extra in without)
        of_extras = f'"{DISTRIBUTION}[{",".join(without)}]"'
        yield Finding(
            "all of these by", f"pip install {of_extras if is_installed else of_checkout}"
        )


def _needed_by_checkout() -> list[str]:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    of_extras = [
        f'{line}; extra == "{extra}"'
        for extra, lines in project["optional-dependencies"].items()
        for line in lines
    ]
    return [*project["dependencies"], *of_extras]


def _extra(requirement: str) -> str | None:
    """Which one asks for it, as in 'wandb>=0.31; extra == "wandb"'."""
    found = re.search(r"""extra == ['"]([\w-]+)""", requirement)
    return found and found[1]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """Cores that this process may use, and what of the instructions that networks gain from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        flags = set(Path("/proc/cpuinfo").read_text().split())
    return f"{cores} cores, {platform.machine()} {' '.join(f for f in _CPU_FLAGS if f in flags)}"


def _memory() -> str:
    """Of the machine; only Linux tells what is free."""
    sizes = dict(re.findall(r"(Mem\w+): +(\d+) kB", _meminfo()))
    if not sizes:
        return "not told by this system"
    total, free = (int(sizes[name]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{total:.1f} GiB, {free:.1f} GiB of it available"


def _meminfo() -> str:
    try:
        return Path("/proc/meminfo").read_text()
    except OSError:
        return ""


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    remedy = "free some disk: checkpoints and records need gigabytes." if free < _LEAST_DISK else ""
    return Finding("disk", f"{free / 2**30:.1f} GiB free in {folder}", remedy)


def _cache() -> Finding:
    """Whether compiled programs can be kept."""
    folder = compilation_cache.DIRECTORY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        size = sum(path.stat().st_size for path in folder.iterdir())
    except OSError as error:
        return Finding(
            "compiled programs",
            f"cannot be kept in {folder}: {error}",
            "name another folder in JAX_COMPILATION_CACHE_DIR, or every start compiles anew.",
        )
    return Finding("compiled programs", f"{size / 2**20:.0f} MiB kept in {folder}")


def _encoder() -> Finding:
    try:
        av.CodecContext.create("libx264", "w")
    except ValueError as error:
        return Finding("h264", f"cannot be written: no {error}", "reinstall av from its wheels.")
    return Finding("h264", f"libx264, av {av.__version__}")


def _step(device: jax.Device) -> Finding:
    """A small network's gradient there."""
    name, began = f"{device.platform} {device.id}", time.monotonic()
    try:
        with jax.default_device(device):
            norm = _norm_of_gradient()
    except RuntimeError as error:  # jax's, of a device that is full or has no driver that fits
        remedy = "free it of other programs, or install the jaxlib that fits its driver."
        return Finding(name, f"{device.device_kind}: {str(error).splitlines()[0]}", remedy)
    took = f"{device.device_kind}: a small network's gradient in {time.monotonic() - began:.1f} s"
    if not math.isfinite(norm):
        return Finding(name, took, "its gradient is not finite: try another jaxlib or driver.")
    return Finding(name, f"{took}, compilation included")


def _norm_of_gradient() -> float:
    @nnx.jit
    def norm(model: TMANet, clip_BxSxHxWx3: jax.Array) -> jax.Array:
        gradients = nnx.grad(lambda model: model(clip_BxSxHxWx3).main.mean())(model)
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients)))

    return float(norm(TMANet(_SMALL, rngs=nnx.Rngs(0)), jnp.ones((1, 2, 32, 32, 3))))
