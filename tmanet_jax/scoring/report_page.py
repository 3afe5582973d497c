"""A page that shows an evaluation: one HTML file that needs no network.

The look and the player's program are in `report_page.html`; here its gaps are filled.
"""

import html
import json
import math
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import resize_frame, resize_labels
from tmanet_jax.pictures import jpeg_uri, png_uri
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.evaluate import Assessment, Evaluation
from tmanet_jax.scoring.metrics import MOST_TOLD, Scores, most_confused, row_shares

_FOLDER = Path(__file__).parent
_LEAST_RGB, _FULL_RGB = np.array([238, 244, 250]), np.array([8, 81, 156])
_MAX_WIDTH = 1024
"""Pixels; wider frames are shown smaller, so that the page stays small."""


def render_page(assessed: Assessment, how: str, curves: str | None = None) -> str:
    """The page as HTML.

    Args:
        assessed: what it shows.
        how: the clips were segmented, in words.
        curves: where the page of the run's curves is, seen from this one; None: there is none.
    """
    evaluation = assessed.evaluation
    classes = evaluation.classes
    others = [(name, part) for name, (part, _) in evaluation.other_scores.items()]
    frames = [_player_frame(one, classes) for one in assessed.player or evaluation.shown]
    is_video = bool(assessed.player)
    return filled(
        "report_page.html",
        title=html.escape(assessed.title),
        how=html.escape(how),
        curves=f'<br><a href="{html.escape(curves)}">Curves of the run</a>' if curves else "",
        cards=_cards(assessed),
        means=_means([("all", evaluation.overall), *others, *evaluation.groups.items()]),
        classes=_classes(evaluation.overall, classes),
        confusion=_confusion(evaluation.confusion_CxC, classes),
        told=_told(classes),
        worst=_worst(assessed.worst, evaluation),
        last=max(len(frames) - 1, 0),
        frames_are="Frames of a video" if is_video else "Clips",
        play="Play" if is_video else "Slide show",
        interval=200 if is_video else 2000,
        frames=json.dumps(frames).replace("<", "\\u003c"),  # no id can end the script
    )


def filled(template: str, **gaps: object) -> str:
    """A page of this folder, in the one style of all of them, its gaps filled."""
    style, script = ((_FOLDER / f"page.{suffix}").read_text() for suffix in ("css", "js"))
    text = (_FOLDER / template).read_text()
    return string.Template(text).substitute(style=style, script=script, **gaps)


def _cards(assessed: Assessment) -> str:
    overall = assessed.evaluation.overall
    values = {"mIoU": overall.mean_iou, "mAcc": overall.mean_accuracy, "aAcc": overall.all_accuracy}
    for name, (part, _) in assessed.evaluation.other_scores.items():
        values[f"mIoU, {_spelt(name)}"] = part.mean_iou
    if assessed.temporal is not None:
        values |= assessed.temporal.by_name()
    return "".join(
        f'<div class="card"><b>{_percent(value)}</b>{html.escape(name)}</div>'
        for name, value in values.items()
    )


def _means(groups: Sequence[tuple[str, Scores]]) -> str:
    return "".join(
        f"<tr><td>{html.escape(_spelt(name))}</td>"
        + _number(group.mean_iou)
        + _number(group.mean_accuracy)
        + _number(group.mean_dice)
        + _number(group.all_accuracy)
        + "</tr>"
        for name, group in groups
    )


def _classes(overall: Scores, classes: ClassSet) -> str:
    """A row a class that is labelled or predicted."""
    return "".join(
        f"<tr><td>{_chip(classes, index)}{html.escape(name)}</td>"
        f'<td><div class="bar"><i style="width:{100 * overall.iou_C[index]:.1f}%"></i></div></td>'
        + _number(overall.iou_C[index])
        + _number(overall.accuracy_C[index])
        + _number(overall.dice_C[index])
        + _number(overall.frequency_C[index])
        + "</tr>"
        for index, name in enumerate(classes.names)
        if not math.isnan(overall.iou_C[index])
    )


def _told(classes: ClassSet) -> str:
    if classes.num_classes <= MOST_TOLD:
        return ""
    return (
        f"The {MOST_TOLD} of {classes.num_classes} classes with the most wrong pixels; "
        "confusion.csv has all."
    )


