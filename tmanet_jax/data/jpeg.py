"""JPEGs that decode although bytes of them have changed."""

import contextlib

import simplejpeg

_START = b"\xff\xd8\xff"


def warning_of(content: bytes) -> str | None:
    """What libjpeg warns of while it decodes a picture: some of its pixels are then guesses.

    OpenCV and Pillow keep these warnings to themselves. Of bytes that change in the middle of a
    file libjpeg notices about half; None too for what is no JPEG, or cannot be decoded at all.
    """
    if not content.startswith(_START):
        return None
    try:
        _decode(content, strict=True)
    except ValueError as error:
        with contextlib.suppress(ValueError):
            _decode(content, strict=False)
            return str(error)
    return None


def _decode(content: bytes, *, strict: bool) -> None:
    """Reads every coefficient, and makes as few pixels of them as libjpeg can."""
    simplejpeg.decode_jpeg(
        content, "GRAY", fastdct=True, min_height=1, min_width=1, min_factor=8, strict=strict
    )
