"""The arrays of a checkpoint on disk, and their checksums, without Orbax.

Orbax's own reader takes part in barriers between processes, leaves coroutines behind when a file
is torn, and is slower.
"""

import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

Arrays = Mapping[str, np.ndarray]
"""By their names on disk, such as `params.head.classifier.bias.value`."""

_ARRAY = ".zarray"


def read_arrays(
    state: Path, parts: Collection[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays below a checkpoint's `state`, each with its name, in the order of the names.

    Args:
        state: the directory.
        parts: of the state that are wanted, such as `params`; None: all.

    Raises:
        Exception: whatever torn bytes make of their reader.
    """
    base = {"driver": "file", "path": f"{state.absolute()}/"}  # a URL would read ? # | % in it
    files = {"driver": "ocdbt", "base": base}
    keys = (key.decode() for key in ts.KvStore.open(files).result().list().result())
    names = sorted(key.removesuffix(_ARRAY).rstrip("/") for key in keys if key.endswith(_ARRAY))
    if not names:
        raise FileNotFoundError("it holds no arrays")
    for name in names:
        if parts is None or part_of(name) in parts:
            array = {
                "driver": "zarr",
                "kvstore": {**files, "path": f"{name}/"},
                "fill_missing_data_reads": False,
            }
            yield name, np.asarray(ts.open(array).result().read().result())


def part_of(name: str) -> str:
    """The part of a state that an array belongs to."""
    return name.partition(".")[0]


def by_name(state: Any) -> dict[str, Any]:
    """The leaves of a state by their names on disk."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }


def checksum(array: np.ndarray) -> str:
    """CRC-32 of type, shape and bytes, in hexadecimal: damage is found, forgery is not."""
    head = zlib.crc32(f"{array.dtype} {array.shape}".encode())
    return f"{zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, head):08x}"


def checksums_of(state: Any) -> Mapping[str, str]:
    """The checksum of each array of a state that every device has whole, by its name on disk."""
    return {
        name: checksum(
            np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
        )
        for name, leaf in by_name(state).items()
    }
