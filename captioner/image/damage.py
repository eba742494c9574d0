"""What went wrong with an image: damaged, of a kind that is not supported, or too much memory."""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from PIL import Image

from captioner.errors import (
    ImageError,
    ImageTooLarge,
    OutOfMemory,
    UnreadableImage,
    UnsupportedImage,
)

# Raised by Pillow and its codecs on damaged files: they check little before they parse.
DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    Warning,  # where the process turns warnings into errors
    struct.error,
    zlib.error,
)
# What says nothing to people who have only the file.
_UNCLEAR = re.compile(
    r"^-?\d+$|^b['\"]|identif|unpack|literal for|object|type\b|out of range|decoder error"
    r"|generic error|next frame|cannot load this|input/output error",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile("out of memory|can't allocate memory", re.IGNORECASE)
_SHORT_CHUNK = re.compile("Truncated [a-z]")  # of a PNG, beside the picture
_ENDED_EARLY = (EOFError, IndexError, struct.error)
_NOT_SUPPORTED = re.compile(
    r"unsupported|not supported|not implemented|unknown (pixel mode|data organization|compression)"
    r"|unrecognized image mode|not available|cannot handle",
    re.IGNORECASE,
)

T = TypeVar("T")


class _Fault(Exception):
    """A fault of something other than an image, which is its cause."""


@contextmanager
def without_codecs() -> Iterator[None]:
    """Let `readable` raise errors as they are, as this context reads nothing of a file.

    A lack of memory remains one of the image.
    """
    try:
        yield
    except DAMAGED as error:
        if _NO_MEMORY.search(str(error)):
            raise
        raise _Fault from error


def readable(decode: Callable[[], T]) -> T:
    """Return what `decode` does; its errors become those of an image."""
    try:
        return decode()
    except _Fault as fault:
        assert fault.__cause__
        raise fault.__cause__ from None
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(str(error)) from error
    except MemoryError as error:
        raise OutOfMemory("not enough memory to decode it") from error
    except DAMAGED as error:
        raise image_error(error) from error


def image_error(error: BaseException) -> ImageError:
    """Return the error of an image that a codec could not read."""
    text = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    if _NO_MEMORY.search(text):
        return OutOfMemory(f"not enough memory to decode it: {text}")
    if is_truncated(error):
        return UnreadableImage("truncated: the data end before the picture is complete")
    if _NOT_SUPPORTED.search(text):
        return UnsupportedImage(f"not supported: {text}")
    return UnreadableImage(
        f"damaged: {'the data cannot be decoded' if _UNCLEAR.search(text) else text}"
    )


def is_truncated(error: BaseException) -> bool:
    """Return whether a codec says that a file ends early."""
    ended = isinstance(error, _ENDED_EARLY) or isinstance(error.__cause__, _ENDED_EARLY)
    return ended or ("truncated" in str(error).lower() and not _SHORT_CHUNK.search(str(error)))
