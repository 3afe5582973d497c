"""Polygons drawn with LabelMe, CVAT or any tool that writes COCO's JSON, as label pictures.

Formats: LabelMe 5, a JSON file a frame; "CVAT for images 1.1", an XML file a task; COCO, a JSON
file a task. What is drawn later lies on top, in CVAT by z_order. Pixels that nothing covers are of
the class `background`, where there is one, or else ignored.
"""

import reprlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np

from data_prep.source import SourceFile, WrongSourceError
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.resize import LONGEST_SIDE
from tmanet_jax.errors import UserError

BACKGROUND = "background"

_FINER = 3
"""A polygon is drawn on a grid so many times as fine, of which the centres of pixels are taken."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What one annotation covers.

    Attributes:
        label: its name in the file.
        rings: outlines Nx2, x and y in pixels, each of a part; empty where a mask says it.
        mask_HxW: bool, of a part of the picture whose first pixel is at `corner`, left and top.
    """

    label: str
    rings: tuple[np.ndarray, ...] = ()
    mask_HxW: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


Described = tuple[tuple[int, int], Sequence[Shape]]
"""Height and width of a frame, and what is drawn on it, the lowest first."""


@dataclass(frozen=True, eq=False)
class DrawnLabels:
    """The label picture of a frame: a grey PNG of train ids.

    Attributes:
        file: where the shapes are.
        frame: the frame's name in it.
        train_id_of_name: of the names that shapes may have.
        described: its size and shapes; None: LabelMe's file, which is read with the picture.
    """

    file: SourceFile
    frame: str
    train_id_of_name: Mapping[str, int]
    described: Described | None

    def __str__(self) -> str:
        return f"{self.file} ({self.frame})"

    @property
    def name(self) -> str:
        """The frame's, as a PNG's."""
        return f"{PurePosixPath(self.frame).stem}.png"

    @property
    def fingerprint(self) -> str:
        """Changes when the file does, or the classes."""
        return f"{self.file.fingerprint} {self.frame} {dict(self.train_id_of_name)}"

    def read_bytes(self, size: int = -1) -> bytes:
        """The first `size` bytes of the PNG or all; raises UserError if a shape has no class."""
        (height, width), shapes = self.described or _guarded(
            self.file, "LabelMe", lambda: _of_labelme(_parsed(self.file))
        )
        if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE):
            raise UserError(f"{self} is said to have {height}x{width} pixels.")
        background = self.train_id_of_name.get(BACKGROUND, IGNORE)
        labels_HxW = np.full((height, width), background, np.uint8)
        for shape in shapes:
            train_id = self.train_id_of_name.get(shape.label)
            if train_id is None:
                raise UserError(
                    f"{self} has a shape called {shape.label!r}, which is no class: give it a line "
                    "in classes.csv, or name it among the `values` of a class or of `ignored`."
                )
            _paint(labels_HxW, shape, train_id)
        _, png = cv2.imencode(".png", labels_HxW)
        return png.tobytes()[: None if size < 0 else size]


def drawn_labels(file: SourceFile, train_id_of_name: Mapping[str, int]) -> list[DrawnLabels]:
    """The label pictures that a file of CVAT (.xml) or of COCO (.json) describes.

    A frame without shapes is one where there is a class `background`.

    Raises:
        WrongSourceError: it is of no known format.
    """
    if file.name.lower().endswith(".xml"):
        found = _guarded(file, "CVAT for images 1.1", lambda: dict(_of_cvat(_root(file))))
    else:
        found = _guarded(file, "COCO", lambda: dict(_of_coco(_parsed(file))))
    return [
        DrawnLabels(file, frame, train_id_of_name, described)
        for frame, described in found.items()
        if described[1] or BACKGROUND in train_id_of_name
    ]


def drawn_frame(file: SourceFile, train_id_of_name: Mapping[str, int]) -> DrawnLabels:
    """The label picture that LabelMe's file of a frame describes; it is read with the picture."""
    return DrawnLabels(file, file.name, train_id_of_name, None)


