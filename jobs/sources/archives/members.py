"""Members of archives that are no images to caption, because of what they are called or are."""

import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from captioner.jobs.messages import warn

LINKS = "links in archives"
DEVICES = "devices in archives"
ENCRYPTED = "encrypted members of archives"
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


def unsafe_name(name: str) -> str | None:
    """Return why a member with a name would be skipped, as it may lie outside a folder; or None."""
    path = name.replace("\\", "/")
    if "\0" in name:
        return "names in archives with a null character"
    if ".." in path.split("/"):
        return "names in archives with .."
    return "absolute names in archives" if _ABSOLUTE.match(path) else None


def unheld_name(name: str) -> str | None:
    """Return why a member with a name is skipped, as no URL in a chain can name it; or None."""
    return "names that no URL can hold" if "::" in name or "://" in name else None


def unsafe_file(info: Mapping[str, Any]) -> str | None:
    """Return why a file of an archive that fsspec opens would be skipped, by its info; or None."""
    if reason := unsafe_name(info.get("orig_filename") or info["name"]):
        return reason
    if info.get("kind") == "link" or stat.S_ISLNK((info.get("external_attr") or 0) >> 16):
        return LINKS
    if info.get("kind") == "device":
        return DEVICES
    return ENCRYPTED if (info.get("flag_bits") or 0) & 1 else None


def warn_of_cut(archives: Sequence[str]) -> None:
    """Warn of tar archives without an end marker, if there are any."""
    if archives:
        rest = f" and {len(archives) - 1:,} other archives have" if archives[1:] else " has"
        warn(
            f"{archives[0]}{rest} no end marker, as if cut short: the images that are there are "
            "captioned; copy again if some are missing"
        )
