"""The folder of an export: program, runner, what it is, and a few lines on how to run it."""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.files import folder_in_place
from tmanet_jax.errors import UserError, counted
from tmanet_jax.export import network as runner
from tmanet_jax.export.names import AnySize, Format
from tmanet_jax.export.onnx_file import onnx_of, stored_shape
from tmanet_jax.export.program import Kind, Program, any_size, program_of
from tmanet_jax.export.quantise import quantise
from tmanet_jax.export.stablehlo import stablehlo_of
from tmanet_jax.export.verify import Agreement, compared, verified
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

_TRIED_SIZES = ((40, 72), (136, 96))
"""Frames with which a program for any size is checked."""

_FILES = {"stablehlo": "program.stablehlo", "onnx": "program.onnx", "openvino": "program.xml"}
_NEEDS = {
    "stablehlo": ("jax", "flatbuffers"),
    "onnx": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
}
"""The engine, and what writes for it."""

_README = """\
# {network} of {classes}, for {engine}

`network.py` runs it; it needs numpy and {engine} ({version} wrote and ran it), nothing else.

```python
from network import Network

network = Network()
{example}
```

Frames are uint8 RGB of shape {frames}, labels uint8 of shape {labels}: `export.json` names and
colours the classes, and holds the shapes of all that goes in and out. Normalising, up-sampling and
arg-max are inside. The network's frames are segmented so:
{protocol}; resize them before to the size above.

The program is in {precision}. {verified} after writing: {agreement}.
"""

_STREAM_EXAMPLE = """\
labels = network(frames)  # the first frame{of_each}
labels = network(frames)  # the next one; what is remembered of those before stays in `network`
labels = network(frames, reset={reset})  # {resets} begins anew before this frame, as at a cut
network.restart()  # {all_} anew{of_another_size}{bfloat16}"""

_BFLOAT16 = """
network = Network(precision="bfloat16")  # on a CPU whose products of this type are fast"""

_CLIP_EXAMPLE = """\
labels = network(frames)  # {length} frames of each clip, the newest last: its labels"""


def export_network(
    model: TMANet,
    classes: ClassSet,
    protocol: Protocol,
    output: Path,
    *,
    format: Format,
    size: tuple[int, int] | AnySize,
    program: Kind = "stream",
    streams: int = 1,
    calibration: Sequence[np.ndarray] = (),
) -> Agreement:
    """Writes a network for an engine, and checks what was written in a process of its own.

    Args:
        model: in float32.
        classes: what it tells apart.
        protocol: how frames are segmented.
        output: a folder that is made; nothing is left of an export that fails.
        format: of the program.
        size: height and width of the frames; "any" for stablehlo and a protocol of mode whole.
        program: the streaming step, or the whole clip.
        streams: B, streams that go on together, or clips at a time.
        calibration: clips of frames, SxHxWx3 uint8, with which a program for OpenVINO is rounded
            to 8 bits; none: it stays in float32.

    Raises:
        UserError: the engine is not installed, the folder is there already or cannot be written,
            or what was written is not the network.
    """
    if format not in _FILES:
        raise UserError(f"format is {format!r}: choose one of {', '.join(_FILES)}.")
    check_installed(format)
    if len(calibration):
        _check_quantised(format, program)
    if size == "any" and (format != "stablehlo" or protocol.mode != "whole"):
        raise UserError(
            "Frames of any size are for format stablehlo and networks that see whole frames, not "
            f"windows (this one: {protocol}): say --size=256x512."
        )
    of_size = functools.partial(program_of, model, protocol, program, streams)
    written = of_size(any_size() if size == "any" else size)
    with folder_in_place(output) as folder:
        _write_program(written, format, folder)
        shutil.copyfile(runner.__file__, folder / "network.py")
        about = _about(written, format, classes, protocol)
        _write_json(folder / "export.json", about)
        tried = [of_size(some) for some in _TRIED_SIZES] if size == "any" else [written]
        agreement = [verified(some, folder) for some in tried][-1]
        if len(calibration):
            quantise(folder, calibration)
            agreement = compared(written, folder)
            about |= {"precision": "int8"}
        _write_json(folder / "export.json", about | {"verified": dataclasses.asdict(agreement)})
        readme = _readme(model.config.head.network, written, about, agreement)
        (folder / "README.md").write_text(readme)
    return agreement


