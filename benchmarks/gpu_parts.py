"""The measurements of `python -m benchmarks gpu`, the most important ones first."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from benchmarks import attention, command, goldens, kernels, stream, train
from benchmarks.findings import Findings
from benchmarks.harness import columns, race
from benchmarks.inference import random_model
from tmanet_jax.settings import Settings

KERNEL, CHUNKED = "JAX, the chip's attention", "JAX, chunked attention"

PROFILED_STEPS = 3


class Scale(NamedTuple):
    """How large everything is.

    Attributes:
        config: file of the run.
        crop: height and width of its training crops.
        batch: clips of a step.
        frame: height and width of whole frames.
        turns: counted calls of each side.
        num_streams: videos at a time.
        memory_bytes: of the device; None: it says so itself.
    """

    config: str
    crop: tuple[int, int]
    batch: int
    frame: tuple[int, int]
    turns: int
    num_streams: int
    memory_bytes: int | None = None

    def settings(self, dtype: str = "bfloat16") -> Settings:
        """Of the training run, without dropout; all of the memory is read, as in PyTorch."""
        fields = [f"--config.model.dtype={dtype}", "--config.model.neighbourhood=None"]
        settings = command.read_settings(self.config, fields)
        return train.without_dropout(train.with_sizes(settings, self.crop, self.batch))


PUBLISHED = Scale("configs/cityscapes.py", (769, 769), 8, (1024, 2048), turns=10, num_streams=4)
REHEARSAL = Scale(
    "configs/demo.py", (33, 33), 2, (32, 64), turns=1, num_streams=2, memory_bytes=11 * 2**20
)


class Part(NamedTuple):
    """One measurement.

    Attributes:
        measure: given the scale and the folder of the results.
        limit_s: seconds that it may take, compilation included.
    """

    measure: Callable[[Scale, Path], Findings]
    limit_s: float


def measure_goldens(scale: Scale, out: Path) -> Findings:
    """Golden clips; a rehearsal takes one."""
    del out
    return goldens.measure(goldens.CASES if scale is PUBLISHED else goldens.CASES[:1])


def measure_chunked_training(scale: Scale, out: Path) -> Findings:
    """A training step by the chip's own attention, and chunked."""
    del out
    settings = scale.settings()
    model = dataclasses.replace(settings.model, attention="chunked")
    rivals = {CHUNKED: train.TrainSide(dataclasses.replace(settings, model=model)).side()}
    side = train.TrainSide(settings).side()
    tolerance = train.TOLERANCE[settings.model.dtype]
    found = race(KERNEL, side, rivals, turns=scale.turns, tolerance=tolerance)
    return train.findings_of(settings, found)


def measure_training(scale: Scale, out: Path, dtype: str = "bfloat16") -> Findings:
    """A training step beside the strongest one in PyTorch."""
    del out
    settings = scale.settings(dtype)
    side = train.TrainSide(settings)
    way = train.TORCH_WAYS[train.TORCH_BEST_ON_GPU]
    rivals = train.torch_sides(settings, side.tensors, side.batch, {train.TORCH_BEST_ON_GPU: way})
    tolerance = train.TOLERANCE[dtype]
    found = race(train.OURS, side.side(), rivals, turns=scale.turns, tolerance=tolerance)
    return train.findings_of(settings, found)


def measure_training_in_float32(scale: Scale, out: Path) -> Findings:
    """The same in float32."""
    return measure_training(scale, out, "float32")


def measure_stream(scale: Scale, out: Path) -> Findings:
    """One video, then several at a time."""
    del out
    settings = scale.settings()
    model = random_model(settings.model, settings.seed)
    sides: dict[str, stream.VideoSide] = {stream.STREAMING: stream.Streaming(model, scale.frame)}
    found = stream.measure(model.config, scale.frame, sides, turns=5 * scale.turns)
    print(found, flush=True)
    together = stream.together(model, scale.frame, scale.num_streams, scale.turns)
    return dataclasses.replace(found, notes=[*found.notes, together])


def measure_kernels(scale: Scale, out: Path) -> Findings:
    """Where the time of a training step goes; OUT/profile keeps the trace."""
    side = train.TrainSide(scale.settings())
    side.step()
    return kernels.measure(side.step, PROFILED_STEPS, out / "profile")


def measure_largest_batch(scale: Scale, out: Path) -> Findings:
    """What a batch twice as large needs tells what a clip takes, and so how many fit."""
    del out
    settings, batch = scale.settings(), scale.batch
    once, twice = (
        train.TrainSide(dataclasses.replace(settings, batch_size=size)).planned_bytes()
        for size in (batch, 2 * batch)
    )
    of_clip = (twice - once) / batch
    limit = scale.memory_bytes or jax.local_devices()[0].memory_stats()["bytes_limit"]
    fitting = batch + int((limit - once) / of_clip)
    note = (
        f"{once / 1e6:.0f} MB for {batch} clips, {of_clip / 1e6:.0f} for each more: {fitting} "
        f"should fit in {limit / 1e6:.0f}."
    )
    print(note, flush=True)
    return _steps(settings, (fitting, int(0.9 * fitting)), most=1, note=note)


def measure_whole_frames(scale: Scale, out: Path) -> Findings:
    """Training on whole frames, one clip and two."""
    del out
    return _steps(train.with_sizes(scale.settings(), scale.frame, 1), (1, 2), most=2, note="")


def _steps(settings: Settings, batches: Sequence[int], *, most: int, note: str) -> Findings:
    """Training steps of so many clips, each row printed at once; the first `most` that fit."""
    rows: list[Sequence[str]] = []
    for batch in batches:
        try:
            found = train.measure(dataclasses.replace(settings, batch_size=batch), turns=3)
            rows.append((f"{batch} clips", *found.rows[0][1:]))
            most -= 1
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            rows.append((f"{batch} clips", "does not fit", *("-",) * (len(columns()) - 2)))
        print(*rows[-1], sep="  ", flush=True)
        if not most:
            break
    height, width = settings.data.augmentation.crop_size
    return Findings(
        title=f"Training steps, {height}x{width}, on {jax.devices()[0].device_kind}",
        columns=columns(),
        rows=rows,
        notes=(note, "Memory: as the compiler planned it, state and batch included."),
    )


def measure_reads(scale: Scale, out: Path) -> Findings:
    """The memory read by the chip's kernel, chunked, and by tokamax where it is installed."""
    del out
    rivals = {CHUNKED: attention.chunked_side}
    is_there = importlib.util.find_spec("tokamax") is not None
    if is_there:
        rivals["tokamax"] = attention.tokamax_side
    sizes = attention.sizes_of(scale.settings())
    found = attention.measure(sizes, turns=scale.turns, rivals=rivals)
    absent = () if is_there else ("tokamax is not installed: not measured.",)
    return dataclasses.replace(found, notes=(*found.notes, *absent))


PARTS: Mapping[str, Part] = {
    "goldens": Part(measure_goldens, 60),
    "train": Part(measure_training, 150),
    "train_chunked": Part(measure_chunked_training, 120),
    "stream": Part(measure_stream, 90),
    "kernels": Part(measure_kernels, 60),
    "largest_batch": Part(measure_largest_batch, 150),
    "whole_frames": Part(measure_whole_frames, 120),
    "attention": Part(measure_reads, 60),
    "train_float32": Part(measure_training_in_float32, 150),
}
