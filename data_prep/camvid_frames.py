"""Provides the frames before CamVid's stills: extracted already, or now from the raw videos."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_prep.camvid_source import CamvidSource, RawVideo, parse_name
from data_prep.extraction import Watch, extract_frames
from data_prep.numbering import (
    MAX_DIFFERENCE,
    Numbering,
    difference,
    number_frames,
    read_numbering,
    thumbnail,
)
from data_prep.source import SourceFile, UnpackedFile, WrongSourceError, read_frame
from data_prep.writing import write_file
from tmanet_jax.errors import UserError
from tmanet_jax.progress import ProgressBar

_File = TypeVar("_File", bound=SourceFile)

_LARGEST_SHIFT = 3
_SHIFT_SAMPLE = 40
"""How many stills of a video are compared with the frames up to so many places away."""

_PATIENCE_S = 0.5
"""That threads are waited for at a time: a signal that one of them takes does not end the wait."""


@dataclass(frozen=True)
class VideoFrames:
    """The frames of one video.

    Attributes:
        files: by number.
        faults: stills that are not the frame of their number, by number, and what is wrong.
        report: how the numbers were found, for the user.
    """

    files: Mapping[int, SourceFile]
    faults: Mapping[int, str]
    report: str


def provide_frames(
    source: CamvidSource, directory: Path, wanted: Mapping[RawVideo, Collection[int]]
) -> Mapping[RawVideo, VideoFrames]:
    """Finds frames, and extracts those that are not there; all videos at once, with a progress bar.

    Extracted frames are written as `DIRECTORY/NAME.png`, and `DIRECTORY/VIDEO.json` says how their
    numbers were found. What is there is kept, also when this is stopped.

    Args:
        source: videos, stills, and frames that were extracted already.
        directory: where frames are looked for first, and written to.
        wanted: numbers of the frames of each video, none negative.

    Returns:
        The frames of each video, without those that the video does not have.

    Raises:
        WrongSourceError: there is neither a video nor frames of it, or they belong to other stills.
        UserError: a file cannot be read or written.
    """
    with ProgressBar("Reading videos", "frame", stays=False) as progress:
        watch = Watch(on_frame=_Counter(progress).count)
        with ThreadPoolExecutor(max(1, len(wanted))) as executor:
            try:
                jobs = {
                    executor.submit(_provide, source, directory, video, numbers, watch): video
                    for video, numbers in wanted.items()
                }
                left = set(jobs)
                while left:
                    finished, left = wait(left, _PATIENCE_S, return_when=FIRST_EXCEPTION)
                    for job in finished:
                        job.result()
                return {video: job.result() for job, video in jobs.items()}
            except BaseException:
                watch.stop.set()
                raise


class _Counter:
    """Counts frames of all threads."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self._progress.update()


def _provide(
    source: CamvidSource, directory: Path, video: RawVideo, wanted: Collection[int], watch: Watch
) -> VideoFrames:
    stills = _of_video(source.stills, video)
    if not stills:
        raise WrongSourceError(
            f"No still of {video.file} lies below {source.root}: expected files such as "
            f"{video.frame_name(30)}.png. Get them, or leave out their splits by --splits."
        )
    note = directory / f"{video.file}.json"
    path = source.videos.get(video)
    given, extracted = _of_video(source.frames, video), _extracted(directory, video)
    files = given | extracted
    targets = {number: directory / f"{video.frame_name(number)}.png" for number in wanted}
    noted = read_numbering(note)
    numbering = noted if noted is not None and noted.is_of(path, stills) else None
    # Without a note, somebody else extracted the frames in the directory too.
    checked = _checked(video, given if noted is not None and path is not None else files, stills)
    if path is not None and (targets.keys() - files.keys() or noted != numbering):
        if numbering is None:
            numbering = number_frames(path, stills, watch)
            if noted is not None and noted.first_number != numbering.first_number:
                _remove(file.path for file in extracted.values())
                files = given
            write_file(note, numbering.to_json())
        first = numbering.first_number
        lacking = filter(numbering.gives, targets.keys() - files.keys())
        extract_frames(path, {number - first: targets[number] for number in lacking}, watch)
        files |= _extracted(directory, video)
    elif wanted and not files:
        raise WrongSourceError(_nothing_found(source, directory, video))
    if numbering is None:
        return checked
    return VideoFrames(files, {**checked.faults, **numbering.faults}, _report(video, numbering))


