"""Writes chosen frames of a video as PNG files."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.writing import write_frame
from tmanet_jax.video.read import SourceFrame, open_video


class _Abandoned(Exception):  # noqa: N818, not an error
    """The extraction was told to stop."""


@dataclass(frozen=True)
class Watch:
    """Watches decoding from another thread.

    Attributes:
        on_frame: called after each decoded frame.
        stop: set to end the decoding.
    """

    on_frame: Callable[[], object] = lambda: None
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)

    def over(self, path: Path) -> Iterator[SourceFrame]:
        """The frames of a video; raises _Abandoned, or UserError as `open_video`."""
        with open_video(path) as video:
            for frame in video:
                if self.stop.is_set():
                    raise _Abandoned
                yield frame
                self.on_frame()


def extract_frames(video: Path, wanted: Mapping[int, Path], watch: Watch) -> None:
    """Writes frames of a video as PNG files, each whole or not at all.

    Args:
        video: the video.
        wanted: the file of each frame by its place in the video, from 0. Broken frames are left.
        watch: on the decoding.

    Raises:
        UserError: the video cannot be read, or a file cannot be written.
    """
    last = max(wanted, default=-1)
    for frame in watch.over(video) if wanted else ():
        if frame.index in wanted and frame.pixels_HxWx3 is not None:
            write_frame(wanted[frame.index], frame.pixels_HxWx3)
        if frame.index >= last:
            break
