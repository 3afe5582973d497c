"""OpenVINO programs in 8 bits: post-training quantisation by NNCF, calibrated on real frames."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tmanet_jax.data.codec import Size
from tmanet_jax.errors import UserError
from tmanet_jax.export.network import Arrays, Network, openvino_library
from tmanet_jax.inference.windows import resized_frames
from tmanet_jax.video.frames import open_frames

CALIBRATION_FRAMES = 100


def calibration_frames(source: str, size: tuple[int, int]) -> list[np.ndarray]:
    """The first frames of a video, folder or glob, HxWx3 uint8 at that size.

    Raises:
        UserError: the source cannot be read, or has no whole frame.
    """
    with open_frames(source) as frames:
        whole = (frame.pixels_HxWx3 for frame in frames.frames if frame.pixels_HxWx3 is not None)
        some = list(itertools.islice(whole, CALIBRATION_FRAMES))
    if not some:
        raise UserError(f"--calibrate={source}: there is no whole frame to calibrate on.")
    return [resized_frames(frame_HxWx3[None], Size(*size))[0] for frame_HxWx3 in some]


def quantise(folder: Path, frames: Sequence[np.ndarray]) -> None:
    """Puts a program in 8 bits in place of the one in a folder, which calibrates it.

    Args:
        folder: of an export for OpenVINO.
        frames: HxWx3 uint8, in the order of their video.
    """
    openvino = openvino_library()
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    network = Network(folder)
    path = folder / network.about["file"]
    model = openvino.Core().read_model(path)
    quantised = nncf.quantize(
        model, nncf.Dataset(_Inputs(network, frames)), subset_size=len(frames)
    )
    new = folder / "quantised.xml"
    openvino.save_model(quantised, new, compress_to_fp16=False)
    del model, network  # they may hold the file open
    for suffix in (".xml", ".bin"):
        new.with_suffix(suffix).replace(path.with_suffix(suffix))


class _Inputs:
    """What goes into the program frame by frame, with the state that it has then."""

    def __init__(self, network: Network, frames: Sequence[np.ndarray]):
        self._network = network
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Arrays]:
        self._network.restart()
        shape = tuple(self._network.about["frames"])
        for frame_HxWx3 in self._frames:
            frames_BxHxWx3 = np.broadcast_to(frame_HxWx3, shape)
            yield self._network.inputs(frames_BxHxWx3)
            self._network(frames_BxHxWx3)
