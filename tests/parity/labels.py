"""Label ids, palettes and result PNGs; names of memory frames and their order."""

import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.naming import parse_frame_name
from tests.parity.goldens import Case
from tmanet_jax.data.classes import (
    CITYSCAPES,
    CITYSCAPES_TRAIN_ID_OF_LABEL_ID,
    CITYSCAPES_LABEL_PALETTE_35x3,
    class_set,
    palette_png,
    train_ids_to_label_ids,
)
from tmanet_jax.data.clip_index import nearest_earlier
from tmanet_jax.data.samples import draw_memory_offsets

CAMVID_QUERIES = {
    "train": [
        *(f"0001TP_{number:06d}.png" for number in range(6690, 8521, 30)),
        *(f"0006R0_f{number:05d}.png" for number in range(930, 3931, 30)),
        *(f"0016E5_{901 if number == 900 else number:05d}.png" for number in range(390, 2401, 30)),
        *(f"0016E5_{number:05d}.png" for number in range(4350, 7921, 30)),
        *(f"0016E5_{number:05d}.png" for number in range(8190, 8641, 30)),
    ],
    "val": [f"0016E5_{number:05d}.png" for number in range(7959, 8160, 2)],
    "test": [
        *(f"0001TP_{number:06d}.png" for number in range(8550, 10381, 30)),
        *(f"Seq05VD_f{number:05d}.png" for number in range(30, 5101, 30)),
    ],
}
"""The annotated frames of CamVid's published lists, in their order."""
CAMVID_MEMORY = 4


def check_labels(case: Case) -> None:
    """Class names, ids, palettes, pictures. The original spells `sign_symbol` as `sing_symbol`."""
    facts, arrays = case.facts, case.arrays
    for name, names in facts["classes"].items():
        classes = class_set(name)
        assert [*classes.names] == [spelt.replace("sing_", "sign_") for spelt in names]
        assert [list(colour) for colour in classes.palette_Cx3] == facts["palettes"][name]
        np.testing.assert_array_equal(classes.palette_Cx3, arrays[f"palette_{name}"])
    for label_id, train_id in facts["id_to_train_id"].items():
        # -1, the license plate, occurs in no file of labels
        if int(label_id) >= 0:
            assert CITYSCAPES_TRAIN_ID_OF_LABEL_ID[int(label_id)] == train_id
    for label_id, colour in facts["id_to_color"].items():
        assert list(CITYSCAPES_LABEL_PALETTE_35x3[int(label_id)]) == colour
    for train_id, label_id in facts["train_id_to_id"].items():
        if int(train_id) >= 0:
            assert train_ids_to_label_ids(np.array([[int(train_id)]]))[0, 0] == label_id
    label_ids = train_ids_to_label_ids(arrays["train_id"])
    np.testing.assert_array_equal(label_ids, arrays["label_id"])
    _check_result_png(label_ids, arrays)
    # Result PNGs hold label ids alone: the original's option to_label_id=False puts train ids
    # under the palette of label ids, which shows wrong colours.
    painted = CITYSCAPES.paint(arrays["show_result_seg"])
    np.testing.assert_array_equal(painted[..., ::-1], arrays["show_result_bgr"])


def _check_result_png(label_ids: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(label_ids, arrays["png_index"])
    np.testing.assert_array_equal(CITYSCAPES_LABEL_PALETTE_35x3, arrays["png_palette"])
    png = np.frombuffer(palette_png(label_ids, CITYSCAPES_LABEL_PALETTE_35x3), np.uint8)
    rgb = cv2.imdecode(png, cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(rgb, arrays["png_rgb"])


def check_indexing(case: Case) -> None:
    """Names of the memory frames of each query, oldest first."""
    cases = case.facts["cases"]
    for name, facts in cases.items():
        drawn = re.fullmatch(r"(.+)_range(\d+)_num(\d+)_python_random_seed(\d+)", name)
        newest_first = re.fullmatch(r"custom_no_random_select_num(\d+)", name)
        if "infos" in facts:
            _check_infos(facts)
        elif drawn:
            _check_drawn(facts, _queries(cases[f"{drawn[1]}_train"]), *map(int, drawn.groups()[1:]))
        elif newest_first:
            # The original's other branch gives the newest frame first, against the order that its
            # encoders were trained in (defect 9); here the oldest is always first.
            offsets = range(int(newest_first[1]), 0, -1)
            queries = _queries(cases["camvid_train"])
            assert facts == [_memory_names(query, offsets)[::-1] for query in queries]
        elif name.endswith("_negative_frames"):
            assert facts == [
                frame
                for split in CAMVID_QUERIES
                for frame in _camvid_memory(CAMVID_QUERIES[split])
                if "-" in frame
            ]
        elif "crc_of_frames" in facts:
            _check_published(facts, CAMVID_QUERIES[name.rpartition("_")[2]])
        else:
            pytest.fail(f"{case.path}: no check for {name}")


def _queries(facts: Mapping[str, Any]) -> list[str]:
    return [info["filename"] for info in facts["infos"]]


def _check_infos(facts: Mapping[str, Any]) -> None:
    num, memory_range = facts["sequence_num"], facts["sequence_range"]
    assert num == memory_range, "which frames were drawn is not recorded"
    offsets = draw_memory_offsets(np.random.default_rng(), num, memory_range)
    for info in facts["infos"]:
        assert _memory_names(info["filename"], offsets) == info["sequence"]["frames"]


def _check_drawn(
    frames: Sequence[list[str]], queries: Sequence[str], memory_range: int, num: int, seed: int
) -> None:
    """The original draws from Python's `random`, once and for all; here each reading draws anew."""
    rng = random.Random(seed)
    for query, expected in zip(queries, frames, strict=True):
        offsets = sorted(rng.sample(range(1, memory_range + 1), num), reverse=True)
        assert _memory_names(query, offsets) == expected


def _check_published(facts: Mapping[str, Any], queries: Sequence[str]) -> None:
    assert len(queries) == facts["count"]
    for query, info in ((queries[0], facts["first"]), (queries[-1], facts["last"])):
        assert query == info["filename"]
        assert _camvid_memory([query]) == info["sequence"]["frames"]
    frames = "\n".join(_camvid_memory(queries))
    assert zlib.crc32(frames.encode()) == facts["crc_of_frames"]


def _camvid_memory(queries: Iterable[str]) -> list[str]:
    return [name for query in queries for name in _memory_names(query, range(CAMVID_MEMORY, 0, -1))]


def _memory_names(query_name: str, offsets: Sequence[int]) -> list[str]:
    """Names of the memory frames in a video in which no frame is missing."""
    query = parse_frame_name(query_name)
    existing = range(query.number - max(offsets), query.number)
    numbers = (query.number - offset for offset in offsets)
    return [query.at(existing[nearest_earlier(existing, 0, len(existing), n)]) for n in numbers]
