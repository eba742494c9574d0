"""Which of the names below a folder are images of the source: all, or those that a glob matches.

Names are relative to that folder, with "/" between their parts. Listings (local_listing.py,
remote.py) ask about each folder before they list it, and about each file they find.

Files that hold or list images are the source if there is no image. The first image settles that
they are not, so that their names are kept no longer than that.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Protocol

from fsspec.utils import glob_translate

from captioner.jobs.sources.manifests.formats import TEXT, manifest_kind
from captioner.jobs.storage.file_types import _last, is_archive, is_parquet

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


class _Images:
    """Images by the names of their files, and the files that are the source if there are none."""

    def __init__(self, is_image: IsImage, start: str) -> None:
        self.skipped: Counter[str] = Counter()
        self.start = start
        self._is_image = is_image
        self._others: list[str] | None = []  # None from the first image on

    def others(self) -> list[str]:
        """The files that are the source if no image was found: archives, or else tables.

        Tables beside archives are skipped; text beside other tables is notes.
        """
        found = self._others or []
        if archives := [name for name in found if is_archive(name)]:
            self._skip(name for name in found if not is_archive(name))
            return archives
        return [name for name in found if manifest_kind(name) is not TEXT] or found

    def skip_others(self) -> None:
        """They are not the source."""
        self._skip(self._others or ())
        self._others = None

    def _may_be_source(self, name: str) -> bool:
        """Whether a file that is no image may be the source if there is none."""
        raise NotImplementedError

    def _take(self, name: str) -> bool:
        if self._is_image(name):
            if self._others is not None:
                self.skip_others()
            return True
        if self._others is not None and self._may_be_source(name):
            self._others.append(name)
        else:
            self._skip([name])
        return False

    def _skip(self, names: Iterable[str]) -> None:
        self.skipped.update(map(_why_no_image, names))


class AllImages(_Images):
    """All images that are not hidden.

    Others are archives, and manifests and Parquet files of images on top or in `key=value` folders.
    """

    def __init__(self, is_image: IsImage) -> None:
        super().__init__(is_image, "")

    def enters(self, folder: str) -> bool:
        return not self._is_hidden(folder)

    def takes(self, name: str) -> bool:
        return not self._is_hidden(name) and self._take(name)

    def is_deep(self, _folder: str) -> bool:
        return True

    def _may_be_source(self, name: str) -> bool:
        return is_archive(name) or (manifest_kind(name) is not None and is_on_top(name))

    def _is_hidden(self, name: str) -> bool:
        hidden = _last(name).startswith(".")
        if hidden:
            self.skipped["hidden"] += 1
        return hidden


class Matches(_Images):
    """Images that match a glob, in which `**` is any number of folders.

    A name that begins with a dot matches only what begins with one, and is not counted otherwise.
    Others are archives and Parquet files.
    """

    def __init__(self, pattern: str, is_image: IsImage) -> None:
        parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/")]
        super().__init__(is_image, _MAGIC.split(parts[0])[0])
        self._matches = re.compile(glob_translate("/".join(parts))).match
        self._hidden = [part for part in parts if part.startswith(".")]
        self._depth = parts.index("**") if "**" in parts else len(parts)
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
        return bool(self._matches(name)) and self._shows(name.split("/")) and self._take(name)

    def is_deep(self, folder: str) -> bool:
        depth = len(folder.split("/")) if folder else 0
        return self._recursive and depth >= self._depth

    def _may_be_source(self, name: str) -> bool:
        return is_archive(name) or is_parquet(name)

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


def is_any_name(_name: str) -> bool:
    """Whatever a file's name ends in, it may be an image."""
    return True


def is_on_top(name: str) -> bool:
    """Whether a file is in the source itself, or in `key=value` folders."""
    return all(part.find("=") > 0 for part in PurePosixPath(name).parts[:-1])


def _why_no_image(name: str) -> str:
    """Why a file is skipped. Text beside images is notes or captions more often than a manifest."""
    if is_archive(name):
        return "archives beside images"
    kind = manifest_kind(name)
    return "manifests" if kind and kind is not TEXT else "no image's extension"
