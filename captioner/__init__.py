"""Captions for photographs: `Captioner.load("flickr8k").caption("dog.jpg")`."""

import importlib
from typing import TYPE_CHECKING, Any

from captioner.errors import (
    CaptionerError,
    CaptionerUnavailable,
    CheckpointError,
    DatasetError,
    ImageError,
    ImageTooLarge,
    MissingExtraError,
    OutOfMemory,
    RejectedCaption,
    UnreadableImage,
    UnsupportedImage,
)

if TYPE_CHECKING:
    from captioner.caption import Caption
    from captioner.captioner import Captioner
    from captioner.loading import load_captioner
    from captioner.search_options import SearchOptions

__all__ = [
    "Caption",
    "Captioner",
    "CaptionerError",
    "CaptionerUnavailable",
    "CheckpointError",
    "DatasetError",
    "ImageError",
    "ImageTooLarge",
    "MissingExtraError",
    "OutOfMemory",
    "RejectedCaption",
    "SearchOptions",
    "UnreadableImage",
    "UnsupportedImage",
    "load_captioner",
]

_LAZY = {
    "Caption": "caption",
    "Captioner": "captioner",
    "SearchOptions": "search_options",
    "load_captioner": "loading",
}


def __getattr__(name: str) -> Any:
    """Import torch only when it is needed, so that `captioner --help` starts fast."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"captioner.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
