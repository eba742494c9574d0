"""The pages of an archive, from its index, which is in memory while the archive is open."""

from collections.abc import Iterator
from itertools import islice

from captioner.jobs.sources.archives.members import unsafe_file, warn_of_cut
from captioner.jobs.sources.listing.filters import Selection
from captioner.jobs.sources.listing.s3 import PAGE_KEYS, Entry, Page
from captioner.jobs.storage.archives.tar_archive import TarArchive
from captioner.jobs.storage.archives.zip_archive import ZipArchive
from captioner.jobs.storage.signatures import without_signature


def archive_pages(fs: ZipArchive | TarArchive, root: str, selection: Selection) -> Iterator[Page]:
    """Yield the files below a folder, "" for all, in the order of names; count unsafe ones."""
    if isinstance(fs, TarArchive) and fs.cut:
        warn_of_cut([without_signature(fs.archive)])
    entries = _entries(fs, root, selection)
    while page := [*islice(entries, PAGE_KEYS)]:
        yield page


def _entries(fs: ZipArchive | TarArchive, root: str, selection: Selection) -> Iterator[Entry]:
    start = len(root) + 1 if root else 0
    for name, info in fs.entries(root):
        if reason := unsafe_file(info):
            selection.skipped[reason] += 1
        else:
            yield name[start:], info
