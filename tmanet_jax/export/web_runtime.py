"""The files of ONNX Runtime for browsers: one version of its npm package, by its checksums."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from tmanet_jax.errors import UserError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
SHA256 = {
    # on the CPU
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
    # with WebGPU
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": (
        "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28"
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": (
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da"
    ),
}
"""What is taken from the package's `dist`."""

_MEMBERS = ("package.json", *(f"dist/{name}" for name in SHA256))
_AGAIN = f"`npm pack {PACKAGE}` fetches it"


def runtime_files(source: str) -> dict[str, bytes]:
    """The runtime by file name.

    Args:
        source: the package's folder or tarball; empty: npm fetches it.

    Raises:
        UserError: there is no npm, it cannot fetch the package, or the source is not that package
            of that version, whole.
    """
    if not source:
        with tempfile.TemporaryDirectory() as folder:
            return _checked(_of_tarball(_fetched(Path(folder))), PACKAGE)
    path = Path(source)
    return _checked(_of_folder(path) if path.is_dir() else _of_tarball(path), source)


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"Format web needs {PACKAGE}, and there is no npm here to fetch it: install npm, or "
            f"run `npm pack {PACKAGE}` elsewhere and say --runtime=FILE."
        )
    done = subprocess.run(
        [npm, "pack", PACKAGE, "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode or not tarballs:
        said = next((line for line in done.stderr.splitlines() if line.strip()), "no reason given")
        raise UserError(
            f"npm cannot fetch {PACKAGE} ({said}): see to its network, or run `npm pack {PACKAGE}` "
            "elsewhere and say --runtime=FILE."
        )
    return tarballs[0]


def _of_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _MEMBERS if (folder / name).is_file()}


def _of_tarball(path: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content and (name := member.name.removeprefix("package/")) in _MEMBERS:
                    files[name] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        why = str(error).splitlines()[0].rstrip(":")
        raise UserError(
            f"--runtime={path} is no whole package ({why}): {_AGAIN}; its folder will do, too."
        ) from error
    return files


def _checked(files: dict[str, bytes], source: str) -> dict[str, bytes]:
    version = _version(files.pop("package.json", b"{}"))
    if version != VERSION:
        raise UserError(
            f"{source} is {version or 'no onnxruntime-web'}: version {VERSION} is expected, the "
            f"one this project is tested with. {_AGAIN}."
        )
    for name, expected in SHA256.items():
        if hashlib.sha256(files.get(f"dist/{name}", b"")).hexdigest() != expected:
            raise UserError(
                f"{source}: dist/{name} is missing or not the one of {PACKAGE}: {_AGAIN}."
            )
    return {name: files[f"dist/{name}"] for name in SHA256}


def _version(package: bytes) -> str:
    """Of onnxruntime-web; empty: it is something else."""
    try:
        about = json.loads(package)
    except ValueError:
        return ""
    is_it = isinstance(about, dict) and about.get("name") == "onnxruntime-web"
    return str(about.get("version")) if is_it else ""
