"""What a folder of predictions was made of, so that two inputs or networks are never mixed."""

import dataclasses
import hashlib
import json
import re
import time
from pathlib import Path

from tmanet_jax.data import strict_json
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.video.frames import is_video, picture_files
from tmanet_jax.video.read import is_stream
from tmanet_jax.weights import files
from tmanet_jax.weights.files import content_digest
from tmanet_jax.weights.networks import network_of

MANIFEST_FILE = "predict.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What decides the predictions, and how far they are.

    Attributes:
        input: name and fingerprint of the frames.
        checkpoint: fingerprint of the weights.
        how: the way in which frames are segmented.
        is_video_whole: whether the video has every frame.
        sound: "keep" or "none", of a video that is whole.
        problems: broken frames: index and reason.
    """

    input: str
    checkpoint: str
    how: str
    is_video_whole: bool = False
    sound: str = "keep"
    problems: tuple[tuple[int, str], ...] = ()

    def write(self, folder: Path) -> None:
        """Writes the file, whole or not at all."""
        content = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_whole(folder / MANIFEST_FILE, content.encode())


def open_manifest(
    folder: Path, wanted: Manifest, weights: Path, outputs: tuple[str, ...]
) -> Manifest:
    """The manifest of a folder: the one that is there if it goes on, or else the wanted one.

    Args:
        folder: made when it is not there.
        wanted: of the run that begins.
        weights: their file.
        outputs: names, in the folder, of what a run writes.

    Raises:
        UserError: the folder holds predictions of something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _read(folder / MANIFEST_FILE)
        if found is None:
            there = [name for name in outputs if (folder / name).exists()]
            if there:
                raise UserError(
                    f"{folder} holds {', '.join(there)} of nobody knows what: there is no "
                    f"{MANIFEST_FILE}. Choose another --output, or delete them."
                )
            wanted.write(folder)
            return wanted
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}. Choose another --output.") from error
    if _is_of_file(found.checkpoint, weights):
        found = dataclasses.replace(found, checkpoint=wanted.checkpoint)
    for field, what in (("input", "input"), ("checkpoint", "weights"), ("how", "settings")):
        if getattr(found, field) != getattr(wanted, field):
            raise UserError(
                f"{folder} holds predictions of other {what}: {getattr(found, field):.200} instead "
                f"of {getattr(wanted, field)}. Choose another --output, or delete this one."
            )
    return found


def _read(path: Path) -> Manifest | None:
    if not path.exists():
        return None
    where = str(path)
    try:
        found = strict_json.decode(Manifest, strict_json.parse(path.read_bytes(), where), where)
    except UserError as error:
        raise UserError(f"{error} Delete the folder, and predict again.") from error
    how = re.sub(r"\((\d+), (\d+)\)", r"\1x\2", found.how)  # sizes as they were spelt
    return dataclasses.replace(found, how=how)


def fingerprint_input(source: str | int) -> str:
    """Names a source, and tells apart what it held at different times."""
    if isinstance(source, int):
        return f"camera {source} at {time.time():.3f}"
    if is_stream(source):
        return f"{source} at {time.time():.3f}"
    path = Path(source)
    paths = [path] if is_video(path) else picture_files(path)
    stats = [file.stat(follow_symlinks=file.exists()) for file in paths]
    facts = [
        (file.name, stat.st_size, stat.st_mtime_ns) for file, stat in zip(paths, stats, strict=True)
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return f"{path} ({len(paths)} file(s), {digest[:16]})"


def fingerprint_weights(path: Path, align_corners: bool | None = None) -> str:
    """What a file of weights or a workdir holds: the same for the same tensors.

    Args:
        path: the file, or the run's workdir.
        align_corners: how logits are up-sampled; None: as the file says.

    Raises:
        UserError: it cannot be read.
    """
    if not path.exists():
        raise UserError(
            f"The weights {path} cannot be read: train first, or name a file with --checkpoint."
        )
    file = files.read(path)
    config = network_of(path, file, align_corners=align_corners).config
    corners = getattr(config, "align_corners", None)  # no tensor shows it
    return f"tensors {content_digest(file.tensors)}, align_corners {corners}"


def _is_of_file(found: str, path: Path) -> bool:
    """Whether a manifest has the file's SHA-256, as those of earlier versions."""
    if found.startswith("tensors ") or not path.is_file():
        return False
    with path.open("rb") as file:
        return found == hashlib.file_digest(file, "sha256").hexdigest()
