"""A few tiny clips of noise in Cityscapes' layout."""

import zipfile

import numpy as np

from tests.made.picture_files import write_png

SIZE = (40, 60)
NAMES = ("aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019")


def noise(seed, *shape, limit=256):
    return np.random.default_rng(seed).integers(0, limit, shape, np.uint8)


def paths(source, name, split="train"):
    """The query, the frames at offsets 2 and 1 before it, and the labels without their kind."""
    city, snippet, number = name.split("_")
    frames = [f"{city}_{snippet}_{int(number) - offset:06d}_leftImg8bit.png" for offset in (2, 1)]
    return (
        source / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png",
        [source / "leftImg8bit_sequence" / split / city / frame for frame in frames],
        source / "gtFine" / split / city / f"{name}_gtFine",
    )


def labels_path(source, name, kind="labelIds", split="train"):
    stem = paths(source, name, split)[2]
    return stem.with_name(f"{stem.name}_{kind}.png")


def write_clip(source, name, split="train", seed=None):
    """Writes a clip's files; returns its frames and label ids."""
    query, memory, _ = paths(source, name, split)
    seed = NAMES.index(name) if seed is None else seed
    frames = noise(seed, 3, *SIZE, 3)
    for path, frame in zip([*memory, query], frames, strict=True):
        write_png(path, frame)
    label_ids = noise(seed, *SIZE, limit=34)
    write_png(labels_path(source, name, split=split), label_ids)
    return frames, label_ids


def write_tree(source):
    """Writes all clips; returns the tree's root."""
    for name in NAMES:
        write_clip(source, name)
    return source


def zip_as_downloaded(source, folder, name):
    """Moves a folder into a zip file beside it, as the site gives it."""
    with zipfile.ZipFile(source / name, "w") as archive:
        archive.writestr("license.txt", "terms")
        for path in sorted((source / folder).rglob("*"), reverse=True):
            if path.is_file():
                archive.write(path, path.relative_to(source))
                path.unlink()
            else:
                path.rmdir()
    (source / folder).rmdir()
