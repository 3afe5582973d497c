"""OpenVINO programs in 8 bits: post-training quantisation by NNCF, calibrated on real frames."""

import hashlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tmanet_jax.data.codec import Size
from tmanet_jax.data.records import ClipRecords, has_records, open_clips, read_info
from tmanet_jax.errors import UserError, counted
from tmanet_jax.export.network import Arrays, Network, openvino_library
from tmanet_jax.inference.windows import resized_frames
from tmanet_jax.progress import ProgressBar
from tmanet_jax.video.frames import fingerprint_input, open_frames

CALIBRATION_FRAMES = 100

CalibrationSource = str | os.PathLike[str] | Sequence[np.ndarray]
"""A video, a picture, a folder or glob of pictures, a folder of clip records, or arrays HxWx3."""


def calibration_clips(source: CalibrationSource, size: tuple[int, int]) -> list[np.ndarray]:
    """Some 100 frames at that size, as clips SxHxWx3 uint8 in the order of time.

    Of a video (or pictures) the first frames, one clip; of records clips of the training split if
    there is one, spread over it.

    Raises:
        UserError: the source cannot be read, or has no whole frame.
    """
    if isinstance(source, str | os.PathLike) and has_records(source):
        clips = [
            resized_frames(clip_SxHxWx3, Size(*size))
            for clip_SxHxWx3 in _clips_of_records(_calibration_records(source))
        ]
    else:
        with open_frames(source) as frames:
            whole = (frame.pixels_HxWx3 for frame in frames.frames)
            some = (pixels for pixels in whole if pixels is not None)
            resized = [
                resized_frames(pixels[None], Size(*size))
                for pixels in itertools.islice(some, CALIBRATION_FRAMES)
            ]
        clips = [np.concatenate(resized)] if resized else []
    if not clips:
        raise UserError(f"There is no whole frame to calibrate on in {source}.")
    return clips


def calibration_in_words(source: CalibrationSource) -> str:
    """Names a source, and tells apart what it held at different times.

    Raises:
        UserError: it cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        digest = hashlib.sha256()
        for frame_HxWx3 in source:
            digest.update(repr(frame_HxWx3.shape).encode() + frame_HxWx3.tobytes())
        return f"{counted(len(source), 'array')} ({digest.hexdigest()[:16]})"
    if has_records(source):
        return f"{source} ({_calibration_records(source).fingerprint()})"
    return fingerprint_input(source)


def _calibration_records(data_dir: str | os.PathLike[str]) -> ClipRecords:
    splits = read_info(data_dir).splits
    return open_clips(data_dir, "train" if "train" in splits else next(iter(splits)))


def _clips_of_records(records: ClipRecords) -> list[np.ndarray]:
    memory_range = records.info.memory_range
    count = min(-(-CALIBRATION_FRAMES // (memory_range + 1)), len(records))
    indices = np.linspace(0, len(records) - 1, count).round().astype(int)
    offsets = range(memory_range, 0, -1)
    return [records.read(int(index), offsets).frames_SxHxWx3 for index in indices]


def quantise(folder: Path, clips: Sequence[np.ndarray]) -> None:
    """Puts a program in 8 bits in place of the one in a folder, which calibrates it.

    Args:
        folder: of an export for OpenVINO.
        clips: SxHxWx3 uint8, each with a memory of its own.
    """
    openvino = openvino_library()
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    network = Network(folder)
    path = folder / network.about["file"]
    model = openvino.Core().read_model(path)
    inputs = _Inputs(network, clips)
    quantised = nncf.quantize(model, nncf.Dataset(inputs), subset_size=len(inputs))
    new = folder / "quantised.xml"
    openvino.save_model(quantised, new, compress_to_fp16=False)
    del model, network  # they may hold the file open
    for suffix in (".xml", ".bin"):
        new.with_suffix(suffix).replace(path.with_suffix(suffix))


class _Inputs:
    """What goes into the program frame by frame, with the state that it has then."""

    def __init__(self, network: Network, clips: Sequence[np.ndarray]):
        self._network = network
        self._clips = clips

    def __len__(self) -> int:
        return sum(map(len, self._clips))

    def __iter__(self) -> Iterator[Arrays]:
        shape = tuple(self._network.about["frames"])
        is_quiet = not sys.stderr.isatty()  # on a terminal nncf has bars of its own
        with ProgressBar("calibrate", "frame", len(self), is_shown=is_quiet) as bar:
            for clip_SxHxWx3 in self._clips:
                self._network.restart()
                for frame_HxWx3 in clip_SxHxWx3:
                    frames_BxHxWx3 = np.broadcast_to(frame_HxWx3, shape)
                    yield self._network.inputs(frames_BxHxWx3)
                    self._network(frames_BxHxWx3)
                    bar.update()
