"""Whether records in a directory may be replaced: not in silence by those of another data set."""

from collections.abc import Collection
from pathlib import Path

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.records import has_records, read_info
from tmanet_jax.data.records_info import RecordsInfo
from tmanet_jax.errors import UserError


def check_replaceable(
    out: Path, classes: ClassSet, memory_range: int, frame_stride: int, splits: Collection[str]
) -> None:
    """Raises UserError if `out` holds records of other splits, classes or options than these."""
    there = _records_in(out)
    if there is None:
        return
    if lost := there.splits.keys() - set(splits):
        every = ",".join([*there.splits, *(name for name in splits if name not in there.splits)])
        raise UserError(
            f"{out} holds {', '.join(there.splits)}, and records are replaced as a whole: "
            f"{', '.join(sorted(lost))} would be lost. Prepare all of them, --splits={every} (what "
            "is there and has not changed is not done again), choose another --out, or say "
            "--replace."
        )
    if there.classes.names != classes.names:
        raise _lost(out, f"of {there.classes.name}, whose classes are not those of {classes.name}")
    if (there.memory_range, there.frame_stride) != (memory_range, frame_stride):
        raise _lost(
            out,
            f"made with --memory-range={there.memory_range} --frame-stride={there.frame_stride}, "
            f"not {memory_range} and {frame_stride}",
        )


def check_clips_stay(out: Path, ids: Collection[str]) -> None:
    """Raises UserError if most clips of the records in `out` are none of these."""
    there = _records_in(out)
    if there is None:
        return
    found = [clip_id for split in there.splits.values() for clip_id in split.ids]
    lost = [clip_id for clip_id in found if clip_id not in ids]
    if 2 * len(lost) > len(found):
        raise _lost(
            out, f"of {len(found)} clips, of which the source lacks {len(lost)}, {lost[0]} first"
        )


def _records_in(out: Path) -> RecordsInfo | None:
    """What is known of records; None if there are none that anybody could use."""
    try:
        return read_info(out) if has_records(out) else None
    except UserError:
        return None


def _lost(out: Path, records: str) -> UserError:
    return UserError(
        f"{out} holds records {records}: they would be lost. Choose another --out, or say "
        "--replace."
    )
