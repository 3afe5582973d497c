"""Frames of one's own videos, where a file stands in place of a folder of frames."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from tqdm import tqdm

from data_prep.extraction import Watch
from data_prep.records.writer import WrongSourceError
from data_prep.source_tree import SourceFile, UnpackedFile
from data_prep.writing import write_frame


def extracted_frames(
    video: SourceFile, directory: Path, wanted: Collection[int]
) -> Mapping[int, SourceFile]:
    """Some frames of a video, counted from 0, each written as PNG unless it is there already.

    Args:
        video: the file.
        directory: where a folder of the frames is made, of a name that changes with the video.
        wanted: the frames' numbers.

    Returns:
        The files of those that the video has, whole.

    Raises:
        UserError: the video cannot be read, or lies in a zip file; or a frame cannot be written.
    """
    if not isinstance(video, UnpackedFile):
        raise WrongSourceError(f"The video {video} lies in a zip file: unpack it.")
    made_of = hashlib.sha256(f"{video.path.resolve()} {video.fingerprint}".encode()).hexdigest()
    folder = directory / f"{video.path.stem}-{made_of[:8]}"
    files = {number: folder / f"{number:06d}.png" for number in wanted if number >= 0}
    left = {number for number, path in files.items() if not path.exists()}
    if left:
        with tqdm(unit="frame", desc=f"Reading {video.name}", leave=False) as progress:
            for frame in Watch(on_frame=progress.update).over(video.path):
                if frame.index in left and frame.pixels_HxWx3 is not None:
                    write_frame(files[frame.index], frame.pixels_HxWx3)
                if frame.index >= max(left):
                    break
    return {number: UnpackedFile(path) for number, path in files.items() if path.exists()}
