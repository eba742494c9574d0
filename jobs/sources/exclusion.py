"""Which files and folders below a SOURCE are left out, by patterns like those of a .gitignore.

A pattern without "/" matches a name at any depth. One with "/" matches a whole path below SOURCE,
in which `**` is any number of folders. One that ends with "/" matches folders only. A folder that
is left out is left out with everything in it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase, translate
from urllib.parse import unquote

from fsspec.utils import glob_translate

DEFAULTS = (  # thumbnails, previews, snapshots and deleted files, as other programs keep them
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot"),  # Synology, QNAP
    *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information", "lost+found"),
    *("__MACOSX", "._*", ".thumbnails", "*.lrdata"),  # macOS, Linux, Lightroom
    *("**/resources/derivatives/", "**/*.photolibrary/Thumbnails/"),  # Photos, iPhoto
)
_NEVER = "(?!)"
Find = Callable[[str], str | None]  # a path -> the pattern that matches it


class Exclusion:
    """The paths below a SOURCE that patterns leave out.

    Paths have "/" between their parts, and are percent-`encoded` where HTTP lists them.
    """

    def __init__(self, patterns: Iterable[str] = (), encoded: bool = False) -> None:
        patterns = list(patterns)
        self._decoded = unquote if encoded else str
        self._folder = _finder(patterns)
        self._file = _finder([each for each in patterns if not each.endswith("/")])

    def of_folder(self, path: str) -> str | None:
        """Return the pattern that matches a folder itself, or None."""
        return self._folder(self._decoded(path))

    def of_file(self, path: str) -> str | None:
        """Return the pattern that matches a file itself, or None."""
        return self._file(self._decoded(path))

    def of(self, path: str) -> str | None:
        """Return the pattern that leaves a file out, which may match a folder above it, or None."""
        path = self._decoded(path)
        ends = (place for place, letter in enumerate(path) if letter == "/")
        folders = filter(None, (self._folder(path[:end]) for end in ends))
        return next(folders, None) or self._file(path)


def why_excluded(pattern: str) -> str:
    """Return the reason for skipping what a pattern matches."""
    return f"excluded by {pattern}"


def default_exclusion(glob: str = "") -> list[str]:
    """Return the default patterns, without those that a glob names in one of its parts."""
    parts = glob.split("/")
    return [each for each in DEFAULTS if not any(fnmatchcase(part, each) for part in parts)]


def _finder(patterns: Sequence[str]) -> Find:
    """Return a function that finds the pattern of a path, fast where there is none."""
    names = {each: translate(each.rstrip("/")) for each in patterns if _is_name(each)}
    paths = {each: _path_regex(each) for each in patterns if each not in names}
    any_name = re.compile("|".join(names.values()) or _NEVER).match
    any_path = re.compile("|".join(paths.values()) or _NEVER).match

    def find(path: str) -> str | None:
        name = path.rpartition("/")[2]
        if any_name(name):
            return next(each for each, regex in names.items() if re.match(regex, name))
        if any_path(path):
            return next(each for each, regex in paths.items() if re.match(regex, path))
        return None

    return find


def _is_name(pattern: str) -> bool:
    return "/" not in pattern.rstrip("/")


def _path_regex(pattern: str) -> str:
    parts = pattern.strip("/").split("/")
    return glob_translate("/".join(p if p == "**" else re.sub(r"\*+", "*", p) for p in parts))


NOTHING = Exclusion()
