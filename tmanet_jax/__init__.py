"""TMANet-JAX: video semantic segmentation with a temporal memory (arXiv 2102.08643).

In three lines, from a file of weights to any video:

    segmenter = tmanet_jax.Segmenter.load("tmanet.safetensors")
    for result in segmenter.stream("drive.mp4"):
        show(result.overlay)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tmanet_jax.inference.segmenter import Segmenter

__all__ = ["Segmenter"]


def __getattr__(name: str) -> Any:
    """`Segmenter` is imported when it is asked for: the data side starts without jax."""
    if name == "Segmenter":
        from tmanet_jax.inference.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