def _remove(paths: Iterable[Path]) -> None:
    """Removes frames that were numbered otherwise."""
    for path in paths:
        path.unlink(missing_ok=True)


def _checked(
    video: RawVideo, files: Mapping[int, SourceFile], stills: Mapping[int, SourceFile]
) -> VideoFrames:
    """Frames that somebody else extracted, compared with the stills of the same number."""
    common = sorted(files.keys() & stills.keys())
    if shift := _shift(files, stills, common):
        raise WrongSourceError(
            f"The stills of {video.file} look like the extracted frames {abs(shift)} "
            f"{'after' if shift > 0 else 'before'} those of their numbers, such as "
            f"{files[common[0]]}. The frames are numbered otherwise; move them away and give the "
            "video instead."
        )
    faults = {}
    for number in common:
        distance = _distance(stills[number], files[number])
        if distance is not None and distance > MAX_DIFFERENCE:
            faults[number] = (
                f"it is {distance:.1f} grey levels away from {files[number]}, the same picture is "
                f"at most {MAX_DIFFERENCE:.1f}"
            )
    if 2 * len(faults) > len(common):
        first = min(faults)
        raise WrongSourceError(
            f"{len(faults)} of {len(common)} stills do not show the extracted frame of their "
            f"number. The first is {stills[first]}: {faults[first]}. The frames are numbered "
            f"otherwise; move them away and give the video {video.file} instead."
        )
    agreeing = f"{len(common) - len(faults)} of {len(common)} stills agree with the frame"
    unchecked = "none of them is that of a still, so that their numbers are not checked"
    return VideoFrames(
        files,
        faults,
        f"{video.file}: {len(files)} frames were there already; "
        + (f"{agreeing} of their number" if common else unchecked),
    )


def _shift(
    files: Mapping[int, SourceFile], stills: Mapping[int, SourceFile], common: Sequence[int]
) -> int:
    """How many frames away from their numbers a sample of stills fits clearly better; else 0."""
    sample = common[:: len(common) // _SHIFT_SAMPLE + 1]
    means = {}
    for shift in range(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1):
        present = [number for number in sample if number + shift in files]
        distances = [_distance(stills[number], files[number + shift]) for number in present]
        known = [distance for distance in distances if distance is not None]
        if 2 * len(known) > len(sample):
            means[shift] = sum(known) / len(known)
    if 0 not in means:
        return 0
    best = min(means, key=means.__getitem__)
    return best if best and 1.5 * means[best] + 0.5 < means[0] else 0


def _distance(still: SourceFile, frame: SourceFile) -> float | None:
    """Grey levels between two pictures; None if one is torn: told when its clip is loaded."""
    try:
        return difference(*(thumbnail(read_frame(file)) for file in (still, frame)))
    except UserError:
        return None


def _extracted(directory: Path, video: RawVideo) -> dict[int, UnpackedFile]:
    paths = directory.glob(f"{video.prefix}*.png")
    return _of_video({path.stem: UnpackedFile(path) for path in paths}, video)


def _of_video(files: Mapping[str, _File], video: RawVideo) -> dict[int, _File]:
    """The files of one video by their number; names that are no frame's are left."""
    numbered = {}
    for name, file in files.items():
        try:
            found, number = parse_name(name)
        except UserError:
            continue
        if found == video:
            numbered[number] = file
    return numbered


def _report(video: RawVideo, numbering: Numbering) -> str:
    broken = f"; {len(numbering.broken)} of its frames are broken" if numbering.broken else ""
    return f"{video.file}: {numbering.num_frames} frames{broken}; {numbering.report}"


def _nothing_found(source: CamvidSource, directory: Path, video: RawVideo) -> str:
    return (
        f"There is neither the video {video.file} nor a frame of it: expected {video.file} "
        f"anywhere below {source.root}, or extracted frames such as {video.frame_name(30)}.png in "
        f"{directory} or in a folder images_sequence. It holds the frames before the stills; "
        "--memory-range=0 needs none, --splits leaves out splits."
    )
