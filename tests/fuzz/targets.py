"""What reads files that anybody may have damaged: for each kind healthy ones, and a reader.

A reader is called in this process. It returns what it found by name, where a checksum of ours or of
the format's tells whether that is what was written; what it returns of a damaged file must equal
what it returns of the healthy one, name by name.
"""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np

import run
from data_prep import folder
from data_prep.cityscapes import Cityscapes
from data_prep.clips import find_clips
from data_prep.data_set import Options
from data_prep.folder import Folder, read_classes
from data_prep.labels import Classes, ClassLabels, LabelPicture
from data_prep.records.writer import write_records
from data_prep.source import SourceTree, UnpackedFile, read_frame
from tests.made import small_cityscapes, tiny_runs
from tests.made.picture_files import write_png
from tests.made.small_cityscapes import noise
from tests.made.small_clips import NoiseClip, plan_of
from tests.made.small_reports import assessment_of, street
from tests.made.small_videos import numbered, with_sound, write_video
from tests.made.tiny_weights import write_weights
from tmanet_jax import command_line
from tmanet_jax.checkpoints.damage import set_damaged_aside
from tmanet_jax.checkpoints.store import Checkpoints
from tmanet_jax.data.classes import CITYSCAPES, ClassSet, palette_png
from tmanet_jax.data.clips import EncodedClip, EncodedFrame
from tmanet_jax.data.codec import encode_frame, encode_labels
from tmanet_jax.data.records import open_clips
from tmanet_jax.inference.outputs import Manifest, open_manifest
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.parallel.sharding import make_mesh, replicated
from tmanet_jax.protocol import Origin
from tmanet_jax.publish.story import story_of
from tmanet_jax.scoring.report import metrics_json
from tmanet_jax.video.frames import open_frames
from tmanet_jax.weights import conversion, files

