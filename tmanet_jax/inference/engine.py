"""A network's frames segmented by another engine, which gets an export of each size they have."""

import dataclasses
import functools
import hashlib
import logging
from pathlib import Path
from typing import cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError
from tmanet_jax.export import cache
from tmanet_jax.export.folder import (
    check_installed,
    check_quantiser,
    export_network,
    version_of,
)
from tmanet_jax.export.names import FORMATS, PRECISIONS, Engine, Precision
from tmanet_jax.export.network import Network, devices
from tmanet_jax.export.quantise import CalibrationSource, calibration_clips, calibration_in_words
from tmanet_jax.inference.stream import StreamingNetwork, StreamOutput
from tmanet_jax.inference.windows import resized_frames
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Computation:
    """What computes a network, where, and in which numbers.

    Attributes:
        engine: jax, or one that gets an export of the network for each size of frames.
        precision: of its numbers.
        calibrate: for int8, frames like those that will be segmented.
        device: by the engine's own name, as in "cpu" or "gpu"; None: the engine's usual one.

    Raises:
        UserError: the engine has no such precision, or there are no frames to calibrate it.
    """

    engine: Engine = "jax"
    precision: Precision = "float32"
    calibrate: CalibrationSource | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        choices = {"engine": get_args(Engine), "precision": get_args(Precision)}
        for name, values in choices.items():
            if getattr(self, name) not in values:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(values)}."
                )
        if self.precision not in PRECISIONS[self.engine]:
            able = [engine for engine in PRECISIONS if self.precision in PRECISIONS[engine]]
            raise UserError(
                f"Engine {self.engine} computes in {' or '.join(PRECISIONS[self.engine])}: choose "
                f"engine {' or '.join(able)} for {self.precision}."
            )
        if (self.precision == "int8") != (self.calibrate is not None):
            raise UserError(
                "int8 is calibrated on frames like those that will be segmented, and nothing else "
                "is: precision int8 goes with calibrate, a video, folder or glob of pictures, or "
                "folder of clip records (--precision=int8 --calibrate=drive.mp4)."
            )

    @classmethod
    def by_jax(cls, dtype: str) -> "Computation":
        """In a network's compute type; raises UserError if it is not one of jax's here."""
        return cls(precision=cast(Precision, dtype))

    def check_there(self) -> None:
        """Raises UserError where the engine is not installed, or has no such device."""
        if self.engine != "jax":
            check_installed(FORMATS[self.engine])
        if self.precision == "int8":
            check_quantiser()
        if self.device is not None:
            there = devices(FORMATS.get(self.engine, "stablehlo"))
            if self.device not in there:
                raise UserError(
                    f"device is {self.device!r}: {self.engine} has {', '.join(there)} here."
                )

    def in_words(self) -> str:
        """What tells its results from another's; raises UserError if calibrate cannot be read."""
        of_int8 = ""
        if self.calibrate is not None:
            of_int8 = f" calibrated on {calibration_in_words(self.calibrate)}"
        where = "" if self.device is None else f" on {self.device}"
        return f"{self.precision}{of_int8}, engine {self.engine}{where}"


class ExportedNetwork:
    """Does what a `StreamingNetwork` does, by another engine; streams may go on in several threads.

    Args:
        model: in float32, its parameters as they are now.
        classes: what it tells apart.
        protocol: how frames are segmented.
        computation: by an engine that is not jax.

    Raises:
        UserError: the engine is not installed, or has no such device.
    """

    def __init__(
        self, model: TMANet, classes: ClassSet, protocol: Protocol, computation: Computation
    ):
        computation.check_there()
        self.protocol = protocol
        self.model_config = model.config
        self._computation = computation
        self._format = FORMATS[computation.engine]
        self._model = model
        self._classes = classes
        self._networks: dict[tuple[int, tuple[int, int]], Network] = {}
        self._jax = StreamingNetwork(model, protocol)

    @property
    def reach(self) -> int:
        """How many frames before a frame its result depends on."""
        return self._jax.reach

    def start(self, batch_size: int, size: tuple[int, int]) -> Network:
        """Streams that have had no frame yet; the first ones of a size wait for its export.

        Args:
            batch_size: B, streams that go on together.
            size: height and width of their frames in pixels.

        Raises:
            UserError: the export cannot be written or is not the network, or the frames to
                calibrate it cannot be read.
        """
        if (batch_size, size) not in self._networks:
            self._networks[batch_size, size] = self._load(batch_size, size)
        return self._networks[batch_size, size].beside()

    def step(
        self,
        state: Network,
        frames_BxHxWx3: jax.Array | np.ndarray,
        reset_B: jax.Array | np.ndarray,
    ) -> tuple[Network, StreamOutput]:
        """Segments the newest frame of each stream; see `StreamingNetwork.step`."""
        height, width = frames_BxHxWx3.shape[1:3]
        resized = self.protocol.size_of((height, width))
        labels_BxHxW = state(resized_frames(np.asarray(frames_BxHxWx3), resized), reset_B)
        return state, StreamOutput(jnp.asarray(labels_BxHxW), jnp.asarray(state.logits))

    def probabilities(self, output: StreamOutput) -> jax.Array:
        """Class probabilities of the frames of a step, float32 BxHxWxC."""
        return self._jax.probabilities(output)

    def _load(self, batch_size: int, size: tuple[int, int]) -> Network:
        calibrate = self._computation.calibrate

        def write(folder: Path) -> None:
            _LOGGER.info(
                f"The network is exported for {self._computation.engine} and frames of "
                f"{size[0]}x{size[1]} pixels, once: it is kept in {cache.DIRECTORY}."
            )
            clips = []
            if calibrate is not None:
                clips = calibration_clips(calibrate, self.protocol.size_of(size))
            agreement = export_network(
                self._model,
                self._classes,
                self.protocol,
                folder,
                format=self._format,
                size=size,
                streams=batch_size,
                calibration=clips,
            )
            _LOGGER.info(f"{agreement}.")

        in_bfloat16 = self._computation.precision == "bfloat16"
        name = self._name(batch_size, size)
        network = cache.kept(
            name,
            write,
            lambda folder: Network(
                folder, "bfloat16" if in_bfloat16 else "float32", self._computation.device
            ),
        )
        network.folder = cache.DIRECTORY / name  # read before it got there, if it is new
        return network

    @functools.cached_property
    def _weights(self) -> bytes:
        """What tells them from others."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(nnx.split(self._model)[1]):
            digest.update(np.asarray(leaf).tobytes())
        return digest.digest()

    def _name(self, batch_size: int, size: tuple[int, int]) -> str:
        """Of the export: what it is made of and by."""
        calibrate = self._computation.calibrate
        calibrated_on = "" if calibrate is None else calibration_in_words(calibrate)
        names = ["jax", "flax", "onnx", self._format.replace("onnx", "onnxruntime")]
        names += ["nncf"] if calibrated_on else []
        versions = {name: version_of(name) for name in names}
        config = dataclasses.asdict(self._model.config)
        of_export = (self.protocol, self._classes, batch_size, size, calibrated_on)
        made_of = repr((config, of_export, versions, _source()))
        digest = hashlib.sha256(made_of.encode() + self._weights)
        bits = "_int8" if calibrated_on else ""
        return f"{self._format}{bits}_{size[0]}x{size[1]}_{digest.hexdigest()[:16]}"


@functools.cache
def _source() -> str:
    """Of the whole package, from which exports are traced: another one writes them anew."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