def check_installed(format: Format) -> None:
    """Raises UserError where a format's engine, or what writes for it, is missing."""
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Format {format} needs {' and '.join(missing)}: pip install -r "
            "requirements-export.txt."
        )


def _check_quantised(format: Format, program: Kind) -> None:
    if format != "openvino" or program != "stream":
        raise UserError("8 bits are for format openvino and program stream: drop --calibrate.")
    check_quantiser()


def check_quantiser() -> None:
    """Raises UserError where what rounds to 8 bits is missing."""
    if importlib.util.find_spec("nncf") is None:
        raise UserError("8 bits need nncf: pip install -r requirements-export.txt.")


def _write_program(program: Program, format: Format, folder: Path) -> None:
    path = folder / _FILES[format]
    if format == "stablehlo":
        content, weights = stablehlo_of(program)
        path.write_bytes(content)
        (folder / "weights.npz").write_bytes(weights)
    elif format == "onnx":
        path.write_bytes(onnx_of(program))
    else:
        openvino = runner.openvino_library()
        model = openvino.Core().read_model(onnx_of(program))
        openvino.save_model(model, path, compress_to_fp16=False)


def _about(
    program: Program, format: Format, classes: ClassSet, protocol: Protocol
) -> dict[str, Any]:
    is_stored_as_is = format == "stablehlo"
    state = {
        name: {
            "shape": program.inputs[name].shape if is_stored_as_is else stored_shape(program, name),
            "type": str(program.inputs[name].dtype),
        }
        for name in program.state
    }
    engine = _NEEDS[format][0]
    return {
        "format": format,
        "file": _FILES[format],
        "precision": "float32",
        "program": program.kind,
        "frames": program.inputs["frames"].shape,
        "labels": program.outputs["labels"].shape,
        "logits": program.outputs["logits"].shape,
        "state": state,
        "classes": {
            name: list(colour)
            for name, colour in zip(classes.names, classes.palette_Cx3, strict=True)
        },
        "normalisation": {"mean": MEAN_RGB.tolist(), "std": STD_RGB.tolist()},
        "protocol": dataclasses.asdict(protocol),
        "words": str(protocol),
        "versions": {name: version_of(name) for name in (engine, "jax", "numpy")},
    }


def version_of(module: str) -> str:
    """Of an installed module, whatever its package is called (onnxruntime-gpu has onnxruntime)."""
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        packages = importlib.metadata.packages_distributions()[module]
        return ", ".join(map(importlib.metadata.version, sorted(set(packages))))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def _readme(network: str, program: Program, about: dict[str, Any], agreement: Agreement) -> str:
    b = about["frames"][0]
    engine = _NEEDS[about["format"]][0]
    is_open = not isinstance(about["frames"][-2], int)
    if program.kind == "clip":
        example = _CLIP_EXAMPLE.format(length=about["frames"][1])
    else:
        example = _STREAM_EXAMPLE.format(
            of_each="" if b == 1 else f" of each of {b} streams",
            reset=[True] + [False] * (b - 1),
            resets="the stream" if b == 1 else "the first stream",
            all_="the stream" if b == 1 else "all streams",
            of_another_size=", also before frames of another size" if is_open else "",
            bfloat16=_BFLOAT16 if about["format"] == "openvino" else "",
        )
    return _README.format(
        network=network,
        classes=counted(len(about["classes"]), "class"),
        engine=engine,
        version=about["versions"][engine],
        example=example,
        frames=tuple(about["frames"]),
        labels=tuple(about["labels"]),
        protocol=about["words"],
        precision=about["precision"],
        verified="Verified" if about["precision"] == "float32" else "Compared with float32",
        agreement=agreement,
    )
