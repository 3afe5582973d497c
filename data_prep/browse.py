"""Shows clips of the records: memory frames, query and labels, before and after augmentation.

    python -m data_prep.browse --records=data/cityscapes --out=clips.html
    python -m data_prep.browse --records=data/cityscapes --out=clips.png --split=val --clips=4
    python -m data_prep.browse --workdir=runs/cityscapes --out=clips.html

The first row of a clip is what the record holds, the second what training may make of it: drawn
and made by the pipeline's own code, with the crops and colours of the run in a workdir if one is
given. The HTML is one file with the pictures in it.
"""

import argparse
import base64
import dataclasses
import html
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.writing import encoded, write_file
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.codec import parse_size
from tmanet_jax.data.records import ClipRecords, open_clips
from tmanet_jax.data.samples import (
    ClipDraw,
    Sampling,
    draw_clip,
    draw_memory_offsets,
    empty_batch,
    make_clip,
)
from tmanet_jax.data.strict_json import decode
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.pictures import blend, joined, legend, under_caption
from tmanet_jax.program import advice
from tmanet_jax.run_file import read_run_file

_PANEL_HEIGHT = 192  # pixels
_CROP_SHARE = 0.75  # of the frame's height, as 769 of 1024
_MEMORY = 2  # frames, if the records hold as many
_JPEG_QUALITY = 90

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff }}
h2 {{ font-size: 1rem; margin: 1.5rem 0 .3rem }}
p {{ margin: .2rem 0; color: #555 }}
img {{ max-width: 100%; display: block; margin-top: .3rem }}
.legend span {{ display: inline-block; margin: 0 1rem .3rem 0 }}
.legend i {{ display: inline-block; width: 1em; height: 1em; margin-right: .4em;
  vertical-align: -.15em }}
</style>
<h1>{title}</h1>
<p class="legend">{legend}</p>
{clips}
</html>
"""


@dataclass(frozen=True)
class ClipPicture:
    """A clip to look at.

    Attributes:
        title: its id, and its group if it has one.
        draw: what was drawn for the second row, in words.
        picture_HxWx3: both rows, uint8 RGB.
        classes: the classes that occur in its labels.
    """

    title: str
    draw: str
    picture_HxWx3: np.ndarray
    classes: frozenset[int]


def show_clip(
    records: ClipRecords, index: int, sampling: Sampling, rng: np.random.Generator
) -> ClipPicture:
    """Reads a clip, draws an augmentation and paints both.

    Raises:
        UserError: the record is damaged.
    """
    classes = records.info.classes
    memory_range = records.info.memory_range
    clip = records.read(index, range(memory_range, 0, -1))
    offsets = draw_memory_offsets(rng, sampling.num_memory, sampling.memory_range)
    drawn = records.read_encoded(index, offsets)
    draw = draw_clip(rng, clip.labels_HxW, sampling)
    batch = empty_batch(1, sampling.num_memory + 1, sampling.augmentation.crop_size)
    make_clip(drawn, clip.labels_HxW, draw, batch, 0)
    rows = [
        _row(clip.frames_SxHxWx3, clip.labels_HxW, range(memory_range, 0, -1), classes),
        _row(batch.frames[0], batch.labels[0], offsets, classes),
    ]
    return ClipPicture(
        title=f"{clip.id} ({clip.group})" if clip.group else clip.id,
        draw=_in_words(draw),
        picture_HxWx3=joined(_of_one_width(rows), axis=0),
        classes=frozenset(np.unique(clip.labels_HxW).tolist()) & set(range(classes.num_classes)),
    )


def contact_sheet(clips: Sequence[ClipPicture], classes: ClassSet) -> np.ndarray:
    """All clips one below the other, the legend at the end; uint8 RGB."""
    parts = [
        under_caption(clip.picture_HxWx3, f"{clip.title}    second row: {clip.draw}")
        for clip in clips
    ]
    parts = _of_one_width(parts)
    present = sorted(frozenset().union(*(clip.classes for clip in clips)))
    return joined([*parts, legend(present, classes, parts[0].shape[1])], axis=0, gap=12)


def page(clips: Sequence[ClipPicture], classes: ClassSet, title: str) -> str:
    """The clips as one HTML file that needs no other."""
    present = sorted(frozenset().union(*(clip.classes for clip in clips)))
    return _PAGE.format(
        title=html.escape(title),
        legend="\n".join(
            f'<span><i style="background:rgb{classes.palette_Cx3[index]}"></i>'
            f"{html.escape(classes.names[index])}</span>"
            for index in present
        ),
        clips="\n".join(
            f"<h2>{html.escape(clip.title)}</h2>\n"
            "<p>Above: as recorded, oldest memory frame first, query, labels. "
            f"Below: as trained; {clip.draw}.</p>\n"
            f'<img alt="{html.escape(clip.title)}" src="data:image/jpeg;base64,'
            f'{_base64_jpeg(clip.picture_HxWx3)}">'
            for clip in clips
        ),
    )


@dataclass(frozen=True)
class RunClips:
    """What a run trains on.

    Attributes:
        data_dir: its data directory.
        frame_stride: frames of the video from one memory frame to the next.
        classes: that it reads labels as; (): the recorded ones.
        of_several: whether it mixes several directories, so that some of them may be elsewhere.
        sampling: how it makes training clips of them.
    """

    data_dir: Path
    frame_stride: int | None
    classes: tuple[str, ...]
    of_several: bool
    sampling: Sampling

    @classmethod
    def of_workdir(cls, workdir: Path) -> "RunClips":
        """As its `config.json` says; raises UserError if it says nothing that can be used."""
        run = read_run_file(workdir)
        if run is None:
            raise UserError(f"{workdir} is not the workdir of a run that has begun.")
        config = run.config
        try:
            num_memory, memory_range = (
                config.get("model.num_memory", 0),
                config["data.memory_range"],
            )
            fields = {  # of an older run, those that there were
                f.name: config[f"data.{f.name}"]
                for f in dataclasses.fields(Augmentation)
                if f"data.{f.name}" in config
            }
            data_dir = Path(run.content["data_dir"])
        except (TypeError, KeyError) as error:
            raise run.damaged(repr(error)) from error
        augmentation = decode(Augmentation, fields, str(run.path))
        memory_range = num_memory if memory_range is None else memory_range
        return cls(
            data_dir,
            config.get("data.frame_stride"),
            tuple(config.get("data.classes", ())),
            bool(config.get("data.mixed")),
            Sampling(augmentation, num_memory, memory_range),
        )


def browse(
    data_dir: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    split: str = "train",
    num_clips: int = 6,
    seed: int = 0,
    crop_size: tuple[int, int] | None = None,
    num_memory: int | None = None,
    run: RunClips | None = None,
) -> None:
    """Writes a contact sheet of a few clips.

    Args:
        data_dir: the data directory; None: the run's.
        out: the file, .png or .html.
        split: which clips.
        num_clips: how many of them; all if there are fewer. Which, is drawn.
        seed: of what is drawn.
        crop_size: of the augmentation; three quarters of the frame's height each way by default.
        num_memory: memory frames of the augmentation, drawn from all in the record.
        run: the second row is made as it trains, but for what the arguments say.

    Raises:
        UserError: the records cannot be read, the file not written, or an option is wrong.
    """
    if data_dir is None:
        if run is None:
            raise UserError("Which clips? Say --records=DIR, or --workdir=DIR of a run.")
        data_dir = run.data_dir
    out = Path(out)
    if out.suffix not in (".png", ".html"):
        raise UserError(f"{out} ends in neither .png nor .html: which shall it be?")
    if num_clips < 1:
        raise UserError(f"{num_clips} clips are nothing to show: ask for 1 or more.")
    if seed < 0:
        raise UserError(f"The seed is {seed}; it must be 0 or more.")
    how = () if run is None else (run.frame_stride, run.classes, run.of_several)
    records = open_clips(data_dir, split, *how)
    sampling = _default_sampling(records) if run is None else run.sampling
    if crop_size is not None:
        augmentation = dataclasses.replace(sampling.augmentation, crop_size=crop_size)
        sampling = dataclasses.replace(sampling, augmentation=augmentation)
    if num_memory is not None:
        sampling = dataclasses.replace(sampling, num_memory=num_memory)
    records.check_memory(sampling.num_memory, sampling.memory_range)
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.choice(len(records), min(num_clips, len(records)), replace=False))
    clips = [show_clip(records, int(index), sampling, rng) for index in indices]
    classes = records.info.classes
    if out.suffix == ".png":
        content = encoded(".png", contact_sheet(clips, classes)[..., ::-1])
    else:
        title = f"{len(clips)} of {len(records)} clips of {split}, {data_dir}"
        content = page(clips, classes, title).encode()
    write_file(out, content)


def _default_sampling(records: ClipRecords) -> Sampling:
    memory_range = records.info.memory_range
    side = max(int(records.read_encoded(0).size.height * _CROP_SHARE), 1)
    return Sampling(Augmentation((side, side)), min(_MEMORY, memory_range), memory_range)


def _row(
    frames_SxHxWx3: np.ndarray,
    labels_HxW: np.ndarray,
    offsets: Sequence[int],
    classes: ClassSet,
) -> np.ndarray:
    """Memory frames, query, and the labels over the query, side by side."""
    captions = [*(f"query - {offset}" for offset in offsets), "query", "labels"]
    pictures = [*frames_SxHxWx3, blend(frames_SxHxWx3[-1], labels_HxW, classes)]
    panels = [
        under_caption(_panel(picture_HxWx3), caption)
        for picture_HxWx3, caption in zip(pictures, captions, strict=True)
    ]
    return joined(panels, axis=1)


def _panel(picture_HxWx3: np.ndarray) -> np.ndarray:
    """The picture at the height of a panel."""
    height, width = picture_HxWx3.shape[:2]
    size = (max(round(width * _PANEL_HEIGHT / height), 1), _PANEL_HEIGHT)
    way = cv2.INTER_AREA if height > _PANEL_HEIGHT else cv2.INTER_NEAREST
    return cv2.resize(picture_HxWx3, size, interpolation=way)


def _of_one_width(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pads with white on the right."""
    width = max(picture.shape[1] for picture in pictures)
    return [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
        for picture in pictures
    ]


def _in_words(draw: ClipDraw) -> str:
    geometry = draw.geometry
    mirrored = ", mirrored" if geometry.flip else ""
    return (
        f"resized to {geometry.scaled_size.height}x{geometry.scaled_size.width}, crop of "
        f"{geometry.box.height}x{geometry.box.width} at {geometry.box.top}, "
        f"{geometry.box.left}{mirrored}"
    )


def _base64_jpeg(picture_HxWx3: np.ndarray) -> str:
    options = (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
    return base64.b64encode(encoded(".jpg", picture_HxWx3[..., ::-1], options)).decode()


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=advice("python -m data_prep.browse"),
        description=advice(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--records", help="data directory that holds the clip records (the run's)")
    add("--workdir", type=Path, help="of a run: clips are augmented as it trains on them")
    add("--out", required=True, help="file to write, .png or .html")
    add("--split", default="train", help="which clips (train)")
    add("--clips", type=int, default=6, help="how many of them (6)")
    add("--seed", type=int, default=0, help="of which clips, and of their augmentation (0)")
    add("--crop", type=parse_size, help="HEIGHTxWIDTH (three quarters of the frame's height)")
    add("--memory", type=int, help="memory frames of the augmented clips (2)")
    options = parser.parse_args(arguments)
    browse(
        options.records,
        options.out,
        split=options.split,
        num_clips=options.clips,
        seed=options.seed,
        crop_size=options.crop,
        num_memory=options.memory,
        run=None if options.workdir is None else RunClips.of_workdir(options.workdir),
    )
    print(f"Wrote {options.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
