"""Runs an export as its users will, in a process of its own, and compares it with the network."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from tmanet_jax.errors import UserError
from tmanet_jax.export.program import Program

NUM_FRAMES = 12
LOGITS_TOLERANCE = 1e-3
"""What two logits may differ by; where all are below 1, in units of the largest."""

_RUN = """
import sys
import numpy as np
folder, video, result = sys.argv[1:]
sys.path.insert(0, folder)
from network import Network
network = Network(folder)
given = np.load(video)
labels, logits = [], []
for frames, reset in zip(given["frames"], given["resets"]):
    labels.append(network(frames, reset))
    logits.append(network.logits)
np.savez(result, labels=np.stack(labels), logits=np.stack(logits))
"""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an export and the network agree on a video.

    Attributes:
        calls: of the program: frames of all streams, or clips.
        largest_logit: its size.
        largest_difference: of two logits.
        pixels: that were compared.
        different: pixels of another label.
        different_off_ties: of them, those where the network's two best classes are further apart
            than what logits may differ by.
    """

    calls: int
    largest_logit: float
    largest_difference: float
    pixels: int
    different: int
    different_off_ties: int

    @property
    def is_good(self) -> bool:
        """Whether the export is the network but for rounding."""
        allowed = LOGITS_TOLERANCE * min(self.largest_logit, 1.0)
        return self.largest_difference <= allowed and not self.different_off_ties

    def __str__(self) -> str:
        return (
            f"{self.calls} frames in a process of their own: logits of up to "
            f"{self.largest_logit:.4g} differ by at most {self.largest_difference:.2g}; "
            f"{self.different} of {self.pixels} labels differ, {self.different_off_ties} of them "
            "where it is no tie"
        )


def verified(program: Program, folder: Path) -> Agreement:
    """Runs the export in a folder over a video, with a start and a reset.

    Raises:
        UserError: it cannot be run, or its numbers are not the network's.
    """
    agreement = compared(program, folder)
    if not agreement.is_good:
        raise UserError(f"The export is not the network: {agreement}. Nothing was kept.")
    return agreement


def compared(program: Program, folder: Path) -> Agreement:
    """The same of an export that rounds: how far it is from the network.

    Raises:
        UserError: it cannot be run.
    """
    calls, resets = calls_of(program)
    video, result = folder / "video.npz", folder / "result.npz"
    try:
        np.savez(video, frames=calls, resets=resets)
        command = [sys.executable, "-I", "-B", "-c", _RUN, str(folder), str(video), str(result)]
        env = os.environ | {"JAX_TRACEBACK_FILTERING": "off"}  # its note would be the last line
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UserError(f"The export does not run ({last}): nothing was kept.")
        found = dict(np.load(result))
    finally:
        video.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
    return agreement_of(program, calls, resets, found)


def calls_of(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """What goes in call by call, with resets: a pattern that moves, with noise."""
    b, *clip, height, width, _ = program.inputs["frames"].shape
    length = NUM_FRAMES + sum(clip)
    rng = np.random.default_rng(0)
    y_Hx1, x_1xW, t_Lx1x1x1x1 = (
        np.arange(height)[:, None, None],
        np.arange(width)[:, None],
        np.arange(length)[:, None, None, None, None],
    )
    stream_Bx1x1x1 = np.arange(b)[:, None, None, None]
    waves = np.sin((y_Hx1 + 3 * t_Lx1x1x1x1) / (5 + np.arange(3)) + stream_Bx1x1x1)
    waves = 128 + 60 * waves + 40 * np.cos(x_1xW / 7 - t_Lx1x1x1x1)
    noisy = waves + rng.normal(0, 12, waves.shape)
    frames_LxBxHxWx3 = noisy.clip(0, 255).astype(np.uint8)
    resets_LxB = np.zeros((NUM_FRAMES, b), bool)
    resets_LxB[NUM_FRAMES // 2, -1] = True
    if not clip:
        return frames_LxBxHxWx3, resets_LxB
    clips = [frames_LxBxHxWx3[i : i + clip[0]].swapaxes(0, 1) for i in range(NUM_FRAMES)]
    return np.stack(clips), resets_LxB


def agreement_of(
    program: Program, calls: np.ndarray, resets: np.ndarray, found: dict[str, np.ndarray]
) -> Agreement:
    """Compares what an engine computed for `calls_of` with the network.

    Args:
        program: the network's.
        calls: frames of all streams, or clips, call by call.
        resets: B truth values a call.
        found: `labels` and `logits`, call by call.
    """
    step = jax.jit(program.function)
    state = {
        name: np.zeros(spec.shape, spec.dtype)
        for name, spec in program.inputs.items()
        if name in program.state
    }
    largest, difference, different, off_ties = 0.0, 0.0, 0, 0
    for frames, reset, labels, logits in zip(
        calls, resets, found["labels"], found["logits"], strict=True
    ):
        given = {"frames": frames} | ({"reset": reset} if program.kind == "stream" else {})
        outputs = step(program.weights, given | state)
        state = {name: outputs[name] for name in program.state}
        expected = np.asarray(outputs["logits"])
        largest = max(largest, float(np.abs(expected).max()))
        difference = _larger(difference, float(np.abs(logits - expected).max()))
        is_other = labels != np.asarray(outputs["labels"])
        different += int(is_other.sum())
        if is_other.any():
            off_ties += int((is_other & (_margins(program, outputs) > 2 * LOGITS_TOLERANCE)).sum())
    return Agreement(len(calls), largest, difference, found["labels"].size, different, off_ties)


def _larger(a: float, b: float) -> float:
    return b if not b <= a else a  # what is no number stays


def _margins(program: Program, outputs: dict[str, jax.Array]) -> np.ndarray:
    """How far the logits of each pixel's two best classes are apart, BxHxW."""
    probabilities = np.sort(np.asarray(program.probabilities(outputs)), axis=-1)
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities)
    return logs[..., -1] - logs[..., -2] if logs.shape[-1] > 1 else np.full(logs.shape[:-1], np.inf)
