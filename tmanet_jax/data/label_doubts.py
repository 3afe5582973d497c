"""What is doubtful about the labels of a split: what a wrong value or colour leaves behind."""

from tmanet_jax.data.classes import IGNORE, ClassSet
from tmanet_jax.data.records_info import SplitInfo

_SUSPICIOUS_SHARE = 0.5
"""Of ignored pixels. Cityscapes has 12 %."""


def label_doubts(name: str, split: SplitInfo, classes: ClassSet, *, trains: bool) -> list[str]:
    """One warning a doubt, each saying what is likely wrong; none of a split without labels.

    Args:
        name: of the split.
        split: what is known of it.
        classes: the data set's.
        trains: whether a network is trained on the split, so that it should have every class.
    """
    num_pixels = sum(split.class_pixels) + split.ignored_pixels
    if not split.labelled or not num_pixels:
        return []
    ignored = split.ignored_pixels / num_pixels
    absent = [name for name, n in zip(classes.names, split.class_pixels, strict=True) if not n]
    if ignored == 1:
        return [
            f"Warning: every pixel of the labels of {name} is ignored ({IGNORE}): nothing trains "
            "or counts. Are these the labels' values, and the right classes?"
        ]
    if split.ignored_pixels and absent == list(classes.names[1:]):
        return [
            f"Warning: the labels of {name} hold nothing but 0 ({classes.names[0]}) and {IGNORE} "
            f"(ignored, {ignored:.1%}). If they are masks whose white is a class, save its pixels "
            f"as that class's number, such as 1 ({classes.names[1]})."
        ]
    doubts = []
    if ignored > _SUSPICIOUS_SHARE:
        doubts.append(
            f"Warning: {ignored:.1%} of the label pixels of {name} are ignored ({IGNORE}); only "
            "the rest trains and counts. Is one of the classes saved as that value?"
        )
    if trains and absent:
        doubts.append(
            f"Warning: no pixel of {name} is {', '.join(absent)}: a network cannot learn what it "
            "is never shown. Are the list of classes and the labels' values the right ones?"
        )
    return doubts
