"""A picture of a few snippets: memory frames, the annotated frame, its labels."""

import cv2
import numpy as np

from data_prep.street.scene import ANNOTATED_FRAME
from data_prep.street.snippet import SnippetFrames
from tmanet_jax.data.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_OF_LABEL_ID
from tmanet_jax.pictures import joined

_SIZE = (256, 512)
_SNIPPETS = ((41, False), (22, True), (31, False), (45, True))  # number, degraded
_MEMORY = (4, 1)  # how many frames before the annotated one


def contact_sheet(seed: int) -> np.ndarray:
    """Draws a row a snippet: two memory frames, the annotated frame, its labels; uint8 BGR."""
    rows = []
    for index, is_degraded in _SNIPPETS:
        frames = SnippetFrames("test", index, _SIZE, seed, is_degraded)
        memory = [frames.draw(ANNOTATED_FRAME - distance).image_HxWx3 for distance in _MEMORY]
        annotated = frames.draw(ANNOTATED_FRAME)
        train_ids_HxW = CITYSCAPES_TRAIN_ID_OF_LABEL_ID[annotated.labels_HxW]
        labels_HxWx3 = CITYSCAPES.paint(train_ids_HxW)[..., ::-1]
        rows.append(joined([*memory, annotated.image_HxWx3, labels_HxWx3], axis=1))
    return cv2.resize(joined(rows, axis=0), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
