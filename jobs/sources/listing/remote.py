"""A folder of a remote store -> its images, in the order of their names, as a stream.

A store is asked for pages: of the entries of a folder, or of all names below it (s3.py). While the
pages of a folder are read, those of the next LISTERS folders are fetched, PAGES_AHEAD of each, so
that memory does not grow with the number of images.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, islice
from operator import itemgetter
from typing import Any

from captioner.jobs.sources.archives.members import unheld_name
from captioner.jobs.sources.listing.archives import archive_pages
from captioner.jobs.sources.listing.filters import UNREADABLE_FOLDERS, Selection
from captioner.jobs.sources.listing.s3 import Entry, Page, s3_pages
from captioner.jobs.sources.source import Records
from captioner.jobs.storage.archives.tar_archive import TarArchive
from captioner.jobs.storage.archives.zip_archive import ZipArchive
from captioner.jobs.storage.attempts.statuses import failure_status
from captioner.jobs.storage.failures import listing_errors
from captioner.jobs.storage.filesystems import filesystem
from captioner.jobs.storage.look_ahead import take_ahead
from captioner.jobs.storage.uris import below, info_version, is_chain
from captioner.schemas.caption_table import Status

LISTERS = 8  # more would only wait for this process, which has to parse what they get
PAGES_AHEAD = 16
Pages = Callable[[str], Iterator[Page]]  # of a folder, "" or "a/b/"
File = tuple[str, Mapping[str, Any]]  # name below the root, and its info


def remote_records(url: str, selection: Selection) -> Records:
    """Yield the images of a selection below a remote folder.

    Raise UsageError if the folder cannot be listed, TemporaryError for transient failures.
    """
    with listing_errors(url):
        fs, root = filesystem(url)
        listers = LISTERS if fs.async_impl else 1
        for name, info in _files(_pages_of(fs, root, selection), selection, listers):
            uri = below(url, name)
            if (reason := unheld_name(name)) and is_chain(uri):
                selection.skipped[reason] += 1
            elif selection.accepts(name):
                yield uri, info_version(info)


def _pages_of(fs: Any, root: str, selection: Selection) -> Pages:
    if "s3" in fs.protocol:
        return s3_pages(fs, root, selection)
    if isinstance(fs, ZipArchive | TarArchive):
        return lambda _folder: archive_pages(fs, root, selection)
    return lambda folder: iter([_folder_page(fs, root, folder, selection)])


def _folder_page(fs: Any, root: str, folder: str, selection: Selection) -> Page:
    path = f"{root.rstrip('/')}/{folder}" if folder or "://" in root else root
    try:
        entries = fs.ls(path, detail=True)
    except Exception as error:
        if not folder or failure_status(error) not in (Status.NOT_FOUND, Status.DENIED):
            raise
        selection.skipped[UNREADABLE_FOLDERS] += 1
        return []
    fs.invalidate_cache(path)  # listings of all folders would stay in memory
    return sorted(_children(entries, folder, path), key=itemgetter(0))


def _children(entries: list[dict[str, Any]], folder: str, folder_path: str) -> Iterator[Entry]:
    """Yield what is directly in a folder, without its own entry: a marker, or a link to itself."""
    start = f"{folder_path.strip('/')}/".lstrip("/")
    for info in entries:
        path = info["name"].lstrip("/")
        name = path.removeprefix(start).rstrip("/")
        if path.startswith(start) and name not in ("", ".", "..") and "/" not in name:
            if info["type"] == "directory":
                yield f"{folder}{name}/", None
            elif not path.endswith("/"):
                yield folder + name, info


class _PrefetchedPages:
    """The pages of a folder, to be read once; a pool fetches up to PAGES_AHEAD of them ahead."""

    def __init__(self, pool: ThreadPoolExecutor, pages: Iterator[Page]) -> None:
        self._pool = pool
        self._pages = pages
        self._next = self._submit()

    def _submit(self) -> "Future[list[Page]]":
        return self._pool.submit(lambda: list(islice(self._pages, PAGES_AHEAD)))

    def __iter__(self) -> Iterator[Page]:
        while some := self._next.result():
            self._next = self._submit()
            yield from some


class _FolderFilter:
    """A filter of names in order, which asks the selection once about each folder they are in."""

    def __init__(self, folder: str, selection: Selection) -> None:
        self._selection = selection
        self._entered = folder
        self._refused: str | None = None

    def keeps(self, name: str) -> bool:
        folder = name[: name.rfind("/") + 1]
        if folder == self._entered:
            return True
        if self._refused and folder.startswith(self._refused):
            return False
        for path in accumulate(f"{part}/" for part in folder.split("/")[:-1]):
            if not self._entered.startswith(path) and not self._selection.enters(path.rstrip("/")):
                self._refused = path
                return False
        self._entered = folder
        return True


def _files(pages: Pages, selection: Selection, listers: int) -> Iterator[File]:
    """Yield all files below the root that are in folders the selection enters."""
    pool = ThreadPoolExecutor(listers, thread_name_prefix="listing")

    def prefetch(folder: str) -> _PrefetchedPages:
        return _PrefetchedPages(pool, pages(folder))

    def files(folder: str, fetched: _PrefetchedPages) -> Iterator[File]:
        keeps = _FolderFilter(folder, selection).keeps
        for page in fetched:
            entries = [entry for entry in page if keeps(entry[0])]
            folders = (name for name, info in entries if info is None)
            prefetched = take_ahead(map(prefetch, folders), LISTERS - 1)
            for name, info in entries:
                if info is None:
                    yield from files(name, next(prefetched))
                else:
                    yield name, info

    try:
        yield from files("", prefetch(""))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
