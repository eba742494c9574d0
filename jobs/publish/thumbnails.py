"""Thumbnails of images, made from their source when they are needed."""

import io

from captioner.errors import ImageTooLarge, UnreadableImage
from captioner.image import ImageLimits, shrink_image
from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.schemas.caption_table import Status

MAX_BYTES = 256 * 1024 * 1024
LIMITS = ImageLimits()
QUALITY = 80  # of JPEG


def thumbnail(uri: str, side: int) -> bytes:
    """Return an image, given by its URI in the table, as a JPEG of at most `side` x `side` pixels.

    It is upright, and has no metadata of the original. Raise FetchError if there is no image.
    """
    return shrunk(fetch_image(uri, MAX_BYTES), side)


def shrunk(data: bytes, side: int, limits: ImageLimits = LIMITS) -> bytes:
    """Return the thumbnail of an image file; FetchError if it is damaged or beyond the limits."""
    try:
        picture = shrink_image(data, side, limits)
    except UnreadableImage as error:
        raise FetchError(Status.UNREADABLE, str(error)) from error
    except ImageTooLarge as error:
        raise FetchError(Status.TOO_LARGE, str(error)) from error
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
