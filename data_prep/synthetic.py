"""Renders a data set of street scenes in Cityscapes' own layout and names.

    python -m data_prep.synthetic --out=DIR --size=128x256 --train=400 --val=60

Each snippet has 30 frames, of which number 000019 is annotated, as in Cityscapes:

    OUT/leftImg8bit/<split>/<city>/<city>_<snippet>_000019_leftImg8bit.png
    OUT/leftImg8bit_sequence/<split>/<city>/<city>_<snippet>_<frame>_leftImg8bit.png
    OUT/gtFine/<split>/<city>/<city>_<snippet>_000019_gtFine_label{Ids,TrainIds}.png
    OUT/gtFine_sequence/...          labels of every frame, with --label-all
    OUT/groups.json                  annotated frames that are "clean", and "degraded"
    OUT/synthetic.json               what the data set was rendered with

A snippet depends on the seed, its split and its number alone.  Files appear whole or not at all,
and a second run renders only what is missing.
"""

import argparse
import collections.abc
import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import sys

from tqdm import tqdm

from data_prep.stopping import stops_with
from data_prep.street.render import SnippetFrames
from data_prep.street.scene import ANNOTATED_FRAME, SNIPPET_FRAMES
from data_prep.writing import encoded, write_file
from tmanet_jax.data.classes import CITYSCAPES_TRAIN_ID_OF_LABEL_ID
from tmanet_jax.data.codec import parse_size
from tmanet_jax.data.files import why_not_written
from tmanet_jax.data.records_info import RENDERED_CITIES
from tmanet_jax.data.workers import begin_worker
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.program import advice
from tmanet_jax.progress import with_progress

SMALLEST_SIZE = (64, 128)
LARGEST_SIZE = (4096, 8192)
_MOST_SNIPPETS = 1_000_000  # their numbers have six digits
_MOST_WORKERS = 256
_FORMAT_VERSION = 1
_KINDS = ("leftImg8bit", "leftImg8bit_sequence", "gtFine", "gtFine_sequence")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """One snippet to write."""

    out: pathlib.Path
    size: tuple[int, int]
    seed: int
    split: str
    index: int
    degraded_share: float
    frames: tuple[int, ...]
    label_all: bool
    night: bool

    def path(self, kind: str, suffix: str, frame: int) -> pathlib.Path:
        """The file of a frame, for instance of kind `gtFine` with suffix `gtFine_labelIds`."""
        folder = self.out / kind / self.split / RENDERED_CITIES[self.split]
        return folder / f"{RENDERED_CITIES[self.split]}_{self.index:06d}_{frame:06d}_{suffix}.png"

    def paths(self) -> dict[pathlib.Path, tuple[int, str]]:
        """The snippet's files, each with its frame and what it shows of it."""
        paths = {
            self.path("leftImg8bit_sequence", "leftImg8bit", frame): (frame, "image")
            for frame in self.frames
        }
        annotated = ANNOTATED_FRAME
        paths[self.path("leftImg8bit", "leftImg8bit", annotated)] = (annotated, "image")
        kinds = {"gtFine": (annotated,), "gtFine_sequence": self.frames if self.label_all else ()}
        for kind, frames in kinds.items():
            for frame in frames:
                paths[self.path(kind, "gtFine_labelIds", frame)] = (frame, "label_ids")
                paths[self.path(kind, "gtFine_labelTrainIds", frame)] = (frame, "train_ids")
        return paths


def is_degraded(index: int, share: float) -> bool:
    """Whether a snippet's annotated frame is degraded: evenly spread, the share of any first N."""
    return math.floor((index + 1) * share) > math.floor(index * share)


def write_snippet(snippet: Snippet) -> None:
    """Renders a snippet and writes the files of it that are missing."""
    missing: dict[int, list[tuple[pathlib.Path, str]]] = {}
    for path, (frame, content) in snippet.paths().items():
        if not _is_written(path):
            missing.setdefault(frame, []).append((path, content))
    if not missing:
        return
    degraded = is_degraded(snippet.index, snippet.degraded_share)
    frames = SnippetFrames(
        snippet.split, snippet.index, snippet.size, snippet.seed, degraded, night=snippet.night
    )
    for frame, files in missing.items():
        picture = frames.draw(frame)
        contents = {
            "image": picture.image_HxWx3,
            "label_ids": picture.labels_HxW,
            "train_ids": CITYSCAPES_TRAIN_ID_OF_LABEL_ID[picture.labels_HxW],
        }
        content_of = {kind: encoded(".png", contents[kind]) for kind in {kind for _, kind in files}}
        for path, kind in files:
            write_file(path, content_of[kind])


