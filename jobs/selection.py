"""Which of the names below a folder are images of the source: all, or those that a glob matches.

Names are relative to that folder, with "/" between their parts. Listings (local_listing.py,
remote_listing.py) ask about each folder before they list it, and about each file they find.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Protocol

from fsspec.utils import glob_translate

from jobs.manifest_kinds import TEXT, manifest_kind

# What Pillow reads, and HEIC, so that iPhone photographs are reported rather than passed over.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
IsImage = Callable[[str], bool]  # by the name of a file
UNREADABLE_FOLDERS = "unreadable folders"  # a reason for skipping
_MAGIC = re.compile(r"[*?[]")


class Selection(Protocol):
    """Tells what to list; `skipped` counts, by reason, what is found and is no image.

    All names of its images begin with `start`.
    """

    skipped: Counter[str]
    start: str

    def enters(self, folder: str) -> bool:
        """Whether the files of a folder may be images; asked once if they may not be."""

    def takes(self, name: str) -> bool:
        """Whether a file is an image of the source; asked once a file."""

    def is_deep(self, folder: str) -> bool:
        """Whether files at any depth below a folder, "" for the top one, may be."""


class AllImages:
    """All images that are not hidden; manifests are kept for a source that has no image.

    The first image settles that it is a directory of images, whose manifests are skipped.
    """

    def __init__(self, is_image: IsImage) -> None:
        self.skipped: Counter[str] = Counter()
        self._is_image = is_image
        self.start = ""
        self._manifests: list[str] | None = []  # None from the first image on

    def enters(self, folder: str) -> bool:
        return not self._is_hidden(folder)

    def takes(self, name: str) -> bool:
        if self._is_hidden(name):
            return False
        if self._is_image(name):
            self._skip_manifests()
            return True
        if self._manifests is not None and manifest_kind(name) and _is_on_top(name):
            self._manifests.append(name)
        else:
            self.skipped[_why_no_image(name)] += 1
        return False

    def is_deep(self, _folder: str) -> bool:
        return True

    def manifests(self) -> list[str]:
        """Those that are the source if no image was found; text beside others is notes."""
        found = self._manifests or []
        return [name for name in found if manifest_kind(name) is not TEXT] or found

    def _is_hidden(self, name: str) -> bool:
        hidden = _last(name).startswith(".")
        if hidden:
            self.skipped["hidden"] += 1
        return hidden

    def _skip_manifests(self) -> None:
        if self._manifests is not None:
            self.skipped.update(map(_why_no_image, self._manifests))
            self._manifests = None


class Matches:
    """Images that match a glob, in which `**` is any number of folders.

    A name that begins with a dot matches only what begins with one, and is not counted otherwise.
    """

    def __init__(self, pattern: str, is_image: IsImage) -> None:
        parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/")]
        self.skipped: Counter[str] = Counter()
        self.start = _MAGIC.split(parts[0])[0]
        self._matches = re.compile(glob_translate("/".join(parts))).match
        self._hidden = [part for part in parts if part.startswith(".")]
        self._depth = parts.index("**") if "**" in parts else len(parts)
        self._is_image = is_image
        self._recursive = "**" in parts
        self._fixed = parts[: self._depth]

    def enters(self, folder: str) -> bool:
        names = folder.split("/")
        return (
            (self._recursive or len(names) < self._depth)
            and all(map(fnmatchcase, names, self._fixed))
            and self._shows(names[-1:])
        )

    def takes(self, name: str) -> bool:
        if not (self._matches(name) and self._shows(name.split("/"))):
            return False
        if self._is_image(name):
            return True
        self.skipped[_why_no_image(name)] += 1
        return False

    def is_deep(self, folder: str) -> bool:
        depth = len(folder.split("/")) if folder else 0
        return self._recursive and depth >= self._depth

    def _shows(self, names: Sequence[str]) -> bool:
        hidden = [name for name in names if name.startswith(".")]
        return all(any(fnmatchcase(name, part) for part in self._hidden) for name in hidden)


def has_magic(text: str) -> bool:
    """Whether a path or URL may be a glob."""
    return bool(_MAGIC.search(text))


def split_glob(pattern: str) -> tuple[str, str]:
    """The folder that a glob begins with, "" for none, and what is to match below it."""
    scheme, separator, path = pattern.rpartition("://")
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    folder = "/".join(parts[:first]) or "/" * path.startswith("/")
    return scheme + separator + folder, "/".join(parts[first:])


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image's."""
    stem, dot, suffix = _last(name).rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES


def is_any_name(_name: str) -> bool:
    """Whatever a file's name ends in, it may be an image."""
    return True


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_on_top(name: str) -> bool:
    """Whether a file is in the source itself, or in `key=value` folders."""
    return all(part.find("=") > 0 for part in PurePosixPath(name).parts[:-1])


def _why_no_image(name: str) -> str:
    """Why a file is skipped. Text beside images is notes or captions more often than a manifest."""
    kind = manifest_kind(name)
    return "manifests" if kind and kind is not TEXT else "no image's extension"
