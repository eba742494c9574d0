"""Thumbnails of images, made from their source when they are needed."""

import io
from collections.abc import Mapping

from captioner.errors import ImageError, ImageTooLarge, OutOfMemory, UnsupportedImage
from captioner.image import shrink_image
from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.schemas.caption_table import Status

QUALITY = 80  # of JPEG
_STATUSES: Mapping[type[ImageError], Status] = {
    ImageTooLarge: Status.TOO_LARGE,
    OutOfMemory: Status.OUT_OF_MEMORY,
    UnsupportedImage: Status.UNSUPPORTED,
}


def thumbnail(uri: str, side: int) -> bytes:
    """Return an image, given by its URI in the table, as a JPEG of at most `side` x `side` pixels.

    It is upright, and has no metadata of the original. Raise FetchError if there is no image.
    """
    return shrunk(fetch_image(uri, MAX_BYTES), side)


def shrunk(data: bytes, side: int) -> bytes:
    """Return the thumbnail of an image file; FetchError if it cannot be decoded."""
    try:
        picture = shrink_image(data, side)
    except ImageError as error:
        status = _STATUSES.get(type(error), Status.UNREADABLE)
        raise FetchError(status, str(error)) from error
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
