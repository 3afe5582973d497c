"""What a frame's pixels read from the memory, as a picture and as a page that follows the mouse."""

import base64
import html
import json
import logging
import string
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tmanet_jax.compilation_cache import compiling
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.codec import Size
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.inference.attention import MemoryRead, read_of_memory
from tmanet_jax.inference.windows import resized_frames
from tmanet_jax.pictures import blend, grid, jpeg_uri, legend
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.video.frames import FrameSource, open_frames
from tmanet_jax.weights.load import LoadedModel

_LOGGER = logging.getLogger(__name__)
PAGE_FILE, PICTURE_FILE = "explain.html", "explain.png"
_TEMPLATE = Path(__file__).with_name("explain_page.html")
_MOST_POSITIONS, _MOST_CELLS = 512, 2048
"""Of the page: queries that it knows, and cells of a map of a memory frame."""
_MARK_RGB = (255, 255, 255)


class Explained(NamedTuple):
    """A clip and what its last frame reads.

    Attributes:
        frames_SxHxWx3: as the network sees them, the memory first.
        read: of the last one.
        classes: that the network tells apart.
    """

    frames_SxHxWx3: np.ndarray
    read: MemoryRead
    classes: ClassSet


def explain(
    loaded: LoadedModel,
    evaluation: EvalConfig,
    source: FrameSource,
    frame: int,
    pixel: tuple[int, int] | None,
    output: Path,
) -> str:
    """Writes the picture and the page into a folder; returns where they are, and what they say.

    Args:
        loaded: the network.
        evaluation: of the run; how the network was scored goes before it, as for a score. Frames
            are seen whole, not in windows.
        source: of frames, as `open_frames` takes it.
        frame: which one, counted from 0.
        pixel: row and column in the source's frame; None: the middle.
        output: the folder; it is made.

    Raises:
        UserError: the network has no memory, the source no such frame, the frame no such pixel, or
            the folder cannot be written.
    """
    protocol = evaluation.for_weights(loaded.protocol).protocol
    num_memory = loaded.model.config.head.num_memory
    offsets = [protocol.memory_stride * back for back in range(num_memory, -1, -1)]
    frames_SxHxWx3 = _read_clip(source, [max(frame - back, 0) for back in offsets])
    size = Size(*frames_SxHxWx3.shape[1:3])
    pixel = pixel or (size[0] // 2, size[1] // 2)
    if not (0 <= pixel[0] < size[0] and 0 <= pixel[1] < size[1]):
        raise UserError(
            f"--pixel={pixel[0]},{pixel[1]} lies outside: frames have {size[0]} rows and {size[1]} "
            "columns, counted from 0."
        )
    seen = protocol.size_of(size)
    frames_SxHxWx3 = resized_frames(frames_SxHxWx3, seen)
    place = pixel[0] * seen[0] // size[0], pixel[1] * seen[1] // size[1]
    _LOGGER.info(compiling(f"the read of the memory for frames of {seen[0]}x{seen[1]}"))
    read = read_of_memory(loaded.model, frames_SxHxWx3, protocol)
    explained = Explained(frames_SxHxWx3, read, loaded.classes)
    try:
        output.mkdir(parents=True, exist_ok=True)
        _, png = cv2.imencode(".png", picture(explained, place)[:, :, ::-1])
        write_whole(output / PICTURE_FILE, png.tobytes())
        write_whole(output / PAGE_FILE, render(explained, place, f"frame {frame}").encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}.") from error
    return (
        f"picture: {output / PICTURE_FILE}\npage:    {output / PAGE_FILE}\n"
        f"memory:  {100 * explained.read.memory_share_hxw.mean():.0f} % of what the classifier gets"
    )


def _read_clip(source: FrameSource, indices: Sequence[int]) -> np.ndarray:
    """Frames of these indices, which do not fall, SxHxWx3.

    Raises:
        UserError: one is not there, is broken, or has another size.
    """
    found: dict[int, np.ndarray] = {}
    with open_frames(source) as frames:
        for frame in frames.frames:
            if frame.index in indices:
                if frame.pixels_HxWx3 is None:
                    raise UserError(f"Frame {frame.index} of {source} is broken: {frame.problem}.")
                found[frame.index] = frame.pixels_HxWx3
            if frame.index >= indices[-1]:
                break
    if indices[-1] not in found:
        raise UserError(f"{source} has no frame {indices[-1]}: choose an earlier --frame, from 0.")
    sizes = {found[index].shape for index in indices}
    if len(sizes) > 1:
        raise UserError(f"Frames {list(found)} of {source} differ in size: {sorted(sizes)}.")
    return np.stack([found[index] for index in indices])


def picture(explained: Explained, pixel: tuple[int, int]) -> np.ndarray:
    """What a pixel reads in each memory frame; labels with the memory and without; RGB uint8.

    Args:
        explained: the clip.
        pixel: row and column in its frames.
    """
    frame_HxWx3, read = explained.frames_SxHxWx3[-1], explained.read
    maps_Txhxw = read.attention([read.position_of(pixel)])[0]
    panels = [
        *(
            (
                f"read from memory {t}: {100 * map_hxw.sum():.0f} %",
                _heated(memory, map_hxw / maps_Txhxw.max()),
            )
            for t, (memory, map_hxw) in enumerate(
                zip(explained.frames_SxHxWx3, maps_Txhxw, strict=False), start=1
            )
        ),
        ("frame, and the pixel that reads", _marked(frame_HxWx3, pixel)),
        ("labels", blend(frame_HxWx3, read.labels_HxW, explained.classes)),
        (
            "labels without memory",
            blend(frame_HxWx3, read.labels_alone_HxW, explained.classes),
        ),
        ("bright: reads few places", _grey(1 - read.entropy(), frame_HxWx3)),
        (
            "bright: more from the memory",
            _grey(read.memory_share_hxw, frame_HxWx3),
        ),
    ]
    drawn = grid(panels)
    present = np.union1d(read.labels_HxW, read.labels_alone_HxW)
    return np.concatenate([drawn, legend(present.tolist(), explained.classes, drawn.shape[1])])


def _heated(frame_HxWx3: np.ndarray, light_hxw: np.ndarray) -> np.ndarray:
    """The frame, the brighter the more light, 0 to 1, falls there."""
    height, width = frame_HxWx3.shape[:2]
    light_HxW = cv2.resize(np.sqrt(light_hxw), (width, height), interpolation=cv2.INTER_NEAREST)
    light_HxWx1 = 0.25 + 0.75 * light_HxW[..., None]
    return np.round(frame_HxWx3 * light_HxWx1).astype(np.uint8)


def _grey(share_hxw: np.ndarray, like_HxWx3: np.ndarray) -> np.ndarray:
    height, width = like_HxWx3.shape[:2]
    grey_hxw = np.round(255 * np.clip(share_hxw, 0, 1)).astype(np.uint8)
    grey_HxW = cv2.resize(grey_hxw, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey_HxW[..., None], 3, axis=2)


def _marked(frame_HxWx3: np.ndarray, pixel: tuple[int, int]) -> np.ndarray:
    """With a cross through the pixel."""
    marked = frame_HxWx3.copy()
    marked[pixel[0]] = marked[:, pixel[1]] = _MARK_RGB
    return marked


def render(explained: Explained, pixel: tuple[int, int], title: str) -> str:
    """The page as HTML: it shows what the position under the mouse reads.

    Args:
        explained: the clip; of large frames every second, third ... position is known to the page.
        pixel: that is shown first, row and column in the clip's frames.
        title: of the page.
    """
    num_memory, h, w = explained.read.shape
    step = _step(h * w, _MOST_POSITIONS)
    rows, columns = np.arange(0, h, step), np.arange(0, w, step)
    positions_Px2 = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = _step(h * w, _MOST_CELLS)
    maps_PxTxhxw = _pooled(explained.read.attention(positions_Px2), cell)
    shares_PxT = maps_PxTxhxw.sum((2, 3))
    brightest_P = maps_PxTxhxw.max((1, 2, 3), keepdims=True)
    maps_uint8 = np.round(255 * np.sqrt(maps_PxTxhxw / brightest_P)).astype(np.uint8)
    first = explained.read.position_of(pixel)
    data = {
        "rows": len(rows),
        "columns": len(columns),
        "first": [first[0] // step, first[1] // step],
        "map": maps_uint8.shape[2:],
        "height": h / step,
        "width": w / step,
        "cover": [cell * maps_uint8.shape[2] / h, cell * maps_uint8.shape[3] / w],
        "shares": np.round(shares_PxT, 4).tolist(),
        "maps": base64.b64encode(maps_uint8.tobytes()).decode(),
    }
    memory = "".join(
        f'<figure><figcaption>memory {t + 1}: <output id="share{t}"></output></figcaption>'
        f'<div class="frame"><img alt="memory frame {t + 1}" src="{jpeg_uri(frame_HxWx3)}">'
        f'<canvas id="map{t}"></canvas></div></figure>'
        for t, frame_HxWx3 in enumerate(explained.frames_SxHxWx3[:num_memory])
    )
    frame_HxWx3 = explained.frames_SxHxWx3[-1]
    return string.Template(_TEMPLATE.read_text()).substitute(
        title=html.escape(title),
        memory=memory,
        frame=jpeg_uri(frame_HxWx3),
        labels=jpeg_uri(blend(frame_HxWx3, explained.read.labels_HxW, explained.classes)),
        alone=jpeg_uri(blend(frame_HxWx3, explained.read.labels_alone_HxW, explained.classes)),
        data=json.dumps(data),
    )


def _step(positions: int, most: int) -> int:
    """Every so-manieth row and column leave at most so many positions."""
    step = 1
    while positions > most * step**2:
        step += 1
    return step


def _pooled(maps_PxTxhxw: np.ndarray, step: int) -> np.ndarray:
    """Sums of step x step cells; the last ones may be smaller."""
    for axis in (2, 3):
        starts = np.arange(0, maps_PxTxhxw.shape[axis], step)
        maps_PxTxhxw = np.add.reduceat(maps_PxTxhxw, starts, axis=axis)
    return maps_PxTxhxw
