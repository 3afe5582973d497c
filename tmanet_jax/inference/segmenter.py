"""Segments any video: from frames, arrays or a camera to labels, overlays and probabilities.

import tmanet_jax

segmenter = tmanet_jax.Segmenter.load("tmanet.safetensors")
for result in segmenter.stream("drive.mp4"):
    show(result.overlay)
"""

import collections
import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import jax
import numpy as np
from flax import nnx

from tmanet_jax.data.classes import IGNORE, ClassSet
from tmanet_jax.errors import UserError
from tmanet_jax.export.names import Engine, Precision
from tmanet_jax.export.network import devices
from tmanet_jax.export.quantise import CalibrationSource
from tmanet_jax.inference.batches import Batches, NextFrame, Place
from tmanet_jax.inference.engine import Computation, ExportedNetwork
from tmanet_jax.inference.results import FrameResult, result_of, whole_result
from tmanet_jax.inference.session import Session
from tmanet_jax.inference.stream import StreamingNetwork, StreamOutput
from tmanet_jax.models.layers import MatmulPrecision
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.publish.folder import write_folder
from tmanet_jax.publish.story import Story
from tmanet_jax.video.frames import FrameSource, open_frames
from tmanet_jax.video.read import SourceFrame
from tmanet_jax.weights import load
from tmanet_jax.weights.load import LoadedModel

_DECODED_AHEAD = 4
_COMPUTED_AHEAD = 2
_VIDEOS_ON_ACCELERATOR = 8  # on a CPU, a frame takes as long in a batch as alone
_WHOLE = Protocol("whole")
_CHOICES: dict[str, tuple[object, ...]] = {
    "align_corners": (None, False, True),
    "products": get_args(MatmulPrecision),
    "attention": get_args(Attention),
}

_Item = TypeVar("_Item")


class OpenVideo(NamedTuple):
    """Frames of a video, and whether that of an index is wanted; see `Segmenter.stream`."""

    frames: Iterator[SourceFrame]
    wanted: Callable[[int], bool]


class _Needed(NamedTuple):
    """A frame that the network is to see, or a broken one that is to be told.

    `is_start`: the memory begins anew with it.
    """

    frame: SourceFrame
    is_start: bool
    is_wanted: bool


class _Pending(NamedTuple):
    """A frame, and what the device is computing of it, or why it cannot; None if it is broken."""

    frame: SourceFrame
    place: Place | UserError | None
    is_wanted: bool


