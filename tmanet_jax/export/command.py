"""The mode `export` of run.py: weights as a program for another engine."""

import sys
from pathlib import Path
from typing import get_args

from tmanet_jax.errors import UserError
from tmanet_jax.export.folder import export_network
from tmanet_jax.export.names import WRITTEN, AnySize, Format
from tmanet_jax.export.program import Kind
from tmanet_jax.export.quantise import calibration_clips
from tmanet_jax.export.web import export_page
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.weights import load


def export_weights(
    checkpoint: Path,
    output: str,
    evaluation: EvalConfig,
    *,
    format: str,
    size: tuple[int, int] | AnySize | None,
    program: str,
    streams: int,
    calibrate: str,
    runtime: str,
) -> None:
    """Writes and checks an export, and says how it agrees with the network.

    Args:
        checkpoint: a file of weights, a workdir, or a checkpoint in one.
        output: a folder that is made.
        evaluation: how frames are segmented where the weights do not say; not its scale, since an
            export has one size of frames.
        format: one of WRITTEN; see `export_network`, as the following ones, and `export_page`.
        size: height and width of the frames, or "any".
        program: the step or the whole clip.
        streams: videos or clips at a time.
        calibrate: see `calibration_clips`, for 8 bits; empty: float32.
        runtime: for format web, the package of its runtime; empty: it is fetched.

    Raises:
        UserError: something is missing or wrong, or the export is not the network.
    """
    if not output or size is None:
        raise UserError("Say where to and for which frames: --output=exported --size=256x512.")
    for option, value, choices in (
        ("--format", format, WRITTEN),
        ("--program", program, get_args(Kind)),
    ):
        if value not in choices:
            raise UserError(f"{option} is {value!r}: choose {' or '.join(choices)}.")
    if format == "web" and (program != "stream" or streams != 1 or calibrate):
        raise UserError(
            "Format web segments one video as it plays, in float32: drop --program, --streams and "
            "--calibrate."
        )
    if format != "web" and runtime:
        raise UserError(f"Format {format} takes no --runtime: that is for format web.")
    loaded = load.load_model(checkpoint, dtype="float32", attention="chunked")
    scored = evaluation.for_weights(loaded.protocol).protocol
    if not isinstance(size, str) and scored.is_resized_by_default(size):
        print(_other_labels(size, scored.size_of(size)))
    protocol = scored.but(scale=1.0)
    print("Exporting, and comparing the export with the network ...", file=sys.stderr)
    if format == "web":
        agreement = export_page(
            loaded.model,
            loaded.classes,
            protocol,
            Path(output),
            size=_fixed(size, "Format web"),
            runtime=runtime,
        )
    else:
        agreement = export_network(
            loaded.model,
            loaded.classes,
            protocol,
            Path(output),
            format=next(name for name in get_args(Format) if name == format),
            size=size,
            program=next(name for name in get_args(Kind) if name == program),
            streams=streams,
            calibration=calibration_clips(calibrate, _fixed(size, "8 bits")) if calibrate else (),
        )
    print(f"{output}: {agreement}.")


def _other_labels(size: tuple[int, int], resized: tuple[int, int]) -> str:
    """That an export of large frames is not what `predict` does with them."""
    own, smaller = (f"{height}x{width}" for height, width in (size, resized))
    return (
        f"predict resizes frames of {own} pixels to {smaller}, of the height that the network was "
        f"trained on; this export sees them as they are, so that its labels are others. Those of "
        f"predict: --size={smaller}, and frames that are resized to it before."
    )


def _fixed(size: tuple[int, int] | str, what: str) -> tuple[int, int]:
    if isinstance(size, str):
        raise UserError(f"{what}: one size of frames is needed: --size=256x512.")
    return size
