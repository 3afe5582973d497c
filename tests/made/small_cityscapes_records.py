"""Records of a small tree in Cityscapes' layout."""

from data_prep import command
from data_prep.cityscapes import Cityscapes
from data_prep.data_set import Options
from data_prep.source import SourceTree
from tmanet_jax.data.records import open_clips


def prepare(source, splits=("train",), every_frame=False, **options):
    out = source.parent / "out"
    tree = Cityscapes(SourceTree(source), every_frame)
    return command.prepare(tree, out, Options(**options), splits=splits)


def prepared(source, split="train", **options):
    prepare(source, [split], **options)
    return open_clips(source.parent / "out", split)