def _confusion(confusion_CxC: np.ndarray, classes: ClassSet) -> str:
    """A row and a column for each class that is labelled or predicted, and can be surveyed."""
    occurring = most_confused(confusion_CxC)
    names = [html.escape(classes.names[index]) for index in occurring]
    shares_CxC = row_shares(confusion_CxC)
    head = "".join(f"<th><span>{name}</span></th>" for name in names)
    rows = [
        f"<tr><th>{_chip(classes, int(row))}{name}</th>"
        + "".join(
            _cell(shares_CxC[row, column], f"{name} taken for {other}")
            for column, other in zip(occurring, names, strict=True)
        )
        + "</tr>"
        for row, name in zip(occurring, names, strict=True)
    ]
    return f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _cell(share: float, meaning: str) -> str:
    """Blue, the darker the larger the share, under the one of black and white that is read better.

    Source of the luminance and its bound: WCAG 2.2, contrast ratio.
    """
    told = f'title="{meaning}: {100 * share:.2f}%"'
    if share < 0.005:
        return f"<td {told}></td>"
    colour = np.round(_LEAST_RGB + share * (_FULL_RGB - _LEAST_RGB)).astype(int)
    linear = ((colour / 255 + 0.055) / 1.055) ** 2.4
    ink = "#000" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "#fff"
    style = f"background:rgb({','.join(map(str, colour))});color:{ink}"
    return f'<td style="{style}" {told}>{100 * share:.0f}</td>'


def _worst(worst: Sequence[SegmentedClip], evaluation: Evaluation) -> str:
    if not worst:
        return ""
    iou_of_clip = dict(zip(evaluation.clip_ids, evaluation.mean_iou_N, strict=True))
    figures = [
        '<figure><div class="scroll" tabindex="0">'
        '<img alt="memory frames, frame, labels, prediction and errors" '
        f'src="{jpeg_uri(_comparison(clip, evaluation))}"></div>'
        f"<figcaption>{html.escape(clip.clip.id)}: mIoU {_percent(iou_of_clip[clip.clip.id])}"
        "</figcaption></figure>"
        for clip in worst
    ]
    return (
        f'<section class="worst"><h2>{_lowest(len(worst))} with the lowest mIoU</h2>'
        f"{''.join(figures)}</section>"
    )


def _lowest(count: int) -> str:
    return "The clip" if count == 1 else f"The {count} clips"


def _comparison(segmented: SegmentedClip, evaluation: Evaluation) -> np.ndarray:
    picture = segmented.picture(evaluation.classes)
    return resize_frame(picture, _shown_size(picture, 2 * _MAX_WIDTH))


def _player_frame(segmented: SegmentedClip, classes: ClassSet) -> dict[str, str]:
    """A frame for the player's program: an id and three data URIs."""
    frame_HxWx3 = segmented.clip.frames_SxHxWx3[-1]
    size = _shown_size(frame_HxWx3, _MAX_WIDTH)
    return {
        "id": segmented.clip.id,
        "frame": jpeg_uri(resize_frame(frame_HxWx3, size)),
        "labels": _mask(segmented.clip.labels_HxW, size, classes),
        "prediction": _mask(segmented.predicted_HxW, size, classes),
    }


def _shown_size(picture_HxWx3: np.ndarray, max_width: int) -> Size:
    height, width, _ = picture_HxWx3.shape
    factor = min(1, max_width / width)
    return Size(max(1, round(height * factor)), round(width * factor))


def _mask(labels_HxW: np.ndarray, size: Size, classes: ClassSet) -> str:
    picture = classes.paint(resize_labels(labels_HxW, size))
    return png_uri(picture)


def _chip(classes: ClassSet, index: int) -> str:
    red, green, blue = classes.palette_Cx3[index]
    return f'<span class="chip" style="background:rgb({red},{green},{blue})"></span>'


def _number(fraction: float) -> str:
    return f'<td class="number">{_percent(fraction)}</td>'


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}" if math.isfinite(fraction) else "-"


def _spelt(name: str) -> str:
    return name.replace("_", " ")
