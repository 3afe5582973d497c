"""Runs an exported network with numpy and the engine that it was exported for, and nothing else."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]


class Network:
    """An exported network with its memory.

    Args:
        folder: the exported one.
        precision: "float32" or, in OpenVINO on chips that have it, "bfloat16".

    Attributes:
        logits: of the newest frames, NxhxwxC: of whole frames, or of their windows.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent, precision: str = "float32"):
        folder = Path(folder)
        self.about = json.loads((folder / "export.json").read_text())
        self.logits = np.zeros(0, np.float32)
        self._run: Run = _ENGINES[self.about["format"]](folder, self.about["file"], precision)
        self.restart()

    def restart(self) -> None:
        """All streams begin anew."""
        self._state: Arrays = {}

    def __call__(self, frames: np.ndarray, reset: Any = None) -> np.ndarray:
        """Labels of the newest frame of each stream, BxHxW uint8.

        Args:
            frames: BxHxWx3 uint8 RGB; of the program "clip" BxSxHxWx3, the newest frame last.
            reset: B truth values: which streams forget their past before this frame.
        """
        outputs = self._run(self.inputs(frames, reset))
        self._state = {name: outputs[f"new_{name}"] for name in self.about["state"]}
        self.logits = outputs["logits"]
        return outputs["labels"]

    def inputs(self, frames: np.ndarray, reset: Any = None) -> Arrays:
        """What goes into the program with these frames."""
        expected = _shape(self.about["frames"], frames)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise ValueError(
                f"frames are {frames.dtype} of shape {frames.shape}: this network was exported for "
                f"uint8 of shape {expected}; resize them, or export it for another size"
            )
        start = {
            name: np.zeros(_shape(port["shape"], frames), port["type"])
            for name, port in self.about["state"].items()
        }
        given = {"frames": np.ascontiguousarray(frames)} | (self._state or start)
        if self.about["program"] == "stream":
            given["reset"] = np.zeros(len(frames), bool) if reset is None else np.array(reset, bool)
        return given


def _shape(told: list[Any], frames: np.ndarray) -> tuple[int, ...]:
    """A shape in the export, whose sizes may be open, where the frames are these."""
    height, width = (1, 1, 1, *frames.shape)[-3:-1]
    h, w = height // 8, width // 8
    sizes = {"h": h, "w": w, "8*h": 8 * h, "8*w": 8 * w}
    return tuple(sizes.get(n, n) for n in told)


def _onnxruntime(folder: Path, file: str, precision: str) -> Run:
    import onnxruntime

    if precision != "float32":
        raise ValueError(f"ONNX Runtime computes this file in float32, not in {precision}")
    session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(given: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, given), strict=True))

    return run


def openvino_library() -> Any:
    """OpenVINO, which tells its makers of every import if its `openvino_telemetry` is found."""
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    import openvino

    return openvino


def _openvino(folder: Path, file: str, precision: str) -> Run:
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    core = openvino_library().Core()
    if precision == "bfloat16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        logging.getLogger(__name__).warning("This CPU has no bfloat16: float32 is computed.")
        hint = "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(folder / file, "CPU", options)
    request = compiled.create_infer_request()

    def run(given: Arrays) -> Arrays:
        results = request.infer(given)
        return {name: results[port] for port in compiled.outputs for name in port.get_names()}

    return run


def _jax(folder: Path, file: str, precision: str) -> Run:
    import jax
    from jax import export

    if precision != "float32":
        raise ValueError(f"this program computes in float32, not in {precision}")
    program = jax.jit(export.deserialize(bytearray((folder / file).read_bytes())).call)
    weights = jax.device_put(dict(np.load(folder / "weights.npz")))

    def run(given: Arrays) -> Arrays:
        return dict(jax.device_get(program(weights, given)))

    return run


_ENGINES = {"onnx": _onnxruntime, "openvino": _openvino, "stablehlo": _jax}
