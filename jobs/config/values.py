"""What the values of a job may be: each function says whether a value is of that kind."""

import json
import re
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from captioner.jobs.storage.http.addresses import split_place
from captioner.schemas.caption_table import Status

DEVICES = ("auto", "cpu", "cuda")
STALE = ("keep", "redo")
FAILURES = tuple(str(status) for status in Status if status != Status.OK)
_LASTING = {  # after another try, too
    *(Status.UNREADABLE, Status.UNSUPPORTED, Status.TOO_LARGE, Status.REFUSED, Status.REJECTED)
}
RETRIABLE = tuple(kind for kind in FAILURES if kind not in _LASTING)
PRICES = ("input", "output", "request")  # of a million tokens, and of one request
_HOST = re.compile(r"[\w.-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?")
_BUCKET = re.compile(r"(?!https?:|file:)[a-z][a-z0-9+.-]*://[^\s/?#]+/?")
A_SIZE = "a number of bytes above 0, or a size such as 20MB or 512KiB"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b?|b?)", re.IGNORECASE)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%|(\d*\.\d+)")


def is_path(value: object) -> bool:
    """Return whether a value is a path or URL."""
    return isinstance(value, str | Path) and str(value) != ""


def is_text(value: object) -> bool:
    """Return whether a value is text that is not blank."""
    return isinstance(value, str) and value.strip() != ""


def is_list_of_text(value: object) -> bool:
    """Return whether a value is a list of strings."""
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def is_host(value: str) -> bool:
    """Return whether a text is a host, with or without a port, or the bucket of a store."""
    if _BUCKET.fullmatch(value):
        return True
    try:
        split_place(value)
    except ValueError:  # such as a port above 65535
        return False
    return _HOST.fullmatch(value) is not None


def is_count(value: object) -> bool:
    """Return whether a value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: object) -> bool:
    """Return whether a value is a finite number, 0 or above."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value <= sys.float_info.max


def is_probability(value: object) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return is_number(value) and float(str(value)) <= 1


def is_table_of_tables(value: object) -> bool:
    """Return whether a value is a table of tables that JSON can carry to the workers."""
    if not isinstance(value, Mapping):
        return False
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError):
        return False
    return all(isinstance(table, Mapping) for table in value.values())


def share_of(value: object) -> Fraction | None:
    """Return the share that a value such as "20%" or 0.2 means; None if it means none."""
    share = _SHARE.fullmatch(str(value))
    if not share or isinstance(value, bool):
        return None
    return Fraction(share[1]) / 100 if share[1] else Fraction(share[2])


def bytes_of(value: object) -> int | None:
    """Return the bytes that a value such as "20MB", "512 KiB" or 1000 means; None if it means none.

    kB, MB, GB and TB are powers of 1,000, KiB, MiB, GiB and TiB of 1,024.
    """
    size = _SIZE.fullmatch(str(value))
    if not size or isinstance(value, bool):
        return None
    number, prefix, is_binary = size.groups()
    power = "kmgt".index(prefix.lower()) + 1 if prefix else 0
    return int(Fraction(number) * (1024 if is_binary else 1000) ** power)


def shown(value: object) -> str:
    """Return a value that cannot be, as a message shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "an empty list"
    return repr(str(value) if isinstance(value, Path) else value)
