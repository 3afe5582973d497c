"""Where clips come from, as a configuration says it; read without what reads clips."""

from dataclasses import dataclass

from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.resize import LONGEST_SIDE
from tmanet_jax.errors import UserError
from tmanet_jax.fields import Checked, field, named_factors, part

MOST_MEMORY_RANGE = 1000
"""Frames; a mistyped number ends here instead of filling the memory."""


@dataclass(frozen=True)
class RenderConfig(Checked):
    """A synthetic street, rendered if there are no records (the demo)."""

    wanted: bool = field(False, "render a synthetic street if there are no records", name="render")
    size: tuple[int, int] = field(
        (128, 256),
        "of its frames",
        unit="height, width in pixels",
        low=1,
        high=LONGEST_SIDE,
        name="render_size",
    )
    num_train: int = field(0, "clips to train on", low=0, high=10**6, name="render_train")
    num_eval: int = field(0, "clips to score", low=0, high=10**6, name="render_eval")
    memory_range: int = field(
        4,
        "frames before each query, for networks with T up to so many",
        low=0,
        high=MOST_MEMORY_RANGE,
        name="render_memory_range",
    )


@dataclass(frozen=True)
class DataConfig(Checked):
    """Where clips come from, and how training reads them."""

    dir: str = field("", "directory of the clip records")
    train_split: str = field("train", "split that trains")
    eval_split: str = field("val", "split that is scored")
    classes: tuple[str, ...] = field(
        (),
        "that labels are read as: recorded ones, or NEW=CLASS,CLASS,... of several; pixels of all "
        "others are ignored; (): the recorded ones",
    )
    mixed: tuple[str, ...] = field(
        (),
        "further directories of records that train, DIR=SHARE each: how many of their clips come "
        "to one of data.dir, which alone is scored",
    )
    memory_range: int | None = field(
        None,
        "frames before the query that training draws its memory frames from; None: as many as "
        "there are memory frames, so the newest ones",
        low=0,
        high=MOST_MEMORY_RANGE,
    )
    frame_stride: int | None = field(
        None,
        "frames of the video from one of them to the next; None: as the records were made for",
        low=1,
        high=MOST_MEMORY_RANGE,
    )
    augmentation: Augmentation = part(Augmentation(), flat=True)
    num_workers: int = field(
        0, "processes that prepare batches; 0: threads of this one", low=0, high=1000
    )
    render: RenderConfig = part(RenderConfig(), flat=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 in named_factors(self.mixed, "mixed").values():
            raise UserError(f"mixed must be directories with shares above 0, not {self.mixed}.")
