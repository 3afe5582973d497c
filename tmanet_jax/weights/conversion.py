"""Converts files of weights: `python -m tmanet_jax.weights SRC DST`."""

import argparse
import dataclasses
import os

from tmanet_jax.errors import ends_with_message
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.program import advice
from tmanet_jax.weights import files
from tmanet_jax.weights.names import expected_shapes
from tmanet_jax.weights.networks import (
    check_fit,
    has_auxiliary,
    network_of,
    of_backbone,
    without_torchvision_classifier,
)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    align_corners: bool | None = None,
    ema: bool = False,
) -> str:
    """Converts a file of weights, bit by bit the same where it holds float32.

    Args:
        source: the file to read.
        destination: the file to write.
        align_corners: how logits are up-sampled, whatever the source says.
        ema: take the moving averages that a training kept beside the weights.

    Returns:
        What it was in one line, and in further ones what was converted, left out or assumed.

    Raises:
        UserError: the source cannot be read, holds NaN, or is no network that this project can
            build, or the destination cannot be written.
    """
    file = files.read(source, ema=ema)
    network = network_of(file, align_corners=align_corners)
    config = network.config
    if isinstance(config, ModelConfig):
        check_fit(source, file.tensors, expected_shapes(config))
    else:
        tensors = without_torchvision_classifier(file.tensors)
        check_fit(source, tensors, of_backbone(expected_shapes(ModelConfig(backbone=config))))
    described = dataclasses.replace(
        file, config=config, assumed=network.assumed, protocol=network.protocol
    )
    files.write(destination, described)
    notes = [*file.notes, *network.notes]
    if isinstance(config, ModelConfig) and not has_auxiliary(file.tensors):
        notes.append("no auxiliary head: inference needs none, training begins with a new one")
    told = f"{destination}: {len(file.tensors)} tensors, {_described(config)}"
    return "\n  ".join([told, *notes])


def _described(config: ModelConfig | BackboneConfig) -> str:
    if not isinstance(config, ModelConfig):
        return str(config)
    head = config.head
    memory = f"T={head.num_memory}, " if head.num_memory else ""
    return (
        f"{head.network} with {config.backbone}, {memory}{head.num_classes} classes, "
        f"align_corners={config.align_corners}"
    )


@ends_with_message
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=advice("python -m tmanet_jax.weights"),
        description="Converts weights between .pth and .safetensors, bit by bit the same.",
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a .pth or .safetensors file, a run's workdir (its best step is taken), or the "
        "folder of one of its checkpoints",
    )
    parser.add_argument("destination", metavar="DST", help="the file to write, of either kind")
    parser.add_argument(
        "--align-corners",
        action=argparse.BooleanOptionalAction,
        help="how the network's logits are up-sampled, whatever SRC says "
        "(where neither says: 19 classes yes, 12 classes no)",
    )
    parser.add_argument(
        "--ema", action="store_true", help="take the moving averages that SRC keeps of its weights"
    )
    options = parser.parse_args(arguments)
    print(
        convert(
            options.source,
            options.destination,
            align_corners=options.align_corners,
            ema=options.ema,
        )
    )
    return 0