Found = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """Files of a kind, and their reader.

    Attributes:
        make: writes healthy files into an empty folder.
        read: reads the folder; returns what a checksum covers, or nothing.
        share: mutations of a thousand.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Found]
    share: int


SIZE = (24, 40)
COLOURS = ((90, 90, 90), (200, 0, 0), (0, 0, 250))
CLASSES = ClassSet("mine", ("road", "car", "sky"), COLOURS)


def write_pth(path: Path) -> None:
    try:
        file = files.read(write_weights(path / "healthy.safetensors"))
        files.write(path / "weights.pth", file)
    finally:
        (path / "healthy.safetensors").unlink()


def convert(path: Path) -> Found:
    """The conversion reads, compares with the network that is described, and writes."""
    (source,) = path.iterdir()
    conversion.convert(source, path / "converted.safetensors")
    return files.read(path / "converted.safetensors").tensors


def write_clips(path: Path) -> None:
    clips = [NoiseClip(number, size=SIZE, memory_range=1) for number in range(3)]
    write_records(path, CITYSCAPES, 1, {"train": plan_of(clips)})


def read_clips(path: Path) -> Found:
    source = open_clips(path, "train")
    source.check_memory(1, 1)
    clips = [source.read(index, (1,)) for index in range(len(source))]
    return {clip.id: (clip.frames_SxHxWx3, clip.labels_HxW) for clip in clips}


def write_encoded(path: Path) -> None:
    clip = NoiseClip(0, size=(70, 300)).load()
    smooth_HxWx3 = cv2.blur(clip.frames_SxHxWx3[-1], (31, 31))
    (path / "frame").write_bytes(encode_frame(smooth_HxWx3))
    (path / "labels").write_bytes(encode_labels(clip.labels_HxW))


def read_encoded(path: Path) -> Found:
    frame, labels = ((path / name).read_bytes() for name in ("frame", "labels"))
    clip = EncodedClip(
        id="clip",
        group="",
        frames=(EncodedFrame(frame, "record 0"),),
        labels=labels,
        num_classes=CITYSCAPES.num_classes,
    ).decode()
    return {"frame": clip.frames_SxHxWx3, "labels": clip.labels_HxW}


def write_pictures(path: Path) -> None:
    labels_HxW = noise(0, *SIZE, limit=3)
    write_png(path / "frame.png", numbered(5, SIZE))
    write_png(path / "indices.png", labels_HxW)
    write_png(path / "colours.png", np.array(COLOURS, np.uint8)[labels_HxW])
    (path / "palette.png").write_bytes(palette_png(labels_HxW, COLOURS))
    assert cv2.imwrite(str(path / "frame.jpg"), numbered(5, SIZE))


def read_pictures(path: Path) -> Found:
    files = {file.stem: UnpackedFile(file) for file in path.glob("*.png")}
    found = {"frame": read_frame(files.pop("frame"))}
    for name, file in files.items():
        labels = ClassLabels(file, Classes(CLASSES))
        found[name] = labels.train_ids(LabelPicture.read(file))
    read_frame(UnpackedFile(path / "frame.jpg"))  # it has no checksum
    return found


def write_folder(path: Path) -> None:
    for number in range(3):
        write_png(path / f"frames/train/drive/{number}.png", numbered(number, SIZE))
    write_png(path / "labels/train/drive/2.png", noise(0, *SIZE, limit=3))
    rows = [",".join(map(str, (name, *c))) for name, c in zip(CLASSES.names, COLOURS, strict=True)]
    (path / "classes.csv").write_text("\n".join(["name,red,green,blue", *rows, ""]))


def read_folder(path: Path) -> Found:
    tree = SourceTree(path)
    mine = Folder(tree, read_classes(tree, "mine"), path / "extracted")
    plans = find_clips(mine, ["train"], Options(memory_range=1))
    return {str(frame): frame.load() for frame in plans["train"].frames}


def write_zip(path: Path) -> None:
    write_folder(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    with zipfile.ZipFile(path / "mine.zip", "w") as archive:
        for index, file in enumerate(files):
            how = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)[index % 3]
            archive.write(file, file.relative_to(path), how)
            file.unlink()


def write_groups(path: Path) -> None:
    small_cityscapes.write_clip(path, small_cityscapes.NAMES[0])
    (path / "groups.json").write_text(json.dumps({"clean": [small_cityscapes.NAMES[0]]}))


def read_groups(path: Path) -> Found:
    find_clips(Cityscapes(SourceTree(path)), ["train"], Options())
    return {}


def write_videos(path: Path) -> None:
    frames = [numbered(number, (48, 64)) for number in range(8)]
    write_video(path / "h264.mp4", frames, "libx264")
    write_video(path / "h264.mkv", frames, "libx264")
    write_video(path / "mpeg2.ts", frames, "mpeg2video", options={"g": "4"})
    write_video(path / "mjpeg.avi", frames, "mjpeg", pixel_format="yuvj420p")
    with_sound(path / "sound.mp4", "aac")


def read_videos(path: Path) -> Found:
    """All of them: which one was damaged is not known here."""
    for file in path.iterdir():
        with open_frames(file) as frames:
            for frame in frames.frames:
                assert (frame.pixels_HxWx3 is None) == (frame.problem is not None)
    return {}


MODEL = ModelConfig()


def state(step: int) -> dict[str, Any]:
    values = np.random.default_rng(step).normal(size=(64, 8)).astype(np.float32)
    return {"kernel": jnp.asarray(values), "step": jnp.asarray(step)}


def write_checkpoints(path: Path) -> None:
    checkpoints = Checkpoints(path / "checkpoints", keep=2, model=MODEL)
    for step in (1, 2):
        checkpoints.save(step, state(step))
        checkpoints.add_score(step, step / 10)
    checkpoints.close()


def restored(path: Path) -> Found:
    """As `eval` reads the best one."""
    checkpoints = Checkpoints(path / "checkpoints", keep=2, model=MODEL)
    try:
        step = checkpoints.best_step()
        found = checkpoints.restore(step, state(0), replicated(make_mesh()))
        return {f"{name} of step {step}": np.asarray(array) for name, array in found.items()}
    finally:
        checkpoints.close()


def gone_on(path: Path) -> Found:
    """As training goes on from the newest whole one."""
    set_damaged_aside(path / "checkpoints")
    return restored(path)


MANIFEST = Manifest("drive.mp4 (1 file(s), 0123)", "ab" * 32, "whole", problems=((3, "torn"),))


def read_manifest(path: Path) -> Found:
    open_manifest(path, MANIFEST, path / "predict.json")
    return {}


RUN_WORDS = [*tiny_runs.FLAGS, "--config.data.dir=records", "--workdir=out"]
PREPARATION_WORDS = ["--source=none", "--out=out", "--memory-range=2", "--frame-stride=1"]


def write_words(words: list[str]) -> Callable[[Path], object]:
    """A command line, as a list in JSON whose fields are changed."""
    options = [word.split("=", 1) for word in words]
    return lambda path: (path / "words.json").write_text(json.dumps(options))


def words_of(path: Path) -> list[str]:
    """What a shell hands over: text without NUL, and surrogates for bytes that are not UTF-8."""
    try:
        options = json.loads((path / "words.json").read_bytes())
        words = ["=".join(map(str, option)) for option in options]
    except (ValueError, TypeError, RecursionError):
        return []
    return [word.replace("\0", "") for word in words]


def parse_run(path: Path) -> Found:
    words = ["run.py", *words_of(path)]
    command_line.parse(words, run.MODES)
    return {}


def prepare_folder(path: Path) -> Found:
    (path / "none").mkdir()
    try:
        status: object = folder.main(words_of(path))
    except SystemExit as end:  # argparse's own message
        status = end.code
    assert status == 2
    return {}


def write_story(folder: Path) -> None:
    about = {"config": {"num_steps": 8}, "command": "run.py", "versions": {"jax": "0.10.2"}}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(metrics_json(assessment_of(street(2, (32, 64)))))


def read_story(folder: Path) -> Found:
    story_of(folder, Origin(8), "float32")
    return {}


TARGETS: Mapping[str, Target] = {
    "weights": Target(lambda path: write_weights(path / "weights.safetensors"), convert, 160),
    "pth": Target(write_pth, convert, 100),
    "records": Target(write_clips, read_clips, 130),
    "encoded": Target(write_encoded, read_encoded, 110),
    "pictures": Target(write_pictures, read_pictures, 110),
    "folder": Target(write_folder, read_folder, 60),
    "zip": Target(write_zip, read_folder, 70),
    "groups": Target(write_groups, read_groups, 20),
    "videos": Target(write_videos, read_videos, 60),
    "checkpoints": Target(write_checkpoints, restored, 30),
    "training": Target(write_checkpoints, gone_on, 30),
    "manifest": Target(MANIFEST.write, read_manifest, 40),
    "story": Target(write_story, read_story, 20),
    "run": Target(write_words(RUN_WORDS), parse_run, 40),
    "preparation": Target(write_words(PREPARATION_WORDS), prepare_folder, 20),
}
