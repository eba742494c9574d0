"""Captions for photographs: `Captioner.load("flickr8k").caption("dog.jpg")`."""

from typing import TYPE_CHECKING, Any

from captioner.errors import (
    CaptionerError,
    CheckpointError,
    DatasetError,
    ImageError,
    ImageTooLarge,
    MissingExtraError,
    UnreadableImage,
)

if TYPE_CHECKING:
    from captioner.captioner import Caption, Captioner
    from captioner.search_options import SearchOptions

__all__ = [
    "Caption",
    "Captioner",
    "CaptionerError",
    "CheckpointError",
    "DatasetError",
    "ImageError",
    "ImageTooLarge",
    "MissingExtraError",
    "SearchOptions",
    "UnreadableImage",
]


def __getattr__(name: str) -> Any:
    """Import torch only when it is needed, so that `captioner --help` starts fast."""
    if name == "SearchOptions":
        from captioner.search_options import SearchOptions

        return SearchOptions
    if name in __all__:
        from captioner import captioner

        return getattr(captioner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
