"""The README's moving picture: a street that no run trains on, whose camera fails now and then.

    python -m benchmarks picture --workdir=runs/demo --output=docs/street.webp

Four panels: the camera, its labels, what the network says of each frame alone, and what it says
with its memory.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import command
from data_prep.street.degradations import degrade
from data_prep.street.render import SnippetFrames
from data_prep.street.scene import SNIPPET_FRAMES
from data_prep.writing import write_file
from tmanet_jax.data.classes import CITYSCAPES_TRAIN_ID_OF_LABEL_ID, ClassSet
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.pictures import blend, grid, joined, legend
from tmanet_jax.weights.load import weights_of_run

_SIZE = (128, 256)
_SPOILT_EVERY = 5
_SHOWN_MS = 250
_QUALITY = 60


def add_command(commands: command.Subparsers) -> None:
    """`picture`."""
    parser = command.add(commands, "picture", __doc__, _run)
    parser.add_argument("--workdir", type=Path, required=True, help="of a run of the demo")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="WebP")
    parser.add_argument("--street", type=int, default=41, help="which one; default %(default)s")


def _run(options: argparse.Namespace) -> None:
    segmenter = Segmenter.load(weights_of_run(options.workdir))
    frames_SxHxWx3, labels_SxHxW = _filmed(options.street)
    predicted = {
        "each frame alone": np.stack(list(_alone(segmenter, frames_SxHxWx3))),
        "with memory": np.stack([result.labels for result in segmenter.stream(frames_SxHxWx3)]),
    }
    is_labelled_SxHxW = labels_SxHxW < segmenter.classes.num_classes
    panels = {"labels": labels_SxHxW}
    for name, predicted_SxHxW in predicted.items():
        wrong = np.mean((predicted_SxHxW != labels_SxHxW)[is_labelled_SxHxW])
        panels[f"{name}: {100 * wrong:.0f} % of all pixels wrong"] = predicted_SxHxW
    write_file(options.output, _webp(list(_drawn(frames_SxHxWx3, panels, segmenter.classes))))


def _alone(segmenter: Segmenter, frames_SxHxWx3: np.ndarray) -> Iterator[np.ndarray]:
    """Labels HxW of each frame, which is its own memory."""
    with segmenter.session() as session:
        for frame_HxWx3 in frames_SxHxWx3:
            session.reset(0)
            yield session.add([frame_HxWx3])[0].labels


def _filmed(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a street, RGB SxHxWx3, every few of which are spoilt, and their labels SxHxW."""
    street = SnippetFrames("test", number, _SIZE, seed=0, is_degraded=False)
    rng, frames, labels = np.random.default_rng(number), list[np.ndarray](), list[np.ndarray]()
    for index in range(SNIPPET_FRAMES):
        drawn = street.draw(index)
        is_spoilt = (index + 1) % _SPOILT_EVERY == 0
        image_HxWx3 = degrade(rng, drawn.image_HxWx3) if is_spoilt else drawn.image_HxWx3
        frames.append(image_HxWx3[..., ::-1])
        labels.append(CITYSCAPES_TRAIN_ID_OF_LABEL_ID[drawn.labels_HxW])
    return np.ascontiguousarray(frames), np.stack(labels)


def _drawn(
    frames_SxHxWx3: np.ndarray, panels: dict[str, np.ndarray], classes: ClassSet
) -> Iterator[np.ndarray]:
    present = [c for c in np.unique(list(panels.values())) if c < classes.num_classes]
    for index, frame_HxWx3 in enumerate(frames_SxHxWx3):
        rows = grid(
            [
                ("camera", frame_HxWx3),
                *((name, blend(frame_HxWx3, of[index], classes)) for name, of in panels.items()),
            ]
        )
        yield joined([rows, legend(present, classes, rows.shape[1])], axis=0)


def _webp(pictures: Sequence[np.ndarray]) -> bytes:
    first, *others = map(Image.fromarray, pictures)
    content = io.BytesIO()
    first.save(
        content, "webp", save_all=True, append_images=others, duration=_SHOWN_MS, loop=0,
        quality=_QUALITY, method=6,
    )  # fmt: skip
    return content.getvalue()
