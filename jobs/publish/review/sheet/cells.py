"""The cells of a row: their names, and digests that show what has changed."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from captioner.jobs.publish.review.texts import clean_text

COLUMNS = (*("image_uri", "caption", "confidence", "alternatives"), "decision", "text", "version")


def filled_in(cells: Mapping[str, str]) -> str:
    """Return a digest of the cells that a person may have changed."""
    return _digest([clean_text(cells[name]) for name in ("caption", "decision", "text")])


def is_as_written(cells: Mapping[str, str]) -> bool:
    """Return whether a row has the caption, decision and text with which it was written."""
    return cells["version"].strip().startswith(f"v{filled_in(cells)}-")


def state_of(row: Mapping[str, Any]) -> str:
    """Return a digest of an image, its caption and the decision about it."""
    names = ("image_uri", "image_sha256", "caption", "decision", "text", "outdated")
    return _digest([row[name] for name in names])


def _digest(values: Sequence[object]) -> str:
    return blake2b(repr(values).encode(errors="replace"), digest_size=6).hexdigest()
