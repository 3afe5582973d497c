"""Runs an exported network with numpy and the engine that it was exported for, and nothing else."""

import contextlib
import copy
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
Begin = Callable[[], Run]
"""Makes what runs the program for one network: several may run side by side."""


class Network:
    """An exported network with its memory.

    Args:
        folder: the exported one.
        precision: "float32" or, in OpenVINO on chips that have it, "bfloat16".
        device: one of `devices`; None: the first of them.

    Attributes:
        folder: the exported one.
        about: what its `export.json` says.
        logits: of the newest frames, NxhxwxC: of whole frames, or of their windows.
    """

    def __init__(
        self,
        folder: str | Path = Path(__file__).parent,
        precision: str = "float32",
        device: str | None = None,
    ):
        self.folder = folder = Path(folder)
        self.about = json.loads((folder / "export.json").read_text())
        self.logits = np.zeros(0, np.float32)
        path, there = folder / self.about["file"], devices(self.about["format"])
        if device and device not in there:
            raise ValueError(f"device is {device!r}: choose one of {', '.join(there)}")
        chosen = there[device or next(iter(there))]
        self._begin: Begin = _ENGINES[self.about["format"]](path, precision, chosen)
        self._run = self._begin()
        self.restart()

    def beside(self) -> "Network":
        """The same program for other streams; what is compiled and its weights are shared."""
        other = copy.copy(self)
        other._run = self._begin()
        other.restart()
        return other

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


def _shape(sizes_or_names: list[Any], frames: np.ndarray) -> tuple[int, ...]:
    """A shape in the export, whose sizes may be open, where the frames are these."""
    height, width = (1, 1, 1, *frames.shape)[-3:-1]
    h, w = height // 8, width // 8
    sizes = {"h": h, "w": w, "8*h": 8 * h, "8*w": 8 * w}
    return tuple(sizes.get(n, n) for n in sizes_or_names)


def devices(format: str) -> dict[str, Any]:
    """The devices that this machine's engine for a format has, by name, the usual one first."""
    if format == "onnx":
        import onnxruntime

        providers = onnxruntime.get_available_providers()
        providers.sort(key=lambda name: name != "CPUExecutionProvider")
        return {name.removesuffix("ExecutionProvider").lower(): name for name in providers}
    if format == "openvino":
        return {name.lower(): name for name in openvino_library().Core().available_devices}
    import jax

    found = {device.platform: device for device in reversed(jax.local_devices())}
    with contextlib.suppress(RuntimeError):  # jax was told to leave the CPU alone
        found.setdefault("cpu", jax.local_devices(backend="cpu")[0])
    return found


def _onnxruntime(path: Path, precision: str, provider: str) -> Begin:
    import onnxruntime

    if precision != "float32":
        raise ValueError(f"ONNX Runtime computes this file in float32, not in {precision}")
    session = onnxruntime.InferenceSession(path, providers=[provider])
    names = [output.name for output in session.get_outputs()]

    def run(given: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, given), strict=True))

    return lambda: run


def openvino_library() -> Any:
    """OpenVINO, which tells its makers of every import if its `openvino_telemetry` is found."""
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    import openvino

    return openvino


def _openvino(path: Path, precision: str, device: str) -> Begin:
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    core = openvino_library().Core()
    if hint == "bf16" and "BF16" not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        logging.getLogger(__name__).warning(f"This {device} has no bfloat16: it computes float32.")
        hint = "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(path, device, options)

    def begin() -> Run:
        request = compiled.create_infer_request()

        def run(given: Arrays) -> Arrays:
            results = request.infer(given, share_inputs=True)
            return {name: results[port] for port in compiled.outputs for name in port.get_names()}

        return run

    return begin


def _jax(path: Path, precision: str, device: Any) -> Begin:
    import jax
    from jax import export

    if precision != "float32":
        raise ValueError(f"this program computes in float32, not in {precision}")
    program = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    weights = jax.device_put(dict(np.load(path.with_name("weights.npz"))), device)

    def run(given: Arrays) -> Arrays:
        return dict(jax.device_get(program(weights, given)))

    return lambda: run


_ENGINES = {"onnx": _onnxruntime, "openvino": _openvino, "stablehlo": _jax}