def _is_written(path: pathlib.Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def render_dataset(
    out: str | os.PathLike[str],
    *,
    size: tuple[int, int] = (128, 256),
    train: int = 0,
    val: int = 0,
    test: int = 0,
    seed: int = 0,
    before: int = ANNOTATED_FRAME,
    after: int = SNIPPET_FRAMES - 1 - ANNOTATED_FRAME,
    degraded_train: float = 0.3,
    degraded_val: float = 0.5,
    label_all: bool = False,
    night: bool = False,
    workers: int | None = None,
    progress: bool = True,
    replace: bool = False,
) -> None:
    """Renders a data set; what is already there of the same is kept.

    Args:
        out: folder of the data set.
        size: height and width of the frames in pixels, at least 64 x 128.
        train: number of snippets in the training split.
        val: number of snippets in the validation split.
        test: number of snippets in the test split.
        seed: of everything random.
        before: how many frames before the annotated one are written, at most 19.
        after: how many frames after the annotated one are written, at most 10.
        degraded_train: share of the training split's annotated frames that are degraded.
        degraded_val: the same share for the validation and the test split.
        label_all: also write the labels of every frame, into gtFine_sequence.
        night: render it dark.
        workers: number of processes; all cores by default.
        progress: show a progress bar.
        replace: whether a data set that was rendered otherwise, or with more snippets, goes.

    Raises:
        UserError: an option is out of range, or `out` holds another data set.
    """
    counts = {"train": train, "val": val, "test": test}
    shares = {"train": degraded_train, "val": degraded_val, "test": degraded_val}
    workers = min(os.cpu_count() or 1, _MOST_WORKERS) if workers is None else workers
    _check_options(size, counts, shares, seed, before, after, workers)
    root = pathlib.Path(out)
    rendered_with: dict[str, object] = {
        "version": _FORMAT_VERSION,
        "size": list(size),
        "seed": seed,
    }
    if night:
        rendered_with["night"] = True
    _mark(root, rendered_with | {"degraded": shares}, counts, replace)
    frames = tuple(range(ANNOTATED_FRAME - before, ANNOTATED_FRAME + after + 1))
    snippets = [
        Snippet(root, size, seed, split, index, shares[split], frames, label_all, night)
        for split, count in counts.items()
        for index in range(count)
    ]
    if progress:
        what = f"Rendering {len(snippets)} snippets of {size[0]}x{size[1]} pixels."
        tqdm.write(what, file=sys.stderr)
    written = _write_all(snippets, workers)
    for _ in with_progress(written, "rendering", "snippet", len(snippets), is_shown=progress):
        pass
    write_file(root / "groups.json", json.dumps(_groups(root, shares), indent=1).encode())


def _write_all(snippets: list[Snippet], workers: int) -> collections.abc.Iterator[None]:
    """Writes snippets, in processes of their own if there are to be several."""
    if workers == 1 or len(snippets) == 1:
        yield from map(write_snippet, snippets)
        return
    # Spawned, because the caller may hold threads (JAX does) that a fork would not survive.
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, max(1, len(snippets))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin_worker,
    ) as pool:
        tasks = [pool.submit(write_snippet, snippet) for snippet in snippets]
        try:
            for task in concurrent.futures.as_completed(tasks):
                yield task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # at the end of the context it would not cancel them
            raise


def _check_options(
    size: tuple[int, int],
    counts: dict[str, int],
    shares: dict[str, float],
    seed: int,
    before: int,
    after: int,
    workers: int,
) -> None:
    height, width = size
    if height < SMALLEST_SIZE[0] or width < SMALLEST_SIZE[1]:
        raise UserError(
            f"size {height}x{width} is too small to show a street: "
            f"use at least {SMALLEST_SIZE[0]}x{SMALLEST_SIZE[1]} (height x width)."
        )
    if height > LARGEST_SIZE[0] or width > LARGEST_SIZE[1]:
        raise UserError(
            f"size {height}x{width} is too large to render: use at most "
            f"{LARGEST_SIZE[0]}x{LARGEST_SIZE[1]} (height x width)."
        )
    for split, count in counts.items():
        if not 0 <= count <= _MOST_SNIPPETS:
            raise UserError(f"{split}={count}: use 0 to {_MOST_SNIPPETS} snippets.")
    if not any(counts.values()):
        raise UserError("nothing to render: give the number of snippets in train, val or test.")
    for split, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"share of degraded frames in {split} is {share}: use 0 to 1.")
    if seed < 0:
        raise UserError(f"seed={seed}: use a number that is not negative.")
    if not 0 <= before <= ANNOTATED_FRAME:
        raise UserError(f"before={before}: use 0 to {ANNOTATED_FRAME}.")
    most_after = SNIPPET_FRAMES - 1 - ANNOTATED_FRAME
    if not 0 <= after <= most_after:
        raise UserError(f"after={after}: use 0 to {most_after}.")
    if not 1 <= workers <= _MOST_WORKERS:
        raise UserError(f"workers={workers}: use 1 to {_MOST_WORKERS}.")


