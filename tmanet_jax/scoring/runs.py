"""Runs side by side: their scores as rows, and a page with their curves."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.run_file import CURVES_FILE, METRICS_FILE
from tmanet_jax.scoring.curves import Curve, read_curves
from tmanet_jax.scoring.report_page import filled

PAGE_FILE, COMPARISON_FILE = "curves.html", "comparison.html"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of runs, that people who confuse colours tell apart. Source: Okabe and Ito 2008."""
_WIDTH, _HEIGHT, _LEFT, _BELOW = 360, 190, 48, 22
_MOST_POINTS = 400


class Row(NamedTuple):
    """A score of each run, as fractions; None where no pixel defines it.

    Attributes:
        part: "mean", "group", "class", "over time" or "clip".
        name: e.g. "mIoU", "degraded", "road", "VC8", "rasterburg_000000_000019".
        scores: of the runs, in order.
    """

    part: str
    name: str
    scores: tuple[float | None, ...]

    @property
    def spread(self) -> float:
        """From the lowest to the highest."""
        known = [score for score in self.scores if score is not None]
        return max(known) - min(known) if known else 0.0


def report_runs(workdirs: Sequence[Path]) -> str:
    """Writes the page of `write_page`; returns means and groups as text, and where the page is.

    Raises:
        UserError: as `write_page`.
    """
    page, scored, every = write_page(workdirs)
    rows = [row for row in every if row.part in ("mean", "group", "over time")]
    head = " " * 24 + "".join(f"{workdir.name:>12}" for workdir in scored)
    lines = [
        f"{row.name:<24}" + "".join(f"{_percent(score):>12}" for score in row.scores)
        for row in rows
    ]
    return "\n".join([*([head, *lines, ""] if rows else []), f"page:     {page}"])


def write_page(workdirs: Sequence[Path]) -> tuple[Path, list[Path], list[Row]]:
    """Writes a page of the runs' curves and scores into the first workdir.

    Returns:
        the page; the runs that have scores; and these.

    Raises:
        UserError: a run has neither curves nor scores, scores are of different clips, or the page
            cannot be written.
    """
    curves = [_curves_of(workdir) for workdir in workdirs]
    scored = [workdir for workdir in workdirs if (workdir / METRICS_FILE).exists()]
    rows = compare(scored)
    page = workdirs[0] / (PAGE_FILE if len(workdirs) == 1 else COMPARISON_FILE)
    try:
        write_whole(page, render_runs(workdirs, curves, scored, rows).encode())
    except OSError as error:
        raise UserError(f"{page} cannot be written: {error}.") from error
    return page, scored, rows


def _curves_of(workdir: Path) -> Mapping[str, Curve]:
    """None where there are scores alone, as in WORKDIR/consistency."""
    is_scored = (workdir / METRICS_FILE).exists() and not (workdir / CURVES_FILE).exists()
    return {} if is_scored else read_curves(workdir)


def compare(workdirs: Sequence[Path]) -> list[Row]:
    """Scores of runs: means, mIoU of groups, IoU of classes, consistency over time, mIoU of clips.

    Raises:
        UserError: a workdir has no scores, or they are of different splits or clips.
    """
    found = [read_metrics(workdir) for workdir in workdirs]
    if not found:
        return []
    for workdir, metrics in zip(workdirs[1:], found[1:], strict=True):
        for field, meaning in (("split", "split"), ("clips", "number of clips")):
            if metrics[field] != found[0][field]:
                raise UserError(
                    f"The {meaning} is {found[0][field]} in {workdirs[0]} and {metrics[field]} in "
                    f"{workdir}: scores can be compared only on the same clips. Evaluate all with "
                    "the same records."
                )
        if metrics["mIoU_of_clip"].keys() != found[0]["mIoU_of_clip"].keys():
            raise UserError(
                f"{workdirs[0]} and {workdir} are of different clips: scores can be compared only "
                "on the same clips. Evaluate all with the same records."
            )
    parts = [_parts(metrics) for metrics in found]
    rows = [
        Row(part, name, tuple(of_run[part].get(name) for of_run in parts))
        for part, of_first in parts[0].items()
        for name in of_first
    ]
    return [row for row in rows if set(row.scores) != {None}]


def read_metrics(workdir: Path) -> Mapping[str, Any]:
    """The scores that a run left.

    Raises:
        UserError: there are none.
    """
    path = workdir / METRICS_FILE
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): train there, or evaluate with --workdir={workdir}."
        ) from error
    scores = {"split", "clips", "mIoU", "classes", "mIoU_of_clip"}
    if not isinstance(metrics, dict) or not scores <= set(metrics):
        raise UserError(f"{path} holds no scores of an evaluation: evaluate again.")
    return metrics


