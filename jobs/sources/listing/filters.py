"""Which of the names below a folder are images of the source: all, or those that a glob matches.

Names are relative to that folder, with "/" between their parts. Listings (local.py, remote.py) ask
about each folder before they list it, and about each file they find.

If there is no image, files that hold or list images are the source: the fallback. Their names are
kept until the first image is found.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from fsspec.utils import glob_translate

from captioner.jobs.sources.exclusion import NOTHING, Exclusion, why_excluded
from captioner.jobs.storage.file_types import (
    is_archive,
    is_manifest,
    is_parquet,
    is_text,
    why_no_image,
)

IsImage = Callable[[str], bool]  # by the name of a file
UNREADABLE_FOLDERS = "unreadable folders"  # a reason for skipping
_MAGIC = re.compile(r"[*?[]")


class Selection(ABC):
    """A selection of images by the names of their files, or else the fallback.

    `skipped` counts, by reason, what is found but is not an image. The names of all images begin
    with `start`. Files and folders that the `exclusion` matches are skipped.
    """

    allows_manifests: bool  # as the fallback, beside files that hold images

    def __init__(self, is_image: IsImage, start: str, exclusion: Exclusion) -> None:
        self.skipped: Counter[str] = Counter()
        self.start = start
        self._is_image = is_image
        self._exclusion = exclusion
        self._fallback: list[str] | None = []  # None from the first image on

    @abstractmethod
    def enters(self, folder: str) -> bool:
        """Return whether a folder may hold images; ask only once about a folder that may not."""

    @abstractmethod
    def accepts(self, name: str) -> bool:
        """Return whether a file is an image of the source; ask only once about each file."""

    @abstractmethod
    def is_deep(self, folder: str) -> bool:
        """Return whether files at any depth below a folder, "" for the top one, may be images."""

    @abstractmethod
    def may_be_fallback(self, name: str) -> bool:
        """Return whether a file that is not an image may be the source if there are no images."""

    def fallback_files(self) -> list[str]:
        """Return the files that are the source if no image was found: archives, or else tables.

        Tables beside archives are skipped; text beside other tables is notes.
        """
        found = self._fallback or []
        if archives := [name for name in found if is_archive(name)]:
            self._skip(name for name in found if not is_archive(name))
            return archives
        return [name for name in found if not is_text(name)] or found

    def skip_fallback(self) -> None:
        """Count the files that would be the source if there were no images as skipped."""
        self._skip(self._fallback or ())
        self._fallback = None

    def _accept(self, name: str) -> bool:
        if self._is_image(name):
            if self._fallback is not None:
                self.skip_fallback()
            return True
        if self._fallback is not None and self.may_be_fallback(name):
            self._fallback.append(name)
        else:
            self._skip([name])
        return False

    def _is_excluded(self, pattern: str | None) -> bool:
        """Return whether there is a pattern that matches a file or folder, and count it."""
        if pattern is not None:
            self.skipped[why_excluded(pattern)] += 1
        return pattern is not None

    def _skip(self, names: Iterable[str]) -> None:
        self.skipped.update(map(_why_not_an_image, names))


class AllImages(Selection):
    """All images that are not hidden.

    The fallback is archives, or manifests and Parquet files at the top or in `key=value` folders.
    """

    allows_manifests = True

    def __init__(self, is_image: IsImage, exclusion: Exclusion = NOTHING) -> None:
        super().__init__(is_image, "", exclusion)

    def enters(self, folder: str) -> bool:
        pattern = self._exclusion.of_folder(folder)
        return not self._is_excluded(pattern) and not self._is_hidden(folder)

    def accepts(self, name: str) -> bool:
        if self._is_excluded(self._exclusion.of_file(name)) or self._is_hidden(name):
            return False
        return self._accept(name)

    def is_deep(self, _folder: str) -> bool:
        return True

    def may_be_fallback(self, name: str) -> bool:
        return is_archive(name) or (is_manifest(name) and _is_on_top(name))

    def _is_hidden(self, name: str) -> bool:
        hidden = name.rpartition("/")[2].startswith(".")
        if hidden:
            self.skipped["hidden"] += 1
        return hidden


class Matches(Selection):
    """Images that match a glob, in which `**` is any number of folders.

    A name that begins with a dot matches only what begins with one, and is not counted otherwise.
    The fallback is archives, or Parquet files of images.
    """

    allows_manifests = False

    def __init__(self, pattern: str, is_image: IsImage, exclusion: Exclusion = NOTHING) -> None:
        parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/")]
        super().__init__(is_image, _MAGIC.split(parts[0])[0], exclusion)
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
            and not self._is_excluded(self._exclusion.of_folder(folder))
        )

    def accepts(self, name: str) -> bool:
        if not self._matches(name) or not self._shows(name.split("/")):
            return False
        return not self._is_excluded(self._exclusion.of_file(name)) and self._accept(name)

    def is_deep(self, folder: str) -> bool:
        depth = len(folder.split("/")) if folder else 0
        return self._recursive and depth >= self._depth

    def may_be_fallback(self, name: str) -> bool:
        return is_archive(name) or is_parquet(name)

    def _shows(self, names: Sequence[str]) -> bool:
        hidden = [name for name in names if name.startswith(".") and name != "."]
        return all(any(fnmatchcase(name, part) for part in self._hidden) for name in hidden)


def has_magic(text: str) -> bool:
    """Return whether a path or URL may be a glob."""
    return bool(_MAGIC.search(text))


def split_glob(pattern: str) -> tuple[str, str]:
    """Return the folder that a glob begins with, "" for none, and the pattern below it."""
    scheme, separator, path = pattern.rpartition("://")
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    folder = "/".join(parts[:first]) or "/" * path.startswith("/")
    return scheme + separator + folder, "/".join(parts[first:])


def is_any_name(_name: str) -> bool:
    """Accept every file as an image, whatever its extension."""
    return True


def _is_on_top(name: str) -> bool:
    """Return whether a file is in the folder itself, or in `key=value` folders."""
    return all(part.find("=") > 0 for part in PurePosixPath(name).parts[:-1])


def _why_not_an_image(name: str) -> str:
    """Return why a file is skipped; text beside images is more often notes than a manifest."""
    if is_archive(name):
        return "archives beside images"
    if is_manifest(name) and not is_text(name):
        return "manifests"
    return why_no_image(name)
