"""A folder of a remote store -> its images, in the order of their names, as a stream.

A store is asked for pages: of a folder's entries, or of all names below it (s3.py). The
pages of the next LISTERS folders are fetched while those of one are read, PAGES_AHEAD of each, so
that no more than that is ever in memory, whatever the number of images.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from typing import Any

from fsspec.archive import AbstractArchiveFileSystem

from captioner.jobs.sources.listing.filters import UNREADABLE_FOLDERS, Selection
from captioner.jobs.sources.listing.local import Records
from captioner.jobs.sources.listing.s3 import s3_pages
from captioner.jobs.storage.failures import FINAL, failure_status, listing_errors
from captioner.jobs.storage.filesystems import archives_lock, filesystem
from captioner.jobs.storage.uris import below, info_version, is_chain

LISTERS = 8  # more would only wait for this process, which has to parse what they get
PAGES_AHEAD = 16
Entry = tuple[str, Mapping[str, Any] | None]  # name below the root, and its info; None: a folder
Page = list[Entry]  # in the order of names, where a folder's ends with "/"
Pages = Callable[[str], Iterator[Page]]  # of a folder, "" or "a/b/"


def remote_records(url: str, selection: Selection) -> Records:
    """The images of a selection below a remote folder. UsageError or TemporaryError if it fails."""
    with listing_errors(url):
        fs, root = filesystem(url)
        listers = LISTERS if fs.async_impl else 1
        files = _in_order(_pages_of(fs, root, selection), selection, listers)
        for name, info in _in_entered_folders(files, selection):
            uri = below(url, name)
            if "::" in name and is_chain(uri):
                selection.skipped["names that no URL can hold"] += 1
            elif selection.takes(name):
                yield uri, info_version(info)


def _pages_of(fs: Any, root: str, selection: Selection) -> Pages:
    if "s3" in fs.protocol:
        return s3_pages(fs, root, selection)
    if isinstance(fs, AbstractArchiveFileSystem):
        return lambda _folder: iter([_archive_page(fs, root)])
    return lambda folder: iter([_folder_page(fs, root, folder, selection)])


def _archive_page(fs: AbstractArchiveFileSystem, root: str) -> Page:
    """All files of an archive, whose index is in memory as a whole anyway."""
    with archives_lock:
        files = fs.find(root, detail=True)
    start = len(root) + 1 if root else 0
    return [(name[start:], info) for name, info in sorted(files.items(), key=itemgetter(0))]


def _folder_page(fs: Any, root: str, folder: str, selection: Selection) -> Page:
    path = f"{root.rstrip('/')}/{folder}" if folder or "://" in root else root
    try:
        entries = fs.ls(path, detail=True)
    except Exception as error:
        if not folder or failure_status(error) not in FINAL:
            raise
        selection.skipped[UNREADABLE_FOLDERS] += 1
        return []
    fs.invalidate_cache(path)  # listings of all folders would stay in memory
    return sorted(_children(entries, folder, path), key=itemgetter(0))


def _children(entries: list[dict[str, Any]], folder: str, folder_path: str) -> Iterator[Entry]:
    """What is directly in a folder, whose own entry (a marker, a page's link to itself) is not."""
    start = f"{folder_path.strip('/')}/".lstrip("/")
    for info in entries:
        path = info["name"].lstrip("/")
        name = path.removeprefix(start).rstrip("/")
        if path.startswith(start) and name not in ("", ".", "..") and "/" not in name:
            if info["type"] == "directory":
                yield f"{folder}{name}/", None
            elif not path.endswith("/"):
                yield folder + name, info


class _Ahead:
    """Pages of a folder, which a pool fetches some in advance."""

    def __init__(self, pool: ThreadPoolExecutor, pages: Iterator[Page]) -> None:
        self._pool = pool
        self._pages = pages
        self._next = self._submit()

    def _submit(self) -> Any:
        return self._pool.submit(lambda: list(islice(self._pages, PAGES_AHEAD)))

    def __iter__(self) -> Iterator[Page]:
        while some := self._next.result():
            self._next = self._submit()
            yield from some


def _in_order(
    pages: Pages, selection: Selection, listers: int
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All files below the root, with their infos."""
    pool = ThreadPoolExecutor(listers, thread_name_prefix="listing")

    def files(folder: _Ahead) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for page in folder:
            names = (n for n, info in page if info is None and selection.enters(n.rstrip("/")))
            ahead: deque[tuple[str, _Ahead]] = deque()
            for name, info in page:
                if info is not None:
                    yield name, info
                    continue
                for entered in islice(names, LISTERS - len(ahead)):
                    ahead.append((entered, _Ahead(pool, pages(entered))))
                if ahead and ahead[0][0] == name:
                    yield from files(ahead.popleft()[1])

    try:
        yield from files(_Ahead(pool, pages("")))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _in_entered_folders(
    files: Iterator[tuple[str, Mapping[str, Any]]], selection: Selection
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Those of the files whose folders the selection enters; it is asked once about each."""
    opened, closed = "", None
    for name, info in files:
        folder = name[: name.rfind("/") + 1]
        if closed is not None and folder.startswith(closed):
            continue
        if folder != opened:
            new = (part for part in _folders(folder) if not opened.startswith(part))
            closed = next((part for part in new if not selection.enters(part.rstrip("/"))), None)
            if closed is not None:
                continue
            opened = folder
        yield name, info


def _folders(folder: str) -> Iterator[str]:
    """The folders on the way to "a/b/": "a/" and "a/b/"."""
    end = folder.find("/")
    while end >= 0:
        yield folder[: end + 1]
        end = folder.find("/", end + 1)
