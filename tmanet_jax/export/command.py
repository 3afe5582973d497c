"""The command line of exports."""

import argparse
import re
from pathlib import Path
from typing import get_args

from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.export.folder import Format, export_network
from tmanet_jax.export.program import Kind
from tmanet_jax.export.quantise import CALIBRATION_FRAMES, calibration_frames
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import load


@ends_with_message
def main(arguments: list[str] | None = None) -> int:
    """Exports; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tmanet_jax.export",
        description="Writes a trained network for another engine, and checks what was written.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help="a file of weights, a run's workdir, or the folder of one of its checkpoints",
    )
    parser.add_argument("--format", required=True, choices=get_args(Format))
    parser.add_argument(
        "--size", required=True, metavar="HxW", help="height x width of the frames in pixels"
    )
    parser.add_argument("--output", required=True, type=Path, help="a folder that is made")
    parser.add_argument(
        "--program",
        default="stream",
        choices=get_args(Kind),
        help="the step from frame to frame, or the whole clip at once; default %(default)s",
    )
    parser.add_argument(
        "--streams", default=1, type=int, help="videos, or clips, at a time; default %(default)s"
    )
    parser.add_argument(
        "--mode",
        choices=("whole", "slide"),
        help="frames at once, or in windows; default: as the network was scored",
    )
    parser.add_argument(
        "--calibrate",
        metavar="SOURCE",
        help="a video, folder or glob: OpenVINO in 8 bits, calibrated on its first "
        f"{CALIBRATION_FRAMES} frames",
    )
    options = parser.parse_args(arguments)
    size = _size(options.size)
    loaded = load.load_model(options.checkpoint, dtype="float32", attention="chunked")
    protocol = loaded.protocol or Protocol("whole")
    agreement = export_network(
        loaded.model,
        loaded.classes,
        protocol.but(mode=options.mode, scale=1.0),
        options.output,
        format=options.format,
        size=size,
        program=options.program,
        streams=options.streams,
        calibration=calibration_frames(options.calibrate, size) if options.calibrate else (),
    )
    print(f"{options.output}: {agreement}.")
    return 0


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise UserError(f"--size={text}: HEIGHTxWIDTH in pixels was expected, as in 256x512.")
    return int(found[1]), int(found[2])