class Segmenter:
    """A network that segments the frames of videos, each with the memory of those before it.

    Args:
        model: the network; on another device it is a copy that computes.
        classes: what it tells apart.
        protocol: how frames are segmented.
        computation: what computes; jax does so in the model's own precision.
        origin: the training that left the weights, if that is known.

    Raises:
        UserError: the engine is not installed, or has no such device.
    """

    def __init__(
        self,
        model: TMANet,
        classes: ClassSet,
        protocol: Protocol | None = None,
        computation: Computation = Computation(),
        origin: Origin | None = None,
    ):
        self.classes = classes
        self._model, self._origin, self._device = model, origin, computation.device
        protocol = protocol or Protocol()
        self._network: StreamingNetwork | ExportedNetwork
        if computation.engine != "jax":
            self._network = ExportedNetwork(model, classes, protocol, computation)
            return
        if computation.device is not None:
            computation.check_there()
            graphdef, state = nnx.split(model)
            there = devices("stablehlo")[computation.device]
            model = nnx.merge(graphdef, jax.device_put(state, there))
        self._network = StreamingNetwork(model, protocol)

    @property
    def protocol(self) -> Protocol:
        """How frames are segmented."""
        return self._network.protocol

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        mode: Literal["whole", "slide"] | None = None,
        crop_size: tuple[int, int] | None = None,
        stride: tuple[int, int] | None = None,
        scale: float | tuple[int, int] | None = None,
        neighbourhood: int | None = None,
        memory_stride: int | None = None,
        align_corners: bool | None = None,
        engine: Engine = "jax",
        precision: Precision | None = None,
        calibrate: CalibrationSource | None = None,
        device: str | None = None,
        products: MatmulPrecision = "default",
        attention: Attention = "auto",
        otherwise: Protocol = _WHOLE,
    ) -> "Segmenter":
        """Reads a file of weights; frames are segmented as its network was scored.

        Args:
            path: `.safetensors`, or `.pth` where torch is installed; a run's workdir; a folder that
                `save_pretrained` or `run.py publish` left, or its address on the Hugging Face hub,
                "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION" (requirements-hub.txt).
            mode: "whole" (the frame at once) or "slide" (windows); None, as in all options: the
                file's own.
            crop_size: height and width of a window in pixels.
            stride: from window to window, down and to the right, in pixels.
            scale: what frames are resized to before: a factor, or the (height, width) in pixels
                that they are to fit; results have the frames' own size.
            neighbourhood: rows and columns of features, each way, that a position reads of each
                memory frame (not the original's way, which reads all of them).
            memory_stride: frames from one memory frame to the next.
            align_corners: how the network's logits are up-sampled.
            engine: what computes: jax on any device, or "onnxruntime" or "openvino", which get an
                export of the network for each size of frames (requirements-export.txt).
            precision: of its numbers, "float32", "bfloat16" or, of openvino, "int8"; None: with jax
                the file's own, else float32.
            calibrate: for int8, frames like those that will be segmented: a video, a folder or glob
                of pictures, a folder of clip records, or arrays HxWx3.
            device: by the engine's name for it, such as "cpu" or "gpu"; None: its usual one.
            products: jax's float32 products on GPUs and TPUs, "default", "high" or "highest".
            attention: which way jax reads the memory, "auto" or "chunked".
            otherwise: how frames are segmented where the file does not say.

        Raises:
            UserError: the file cannot be read, an option has a value that it cannot have, or the
                engine is not installed.
        """
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"path is {path!r}: name a file of weights.")
        options = {"align_corners": align_corners, "products": products, "attention": attention}
        for name, value in options.items():
            if value not in _CHOICES[name]:
                raise UserError(f"{name} is {value!r}: choose one of {list(_CHOICES[name])}.")
        computation = Computation(engine, precision or "float32", calibrate, device)
        if engine != "jax" and (products, attention) != ("default", "auto"):
            raise UserError(f"products and attention are for jax: leave them out with {engine}.")
        loaded = load.load_model(
            path,
            align_corners=align_corners,
            dtype=precision if engine == "jax" else "float32",
            precision=products,
            attention=attention if engine == "jax" else "chunked",
        )
        protocol = (loaded.protocol or otherwise).but(
            mode=mode,
            crop_size=crop_size,
            stride=stride,
            scale=scale,
            neighbourhood=neighbourhood,
            memory_stride=memory_stride,
        )
        return cls(loaded.model, loaded.classes, protocol, computation, loaded.origin)

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes a folder for others: weights, what they are, and a model card to be filled in.

        `load` takes the folder, or its address when it is on the hub; of a run that has a workdir,
        `run.py publish` also tells how it was trained and scored.

        Args:
            path: a folder that is made.

        Raises:
            UserError: it is there already or cannot be written.
        """
        network = LoadedModel(self._model, self.classes, self.protocol, self._origin)
        write_folder(Path(path), network, Story())

    def session(self, streams: int = 1) -> Session:
        """Opens streams whose frames are given as they come, one of each at a time.

        Args:
            streams: how many go on together.

        Raises:
            UserError: there are none.
        """
        return Session(self._network, self.classes, streams)

    def stream(
        self, source: FrameSource, *, wanted: Callable[[int], bool] | None = None
    ) -> Generator[FrameResult, None, None]:
        """Segments frame after frame, decoding ahead and computing ahead of who reads the results.

        The memory is that of the frames before; where frames change their size it starts anew. A
        broken frame does not enter it: it repeats the labels of the frame before it, and says so in
        `problem`. A result keeps its small logits on the device for as long as it lives.

        Args:
            source: a video file; a folder of pictures, which are taken in natural order; a glob
                pattern; arrays HxWx3 RGB uint8; or the number of a camera.
            wanted: whether the frame of an index is to be segmented; the others are left out, at
                the cost of decoding them. The results of the wanted ones do not depend on it.

        Raises:
            UserError: the source cannot be read, or not one of its frames.
        """
        with open_frames(source) as frames:
            video = OpenVideo(frames.frames, wanted or (lambda index: True))
            with contextlib.closing(self.segment([video])) as results:
                for _, result in results:
                    if isinstance(result, UserError):
                        raise result
                    yield result

    @property
    def videos_at_once(self) -> int:
        """How many videos gain by going through the network together."""
        by_jax = isinstance(self._network, StreamingNetwork)
        where = self._device or jax.default_backend()
        return _VIDEOS_ON_ACCELERATOR if by_jax and where != "cpu" else 1

    def segment(
        self, videos: Sequence[OpenVideo]
    ) -> Generator[tuple[int, FrameResult | UserError], None, None]:
        """`stream` of videos that are open, together: those of one size as one batch.

        Yields:
            which video it is of, and a result; or the error that ends it: not one of its frames
            can be read, or they have a size that cannot be segmented.
        """
        with contextlib.ExitStack() as opened:
            needed = []
            for video in videos:
                decoded = ahead(video.frames, _DECODED_AHEAD)
                opened.enter_context(contextlib.closing(decoded))
                needed.append(_needed(decoded, video.wanted, self._network.reach))
            turns = ahead(self._compute(needed), _COMPUTED_AHEAD)
            opened.enter_context(contextlib.closing(turns))
            results = [_Results(self.classes, self._network.probabilities) for _ in videos]
            for turn in turns:
                for number, pending in turn:
                    for result in results[number].after(pending):
                        yield number, result
            for number, one in enumerate(results):
                if one.too_early:
                    reason = one.too_early[0].problem
                    yield number, UserError(f"Not one frame can be read: {reason}.")

    def _compute(self, videos: Sequence[Iterator[_Needed]]) -> Iterator[list[tuple[int, _Pending]]]:
        """Sends frames to the device, without waiting for it: of each video up to a whole one."""
        batches, running = Batches(self._network), dict(enumerate(videos))
        while running:
            turn: list[tuple[int, _Needed]] = []
            whole: dict[int, NextFrame] = {}
            for number, video in list(running.items()):
                for one in video:
                    turn.append((number, one))
                    if one.frame.pixels_HxWx3 is not None:
                        whole[number] = NextFrame(one.frame.pixels_HxWx3, one.is_start)
                        break
                else:
                    del running[number]
            places = batches.step(whole)
            for number, place in places.items():
                if isinstance(place, UserError):
                    del running[number]
            yield [(number, _pending(one, places.get(number))) for number, one in turn]


class _Results:
    """Results of a video, in order; waits for the device. Broken frames repeat those before."""

    def __init__(self, classes: ClassSet, probabilities_of: Callable[[StreamOutput], jax.Array]):
        self.too_early: list[SourceFrame] = []
        self._last: FrameResult | None = None
        self._classes, self._probabilities_of = classes, probabilities_of

    def after(self, pending: _Pending) -> Iterator[FrameResult | UserError]:
        """Those that are known when a frame is."""
        if isinstance(pending.place, UserError):
            self.too_early.clear()
            yield pending.place
        elif pending.place is not None:
            self._last = last = whole_result(
                pending.frame, *pending.place, self._classes, self._probabilities_of
            )
            for frame in self.too_early:
                unknown = np.full_like(last.labels, IGNORE)
                yield result_of(frame, np.zeros_like(last.frame), unknown, self._classes)
            self.too_early.clear()
            if pending.is_wanted:
                yield last
        elif self._last is not None:
            yield result_of(pending.frame, self._last.frame, self._last.labels, self._classes)
        else:
            self.too_early.append(pending.frame)


def _pending(one: _Needed, place: Place | UserError | None) -> _Pending:
    return _Pending(one.frame, None if one.frame.problem else place, one.is_wanted)


def _needed(
    frames: Iterator[SourceFrame], wanted: Callable[[int], bool], reach: int
) -> Iterator[_Needed]:
    """Leaves out the frames on which nothing that is wanted depends.

    A wanted frame depends on the `reach` whole frames before it. If it is broken it repeats the one
    before it, which depends on as many more; before the first whole frame, it has that one's size.
    """
    waiting: collections.deque[SourceFrame] = collections.deque(maxlen=reach + 1)
    size: tuple[int, ...] = ()
    is_start, is_size_wanted = True, False
    for frame in frames:
        is_whole = frame.pixels_HxWx3 is not None
        if frame.pixels_HxWx3 is not None and frame.pixels_HxWx3.shape != size:
            size = frame.pixels_HxWx3.shape
            is_start = True
            waiting.clear()
        if wanted(frame.index):
            for earlier in waiting:
                yield _Needed(earlier, is_start, is_wanted=False)
                is_start = False
            waiting.clear()
            yield _Needed(frame, is_start and is_whole, is_wanted=True)
            is_start &= not is_whole
            is_size_wanted = not size
        elif is_whole and is_size_wanted:
            yield _Needed(frame, is_start, is_wanted=False)
            is_start = is_size_wanted = False
        elif is_whole:
            is_start |= len(waiting) == waiting.maxlen
            waiting.append(frame)


def ahead(items: Iterator[_Item], depth: int) -> Generator[_Item, None, None]:
    """The items of an iterator, up to `depth` of them made by a thread before they are asked for.

    An exception of the iterator is raised here, after the items before it. Closing this generator
    (or dropping it) ends the thread, and closes the iterator if that can be closed.
    """
    end: Any = object()
    thread = ThreadPoolExecutor(1)
    try:
        made = collections.deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := made.popleft().result()) is not end:
            made.append(thread.submit(next, items, end))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        if close := getattr(items, "close", None):
            close()