def _parts(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    groups = {name: metrics[name] for name in ("categories", "without_void") if name in metrics}
    groups |= metrics["groups"]
    return {
        "mean": {name: metrics[name] for name in ("mIoU", "mAcc", "aAcc", "mDice")},
        "group": {name: scores["mIoU"] for name, scores in groups.items()},
        "class": {name: scores["IoU"] for name, scores in metrics["classes"].items()},
        "over time": {
            name: score
            for name, score in metrics.get("temporal", {}).items()
            if not isinstance(score, str)
        },
        "clip": metrics["mIoU_of_clip"],
    }


def render_runs(
    workdirs: Sequence[Path],
    curves: Sequence[Mapping[str, Curve]],
    scored: Sequence[Path],
    rows: Sequence[Row],
) -> str:
    """The page as HTML.

    Args:
        workdirs: of the runs.
        curves: of each, by name.
        scored: those that have scores.
        rows: these.
    """
    names = {name: None for of_run in curves for name in of_run}  # as an ordered set
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/")[0] or "training", []).append(name)
    return filled(
        "runs_page.html",
        title=html.escape(", ".join(map(str, workdirs))),
        runs="".join(
            f'<span class="run">{_line_of(index)}{html.escape(str(workdir))}</span>'
            for index, workdir in enumerate(workdirs)
        ),
        scores=_scores(scored, rows),
        charts="".join(
            f"<section><h2>{html.escape(group)}</h2><div class='charts'>"
            + "".join(_chart(name, [of_run.get(name) for of_run in curves]) for name in members)
            + "</div></section>"
            for group, members in groups.items()
        ),
    )


def _line_of(run: int) -> str:
    return f'<i style="background:{_COLOURS[run % len(_COLOURS)]}"></i>'


def _scores(scored: Sequence[Path], rows: Sequence[Row]) -> str:
    """A table for means and groups, one for classes, and one of the clips that differ most."""
    several = len(scored) > 1
    tables = [
        ("Scores", [row for row in rows if row.part in ("mean", "group", "over time")]),
        ("IoU by class", [row for row in rows if row.part == "class"]),
    ]
    if several:
        of_clips = sorted((row for row in rows if row.part == "clip"), key=lambda row: -row.spread)
        tables.append(("mIoU of the clips that differ most", of_clips[:10]))
    return "".join(_table(title, scored, kept) for title, kept in tables if kept)


def _table(title: str, scored: Sequence[Path], rows: Sequence[Row]) -> str:
    several = len(scored) > 1
    heads = [workdir.name for workdir in scored] + ["spread"] * several
    body = "".join(
        f"<tr><th scope='row'>{html.escape(row.name)}</th>"
        + "".join(
            f'<td class="number">{_percent(score)}</td>'
            for score in (*row.scores, *[row.spread] * several)
        )
        + "</tr>"
        for row in rows
    )
    head = "".join(f'<th class="number">{html.escape(name)}</th>' for name in heads)
    return (
        f"<section><h2>{title}</h2><p class='soft'>In percent.</p>"
        "<div class='scroll' tabindex='0'><table class='sortable'>"
        f"<thead><tr><th>name</th>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def _chart(name: str, curves: Sequence[Curve | None]) -> str:
    """A line a run, as SVG, with the ends of both axes."""
    known = [curve for curve in curves if curve is not None]
    steps, values = (np.concatenate(parts) for parts in zip(*known, strict=True))
    first, last = int(steps.min()), int(steps.max())
    low, high = float(values.min()), float(values.max())
    lines = "".join(
        f'<polyline points="{" ".join(_points(curve, (first, last), (low, high)))}" '
        f'stroke="{_COLOURS[run % len(_COLOURS)]}"/>'
        for run, curve in enumerate(curves)
        if curve is not None
    )
    bottom = _HEIGHT - _BELOW
    label = html.escape(name)
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{label}, from {low:.4g} to {high:.4g}">'
        f'<path d="M{_LEFT} 4V{bottom}H{_WIDTH}" class="axis"/>{lines}'
        f'<text x="{_LEFT - 4}" y="12" class="end">{high:.4g}</text>'
        f'<text x="{_LEFT - 4}" y="{bottom}" class="end">{low:.4g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{first}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 6}" class="end">step {last}</text></svg></figure>'
    )


def _points(curve: Curve, steps: tuple[int, int], values: tuple[float, float]) -> Iterator[str]:
    """In the chart's coordinates; of many points some, evenly, the last one among them."""
    stride = -(-len(curve.steps_N) // _MOST_POINTS)
    chosen_N = np.arange(len(curve.steps_N) - 1, -1, -stride)[::-1]
    wide, high = max(steps[1] - steps[0], 1), (values[1] - values[0]) or 1.0
    for index in chosen_N:
        x = _LEFT + (curve.steps_N[index] - steps[0]) / wide * (_WIDTH - _LEFT)
        y = 4 + (values[1] - curve.values_N[index]) / high * (_HEIGHT - _BELOW - 4)
        yield f"{x:.1f},{y:.1f}"
    if len(chosen_N) == 1:  # a line needs two
        yield f"{x + 3:.1f},{y:.1f}"