def _guarded(file: SourceFile, tool: str, read: Callable[[], Any]) -> Any:
    """What `read` returns; raises WrongSourceError if the file is not as the tool writes it."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, ElementTree.ParseError) as error:
        raise WrongSourceError(
            f"{file} is no annotation file as {tool} has them ({type(error).__name__}: {error}). "
            "Known are LabelMe's JSON of each frame (labels/SPLIT/VIDEO/NUMBER.json), and of each "
            "video (labels/SPLIT/VIDEO.xml or .json) 'CVAT for images 1.1' and COCO."
        ) from error


def _parsed(file: SourceFile) -> Any:
    return strict_json.parse(file.read_bytes(), str(file))


def _root(file: SourceFile) -> ElementTree.Element:
    return ElementTree.fromstring(file.read_bytes())


def _of_labelme(values: Any) -> Described:
    shapes = []
    for shape in values["shapes"]:
        points_Nx2 = _ring(shape["points"])
        if shape["shape_type"] == "rectangle":
            points_Nx2 = _rectangle(*points_Nx2.ravel())
        elif shape["shape_type"] != "polygon":
            raise _unknown(shape["shape_type"], "polygons and rectangles")
        shapes.append(Shape(shape["label"], (points_Nx2,)))
    return (values["imageHeight"], values["imageWidth"]), shapes


def _of_cvat(root: ElementTree.Element) -> Iterator[tuple[str, Described]]:
    for image in root.iter("image"):
        drawn = [element for element in image if element.tag != "tag"]
        drawn.sort(key=lambda element: int(element.get("z_order", "0")))
        shapes = [_cvat_shape(element.tag, element.attrib) for element in drawn]
        size = int(image.attrib["height"]), int(image.attrib["width"])
        yield image.attrib["name"], (size, shapes)


def _cvat_shape(tag: str, of: Mapping[str, str]) -> Shape:
    if tag == "polygon":
        points = [point.split(",") for point in of["points"].split(";")]
        return Shape(of["label"], (_ring(points),))
    if tag == "box" and not float(of.get("rotation", "0")):
        corners = (float(of[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        return Shape(of["label"], (_rectangle(*corners),))
    if tag == "mask":
        size = int(of["height"]), int(of["width"])
        mask_HxW = _runs_to_mask([int(run) for run in of["rle"].split(",")], size, "C")
        return Shape(of["label"], (), mask_HxW, (int(of["left"]), int(of["top"])))
    raise _unknown(tag, "polygons, upright boxes and masks")


def _of_coco(values: Any) -> Iterator[tuple[str, Described]]:
    name_of = {category["id"]: category["name"] for category in values["categories"]}
    shapes_of: dict[int, list[Shape]] = {image["id"]: [] for image in values["images"]}
    for of in values["annotations"]:
        shape = _coco_shape(name_of[of["category_id"]], of["segmentation"])
        shapes_of[of["image_id"]].append(shape)
    for image in values["images"]:
        yield image["file_name"], ((image["height"], image["width"]), shapes_of[image["id"]])


def _coco_shape(label: str, segmentation: Any) -> Shape:
    if isinstance(segmentation, list):
        return Shape(label, tuple(_ring(np.reshape(ring, (-1, 2))) for ring in segmentation))
    counts, (height, width) = segmentation["counts"], segmentation["size"]
    runs = _decompressed(counts) if isinstance(counts, str) else counts
    return Shape(label, (), _runs_to_mask(runs, (height, width), "F"))


def _unknown(kind: str, known: str) -> ValueError:
    return ValueError(f"a shape is a {kind!r}: only {known} are read; redraw it, or delete it")


def _ring(points: Any) -> np.ndarray:
    ring_Nx2 = np.asarray(points, float)
    if ring_Nx2.ndim != 2 or ring_Nx2.shape[1] != 2 or not np.isfinite(ring_Nx2).all():
        raise ValueError(f"points should be pairs of x and y, not {reprlib.repr(points)}")
    return ring_Nx2


def _rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _runs_to_mask(
    runs: Sequence[int], size: tuple[int, int], order: Literal["C", "F"]
) -> np.ndarray:
    """Lengths of runs of 0 and 1 in turn, along rows ("C") or columns ("F"): bool HxW."""
    if max(size) > LONGEST_SIDE or sum(runs) != size[0] * size[1]:
        raise ValueError(f"the runs of a mask sum up to {sum(runs)}, not {size[0]} x {size[1]}")
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(size, order=order)


def _decompressed(text: str) -> list[int]:
    """Lengths of runs out of COCO's text: 5 bits a character, from the fourth on differences.

    Source: `rleFrString` of pycocotools.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _paint(labels_HxW: np.ndarray, shape: Shape, train_id: int) -> None:
    if shape.mask_HxW is not None:
        left, top = shape.corner
        height, width = shape.mask_HxW.shape
        part_HxW = labels_HxW[max(top, 0) : top + height, max(left, 0) : left + width]
        if part_HxW.shape != (height, width):
            raise UserError(f"A mask of {shape.label!r} does not lie on its frame.")
        part_HxW[shape.mask_HxW] = train_id
    for ring_Nx2 in shape.rings:
        _fill(labels_HxW, ring_Nx2, train_id)


def _fill(labels_HxW: np.ndarray, ring_Nx2: np.ndarray, train_id: int) -> None:
    """Paints the pixels whose centres lie inside an outline, to a sixth of a pixel."""
    height, width = labels_HxW.shape
    ring_Nx2 = np.clip(ring_Nx2, -LONGEST_SIDE, 2 * LONGEST_SIDE)
    left, top = np.floor(np.maximum(ring_Nx2.min(0), 0)).astype(int)
    right, bottom = np.ceil(np.minimum(ring_Nx2.max(0), (width, height))).astype(int)
    if left < right and top < bottom:
        fine_HxW = np.zeros((_FINER * (bottom - top), _FINER * (right - left)), np.uint8)
        corners = np.round(_FINER * (ring_Nx2 - (left, top)) - 0.5).astype(np.int32)
        cv2.fillPoly(fine_HxW, [corners], 1)
        is_inside_HxW = fine_HxW[_FINER // 2 :: _FINER, _FINER // 2 :: _FINER] > 0
        labels_HxW[top:bottom, left:right][is_inside_HxW] = train_id
