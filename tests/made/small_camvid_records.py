"""CamVid's command run on a small CamVid, and what it wrote."""

from data_prep import camvid
from data_prep.source import UnpackedFile, read_frame
from tests.made.small_videos import number_of
from tmanet_jax.data.records import open_clips


def prepare(source, *options):
    """Runs the command line; returns its status."""
    out = source.parent / "out"
    return camvid.main([f"--source={source}", f"--out={out}", *options])


def frame_files(source):
    return sorted(path.name for path in (source.parent / "out" / "frames").glob("*.png"))


def read_png(path):
    return read_frame(UnpackedFile(path))


def clips_of(source, split):
    return open_clips(source.parent / "out", split)


def shown_numbers(clips, index, memory_range=4):
    clip = clips.read(index, range(memory_range, 0, -1))
    return [number_of(frame) for frame in clip.frames_SxHxWx3]
