"""Parts of a file by HTTP, checked: a server may send others than it was asked for."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from captioner.jobs.errors import FetchError
from captioner.schemas.caption_table import Status

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)", re.IGNORECASE)


class NoParts(FetchError):
    """A server that only gives whole files: no other attempt would do better."""

    def __init__(self) -> None:
        text = "the server gives no parts of this file: save it here to use it"
        super().__init__(Status.FETCH_FAILED, text)


class FileChanged(FetchError):
    """A file that is not what it was when it was opened: no other attempt would do better."""

    def __init__(self) -> None:
        super().__init__(Status.FETCH_FAILED, "the file has changed while it was read")


class Parts:
    """The parts of an HTTP file of fsspec, all of one version if the server names versions."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._tag: str | None = None
        self._time: str | None = None  # when it was modified, as the server writes it

    async def fetch(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`, by as many requests as that takes.

        NoParts if they do not begin the file and the server sends all of it, FileChanged for those
        of another version, OSError for others.
        """
        data = bytearray()
        while start + len(data) < end:
            data += await self._some(start + len(data), end)
        return bytes(data)

    async def _some(self, start: int, end: int) -> bytearray:
        """Return what an answer brings of a part, at least one byte."""
        file = self._file
        headers = {**file.kwargs.get("headers", {}), "Range": f"bytes={start}-{end - 1}"}
        options = {**file.kwargs, "headers": headers}
        async with file.session.get(file.fs.encode_url(file.url), **options) as answer:
            answer.raise_for_status()
            if answer.status == HTTPStatus.PARTIAL_CONTENT:
                self._check(answer.headers, start)
            elif start:
                raise NoParts
            data = bytearray()
            while len(data) < end - start and (more := await answer.content.read(end - start)):
                data += more
        if not data:
            raise OSError(f"asked for bytes {start} to {end - 1}, the server sent none")
        return data[: end - start]

    def _check(self, headers: Mapping[str, str], start: int) -> None:
        """Raise OSError for another part than was asked for, FileChanged for another version."""
        sent = headers.get("Content-Range", "")
        found = _CONTENT_RANGE.match(sent)
        if not found or int(found[1]) != start:
            said = f"sent {sent}" if sent else "does not say which it sent"
            raise OSError(f"asked for bytes from {start} on, the server {said}")
        if found[2] not in ("*", str(self._file.size)) or self._is_other(headers):
            raise FileChanged

    def _is_other(self, headers: Mapping[str, str]) -> bool:
        """Return whether both tag and time have changed: servers of one file may tag it apart.

        Without tags, the time alone counts.
        """
        tag, time = headers.get("ETag", self._tag), headers.get("Last-Modified")
        self._tag = self._tag or tag
        self._time = self._time or time
        is_later = time is not None and time != self._time
        return is_later if tag is None else tag != self._tag and (time is None or is_later)
