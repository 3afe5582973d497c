"""TMANet-JAX: video semantic segmentation with a temporal memory (arXiv 2102.08643).

In three lines, from a file of weights to any video:

    segmenter = tmanet_jax.Segmenter.load("tmanet.safetensors")
    for result in segmenter.stream("drive.mp4"):
        show(result.overlay)

What stands in `__all__` is public; everything else may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tmanet_jax.command_line import read_settings
    from tmanet_jax.data.records import open_clips
    from tmanet_jax.inference.attention import read_of_memory
    from tmanet_jax.inference.predict import predict
    from tmanet_jax.inference.prediction import Prediction
    from tmanet_jax.inference.segmenter import Segmenter
    from tmanet_jax.models.tmanet import ModelConfig, TMANet
    from tmanet_jax.scoring.modes import evaluate_run as evaluate
    from tmanet_jax.settings import Settings
    from tmanet_jax.training.loop import train
    from tmanet_jax.weights.conversion import convert as convert_weights
    from tmanet_jax.weights.load import load_model as load_weights
    from tmanet_jax.weights.load import save as save_weights

__version__ = "0.1.0"

__all__ = [
    "ModelConfig",
    "Prediction",
    "Segmenter",
    "Settings",
    "TMANet",
    "convert_weights",
    "evaluate",
    "load_weights",
    "open_clips",
    "predict",
    "read_of_memory",
    "read_settings",
    "save_weights",
    "train",
]

_PLACES = {
    "ModelConfig": "models.tmanet.ModelConfig",
    "Prediction": "inference.prediction.Prediction",
    "Segmenter": "inference.segmenter.Segmenter",
    "Settings": "settings.Settings",
    "TMANet": "models.tmanet.TMANet",
    "convert_weights": "weights.conversion.convert",
    "evaluate": "scoring.modes.evaluate_run",
    "load_weights": "weights.load.load_model",
    "open_clips": "data.records.open_clips",
    "predict": "inference.predict.predict",
    "read_of_memory": "inference.attention.read_of_memory",
    "read_settings": "command_line.read_settings",
    "save_weights": "weights.load.save",
    "train": "training.loop.train",
}


def __getattr__(name: str) -> Any:
    """Each is imported when it is asked for: the data side starts without jax."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, member = f"{__name__}.{_PLACES[name]}".rpartition(".")
    return getattr(importlib.import_module(module), member)
