"""The pages of a zip archive, from its index, which is in memory while the archive is open."""

from collections.abc import Iterator

from captioner.jobs.sources.archives.members import unsafe_file
from captioner.jobs.sources.listing.filters import Selection
from captioner.jobs.sources.listing.s3 import PAGE_KEYS, Entry, Page
from captioner.jobs.storage.zip_archive import ZipArchive, member_info


def zip_pages(fs: ZipArchive, root: str, selection: Selection) -> Iterator[Page]:
    """Yield the files below a folder, "" for all, in the order of names; count unsafe ones."""
    start = f"{root}/" if root else ""
    members = fs.zip.NameToInfo
    names = sorted(name for name in members if name.startswith(start) and not name.endswith("/"))
    for first in range(0, len(names), PAGE_KEYS):
        yield [*_entries(fs, names[first : first + PAGE_KEYS], len(start), selection)]


def _entries(fs: ZipArchive, names: list[str], start: int, selection: Selection) -> Iterator[Entry]:
    for name in names:
        info = member_info(fs.zip.getinfo(name))
        if reason := unsafe_file(info):
            selection.skipped[reason] += 1
        else:
            yield name[start:], info
