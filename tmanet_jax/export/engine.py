"""A network's frames segmented by another engine, which gets an export of each size they have."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError
from tmanet_jax.export.folder import Format, check_installed, export_network
from tmanet_jax.export.network import Network
from tmanet_jax.inference.stream import FrameStream, StreamOutput
from tmanet_jax.inference.windows import resized_frames
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

Engine = Literal["jax", "onnxruntime", "openvino"]

FORMATS: Mapping[Engine, Format] = {"onnxruntime": "onnx", "openvino": "openvino"}
DIRECTORY = Path(os.environ.get("TMANET_EXPORTS", "~/.cache/tmanet_jax/exports")).expanduser()
"""Exports by weights, size and versions."""

_LOGGER = logging.getLogger(__name__)


class EngineStream:
    """Does what a `FrameStream` does, by another engine.

    Args:
        model: in float32, its parameters as they are now.
        classes: what it tells apart.
        protocol: how frames are segmented.
        engine: which one.
        dtype: "float32", or in OpenVINO "bfloat16".

    Raises:
        UserError: the engine is not installed, or does not compute in this type.
    """

    def __init__(
        self,
        model: TMANet,
        classes: ClassSet,
        protocol: Protocol,
        engine: Engine,
        dtype: str = "float32",
    ):
        if dtype != "float32" and engine != "openvino":
            raise UserError(f"Engine {engine} computes in float32: choose openvino for {dtype}.")
        check_installed(FORMATS[engine])
        self.protocol = protocol
        self._format = FORMATS[engine]
        self._dtype = dtype
        self._model = model
        self._classes = classes
        self._jax = FrameStream(model, protocol)

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
            UserError: the export cannot be written, is not the network, or is damaged.
        """
        folder = DIRECTORY / self._key(batch_size, size)
        if not (folder / "export.json").is_file():
            _LOGGER.warning(
                f"The network is exported for {self._format} and frames of {size[0]}x{size[1]} "
                f"pixels, once: {folder}."
            )
            agreement = export_network(
                self._model,
                self._classes,
                self.protocol,
                folder,
                format=self._format,
                size=size,
                streams=batch_size,
            )
            _LOGGER.warning(f"{agreement}.")
        try:
            return Network(folder, self._dtype)
        except Exception as error:  # whatever an engine, json or the system says of such files
            raise UserError(
                f"The export in {folder} is damaged ({str(error).splitlines()[0]}): remove the "
                "folder, and it is written anew."
            ) from error

    def step(
        self,
        state: Network,
        frames_BxHxWx3: jax.Array | np.ndarray,
        reset_B: jax.Array | np.ndarray,
    ) -> tuple[Network, StreamOutput]:
        """Segments the newest frame of each stream; see `FrameStream.step`."""
        height, width = frames_BxHxWx3.shape[1:3]
        resized = self.protocol.size_of((height, width))
        labels_BxHxW = state(resized_frames(np.asarray(frames_BxHxWx3), resized), reset_B)
        return state, StreamOutput(jnp.asarray(labels_BxHxW), jnp.asarray(state.logits))

    def probabilities(self, output: StreamOutput) -> jax.Array:
        """Class probabilities of the frames of a step, float32 BxHxWxC."""
        return self._jax.probabilities(output)

    @functools.cached_property
    def _weights(self) -> bytes:
        """What tells them from others; a stream starts at every cut, and they stay the same."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(nnx.split(self._model)[1]):
            digest.update(np.asarray(leaf).tobytes())
        return digest.digest()

    def _key(self, batch_size: int, size: tuple[int, int]) -> str:
        packages = ("jax", "flax", "onnx", self._format.replace("onnx", "onnxruntime"))
        versions = {name: importlib.metadata.version(name) for name in packages}
        config = dataclasses.asdict(self._model.config)
        told = (config, self.protocol, self._classes, batch_size, size, versions, _source())
        digest = hashlib.sha256(repr(told).encode() + self._weights)
        return f"{self._format}_{size[0]}x{size[1]}_{digest.hexdigest()[:16]}"


@functools.cache
def _source() -> str:
    """What writes the exports: another one writes them anew."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
