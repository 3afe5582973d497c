"""What a run tells of the weights that it left: how they were trained, scored and pictured."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tmanet_jax.data import strict_json
from tmanet_jax.errors import UserError
from tmanet_jax.inference.engine import Computation
from tmanet_jax.protocol import EvalConfig, Origin, Protocol
from tmanet_jax.run_file import CONFIG_FILE, METRICS_FILE, PICTURES_DIR, read_run_file

_MOST_PICTURES = 2


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """Fractions; None where no pixel defines one."""

    IoU: float | None
    Acc: float | None
    Dice: float | None
    frequency: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Of some clips, as `metrics.json` has them; older ones have no fwIoU and mIoU_of_labelled."""

    mIoU: float | None
    mAcc: float | None
    mDice: float | None
    aAcc: float | None
    fwIoU: float | None = None
    mIoU_of_labelled: float | None = None
    classes: Mapping[str, ClassScore]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics(Scores):
    """Of a split.

    Attributes:
        split: its name.
        clips: how many it has.
        step: of the weights that were scored.
        weights: the file of them; empty: a checkpoint of the run.
        computation: what computed them, in words; empty: not recorded, as in older ones.
        scored: how frames were segmented.
        groups: of its clips.
    """

    split: str
    clips: int
    step: int
    weights: str
    computation: str = ""
    scored: EvalConfig
    groups: Mapping[str, Scores]


@dataclasses.dataclass(frozen=True)
class Training:
    """How weights were trained.

    Attributes:
        config: fields of the configuration by their dotted names.
        command: the command line.
        commit: of this project.
        versions: of Python and of the libraries that compute.
    """

    config: Mapping[str, Any]
    command: str | None = None
    commit: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Story:
    """What is known of weights.

    Attributes:
        training: None: nobody recorded it.
        metrics: of these weights.
        unscored: why there are none.
        files: that go along, by their names in the folder: metrics, and pictures of the same
            evaluation.
    """

    training: Training | None = None
    metrics: Metrics | None = None
    unscored: str = "No scores are recorded with these weights."
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)


def story_of(workdir: Path, origin: Origin | None, dtype: str) -> Story:
    """What the run in a workdir tells of its weights.

    Args:
        workdir: of the run.
        origin: what the weights say of themselves: scores of another step are not theirs.
        dtype: the compute type of their network: scores of another computation are not theirs.

    Raises:
        UserError: a file in the workdir is damaged.
    """
    training = _training(workdir)
    metrics = _metrics(workdir / METRICS_FILE)
    if metrics is None:
        return Story(training, unscored=f"The run has no {METRICS_FILE} yet: it was not scored.")
    of_others = _of_others(metrics, origin, dtype)
    if of_others:
        if kept := _kept(workdir, origin, dtype):
            path, metrics = kept
            return Story(training, metrics, files={METRICS_FILE: path})
        return Story(
            training,
            unscored=f"The run's {METRICS_FILE} is of {of_others}: "
            "`python run.py eval --workdir=DIR` scores them.",
        )
    pictures = sorted((workdir / PICTURES_DIR).glob("*.png"))[:_MOST_PICTURES]
    files = [workdir / METRICS_FILE, *pictures]
    return Story(training, metrics, files={str(path.relative_to(workdir)): path for path in files})


def _of_others(metrics: Metrics, origin: Origin | None, dtype: str) -> str:
    """What was scored instead of these weights, in words; empty: it was these, as they are."""
    if metrics.weights or origin is None or metrics.step != origin.step:
        scored = "a file of weights" if metrics.weights else f"step {metrics.step}"
        return f"{scored}, not of these weights{f' of step {origin.step}' if origin else ''}"
    own = Computation.by_jax(dtype).in_words()
    if metrics.computation not in ("", own):
        return f"{metrics.computation}, not of these weights in {own}"
    return ""


def _kept(workdir: Path, origin: Origin | None, dtype: str) -> tuple[Path, Metrics] | None:
    """Scores of these weights that another evaluation has given another name; of pictures, none."""
    earlier = Path(METRICS_FILE)
    for path in sorted(workdir.glob(f"{earlier.stem}-*{earlier.suffix}")):
        with contextlib.suppress(UserError):  # of another version, or damaged
            metrics = _metrics(path)
            if metrics is not None and not _of_others(metrics, origin, dtype):
                return path, metrics
    return None


def _training(workdir: Path) -> Training | None:
    run = read_run_file(workdir)
    if run is None:
        return None
    recorded = {
        name: run.content[name] for name in ("command", "commit", "versions") if name in run.content
    }
    about = strict_json.decode(Training, {"config": {}, **recorded}, str(workdir / CONFIG_FILE))
    return dataclasses.replace(about, config=run.config)


def _metrics(path: Path) -> Metrics | None:
    """Raises UserError if the file cannot be read, or is damaged."""
    try:
        if not path.is_file():
            return None
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}. See to its permissions, or move it away: "
            "then nothing is said of scores."
        ) from error
    values = strict_json.parse(content, str(path))
    if isinstance(values, Mapping):
        known = [field.name for field in dataclasses.fields(Metrics)]
        values = {name: values[name] for name in known if name in values}
        if isinstance(values.get("scored"), Mapping):
            values["scored"] = _how(values["scored"], str(path))
    return strict_json.decode(Metrics, values, str(path))


def _how(scored: Mapping[str, Any], where: str) -> EvalConfig:
    views = {name: scored[name] for name in ("ratios", "flip") if name in scored}
    rest = {name: scored[name] for name in scored if name not in views}
    protocol = strict_json.decode(Protocol, rest, f"{where}, scored")
    return strict_json.decode(EvalConfig, {"protocol": protocol, **views}, f"{where}, scored")
