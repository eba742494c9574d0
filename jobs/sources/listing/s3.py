"""The pages of an S3 bucket, by ListObjectsV2: 1000 names each, in the order of their bytes.

A prefix with few folders is listed folder by folder, several at the same time; one with many small
folders, or with none, from end to end. Throttling ("SlowDown") is retried by botocore four times,
and s3fs repeats that four times more, each time after a longer delay.
"""

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.sources.listing.filters import Selection

PAGE_KEYS = 1000  # the most that S3 gives
FEW_FOLDERS = 20  # in the first page of a prefix
MOST_AGAIN = 10  # times that a page may come again
MOST_EMPTY = 100_000  # pages in a row, as of deleted names: S3 looks at 1000 or more for each
Entry = tuple[str, Mapping[str, Any] | None]  # name below the root, and its info; None: a folder
Page = list[Entry]  # in the order of names, where a folder's ends with "/"


def s3_pages(fs: Any, root: str, selection: Selection) -> Callable[[str], Iterator[Page]]:
    """Return a function that yields the pages of a folder below `root` (bucket and prefix).

    Folders that the selection does not want at every depth are listed one by one.
    """
    bucket, prefix, _ = fs.split_path(root)
    if not bucket:
        raise UsageError("the bucket must be named, as in s3://BUCKET/**/*.jpg")
    top = f"{prefix}/" if prefix else ""

    def pages(folder: str) -> Iterator[Page]:
        prefix = top + (folder or selection.start)
        if selection.is_deep(folder.rstrip("/")):
            names = _pages(fs, bucket, top, prefix, delimiter="")
            first = next(names)
            if len(first) < PAGE_KEYS or not 0 < _folders(first, folder) <= FEW_FOLDERS:
                yield first
                yield from names
                return
        yield from _pages(fs, bucket, top, prefix, delimiter="/")

    return pages


def _folders(page: Page, folder: str) -> int:
    """Count the folders directly in this one that the names of a page are in."""
    names = (name[len(folder) :] for name, _ in page)
    return len({name.partition("/")[0] for name in names if "/" in name})


def is_folder(fs: Any, path: str) -> bool:
    """Return whether there is something below a path of any store, by one short request in S3."""
    if "s3" not in fs.protocol:
        return bool(fs.isdir(path))
    bucket, key, _ = fs.split_path(path)
    request = {"Bucket": bucket, "Prefix": f"{key}/", "MaxKeys": 1}
    try:
        return any(name.startswith(f"{key}/") for name in _names(_answer(fs, request)))
    except FileNotFoundError:  # the bucket
        return False


def _pages(fs: Any, bucket: str, top: str, prefix: str, delimiter: str) -> Iterator[Page]:
    """Yield pages of the names below a prefix, or with a delimiter of what is directly in it."""
    request = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": PAGE_KEYS}
    seen = _SeenPages()
    while True:
        answer = _answer(fs, request)
        names = [*_names(answer)]
        if not all(name.startswith(prefix) for name in names):
            raise _no_list(request, "the answer has names from elsewhere")
        yield sorted(_entries(answer, len(top)), key=itemgetter(0))
        if not answer.get("IsTruncated"):
            return
        token = answer["NextContinuationToken"]
        if seen.are_endless(names, token):
            raise _no_list(request, "no new names come, and the list does not end")
        request = {**request, "ContinuationToken": token}


class _SeenPages:
    """The pages of a list so far, which may have no order: one of them is kept to compare."""

    def __init__(self) -> None:
        self._count = self._empty = self._again = 0
        self._kept: list[str] = []

    def are_endless(self, names: list[str], token: str) -> bool:
        """Add a page; return whether the list goes in a circle, or has only empty pages."""
        page = names or [token]
        self._again += page == self._kept
        self._empty = 0 if names else self._empty + 1
        self._count += 1
        if self._count.bit_count() == 1:  # 1, 2, 4 ...: finds circles of any length (Brent)
            self._kept = page
        return self._again > MOST_AGAIN or self._empty > MOST_EMPTY


def _answer(fs: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an answer to a request for a list.

    TemporaryError for one that would end the list too early, or never, or that is none: botocore
    reads any XML or HTML as a list, which is then empty.
    """
    try:
        answer: Mapping[str, Any] = fs.call_s3("list_objects_v2", **request)
    except ValueError as error:  # such as a date that is none
        raise _no_list(request, str(error)) from error
    if "IsTruncated" not in answer and "Name" not in answer:
        raise _no_list(request, "the answer is no list of objects")
    if answer.get("IsTruncated") and not answer.get("NextContinuationToken"):
        raise _no_list(request, "the store does not say how its list goes on")
    return answer


def _names(answer: Mapping[str, Any]) -> Iterator[str]:
    yield from (each["Key"] for each in answer.get("Contents", ()))
    yield from (each["Prefix"] for each in answer.get("CommonPrefixes", ()))


def _no_list(request: Mapping[str, Any], why: str) -> TemporaryError:
    return TemporaryError(f"cannot list s3://{request['Bucket']}: {why}; try again later")


def _entries(answer: Mapping[str, Any], start: int) -> Iterator[Entry]:
    """Yield the objects and folders of an answer; an object named "a/" only marks a folder."""
    for found in answer.get("Contents", ()):
        if not found["Key"].endswith("/"):
            yield found["Key"][start:], {**found, "size": found["Size"]}
    for found in answer.get("CommonPrefixes", ()):
        yield found["Prefix"][start:], None