def _mark(
    root: pathlib.Path, rendered_with: dict[str, object], counts: dict[str, int], replace: bool
) -> None:
    """Notes what a data set is rendered with; refuses to mix two in one folder."""
    path = root / "synthetic.json"
    found = _rendered_with(path)
    pictures = (path for kind in _KINDS for path in (root / kind).rglob("[!.]*.png"))
    if found is None and (foreign := next(pictures, None)):
        raise UserError(f"{foreign} was not rendered: choose another folder, so as not to mix two.")
    other = None
    if found not in (None, rendered_with):
        other = f"a data set rendered with {found}, not with {rendered_with}"
    for split, count in counts.items():
        there = max(_annotated(root, split), default=-1) + 1
        if 0 < count < there:
            other = other or f"{there} snippets of {split}, and {count} are asked for"
    if other is not None:
        if not replace:
            raise UserError(f"{root} holds {other}: choose another folder, or say --replace.")
        _remove(root)
    write_file(path, json.dumps(rendered_with).encode())


def _rendered_with(path: pathlib.Path) -> object:
    """What a folder notes of its data set; None if it has no such note."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): delete {path.parent} and render again."
        ) from error


def _remove(root: pathlib.Path) -> None:
    try:
        for kind in _KINDS:
            if (root / kind).exists():
                shutil.rmtree(root / kind)
    except OSError as error:
        raise UserError(f"{root} cannot be emptied: {why_not_written(error)}.") from error


def _annotated(root: pathlib.Path, split: str) -> dict[int, str]:
    """Names of the annotated frames of a split in the folder, by the numbers of their snippets."""
    suffix = "_leftImg8bit.png"
    city = RENDERED_CITIES[split]
    paths = (root / "leftImg8bit" / split).glob(f"{city}/{city}_*{suffix}")
    names = sorted(path.name.removesuffix(suffix) for path in paths)
    return {int(name.split("_")[1]): name for name in names if name.split("_")[1].isdecimal()}


def _groups(root: pathlib.Path, shares: dict[str, float]) -> dict[str, list[str]]:
    """Names of all annotated frames in the folder by group."""
    groups: dict[str, list[str]] = {"clean": [], "degraded": []}
    for split, share in shares.items():
        for index, name in _annotated(root, split).items():
            groups["degraded" if is_degraded(index, share) else "clean"].append(name)
    return groups


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=advice("python -m data_prep.synthetic"),
        description="Renders street scenes with exact labels in Cityscapes' layout.",
    )
    add = parser.add_argument
    add("--out", required=True, help="folder of the data set")
    add("--size", type=parse_size, default=(128, 256), help="HEIGHTxWIDTH in pixels (128x256)")
    add("--train", type=int, default=0, help="snippets in the training split")
    add("--val", type=int, default=0, help="snippets in the validation split")
    add("--test", type=int, default=0, help="snippets in the test split")
    add("--seed", type=int, default=0)
    add("--before", type=int, default=19, help="frames before the annotated one (19)")
    add("--after", type=int, default=10, help="frames after the annotated one (10)")
    add("--degraded-train", type=float, default=0.3, help="share of annotated frames (0.3)")
    add("--degraded-val", type=float, default=0.5, help="the same for val and test (0.5)")
    add("--label-all", action="store_true", help="write the labels of every frame")
    add("--night", action="store_true", help="a street in the dark")
    add("--workers", type=int, help="processes (all cores)")
    add("--replace", action="store_true", help="remove a street that is there and is another one")
    return parser


@ends_with_message
def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = vars(_parser().parse_args(arguments))
    with stops_with("Stopped. The same command goes on from here."):
        render_dataset(options.pop("out"), **options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
