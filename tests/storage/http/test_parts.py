"""Parts of a file by HTTP: whatever a server sends, no bytes are taken for others."""

import re
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest

from captioner.jobs.errors import FetchError, TemporaryError
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.attempts import retry
from captioner.jobs.storage.containers import open_container
from tests.support.odd_answers import answer, odd_server

FILE = bytes(n % 251 for n in range(100_000))
Part = Callable[[int, int], bytes]  # from the first and last byte that are asked for


def sent(start: int, body: bytes, size: int = len(FILE), **headers: str) -> bytes:
    said = f"bytes {start}-{start + len(body) - 1}/{size}"
    return answer(body, "206 Partial Content", Content_Range=said, **{"ETag": '"1"', **headers})


def short(start: int, end: int) -> bytes:
    return sent(start, FILE[start : min(end + 1, start + 30_000)])


def long(start: int, _end: int) -> bytes:
    return sent(start, FILE[start:])


def other(start: int, end: int) -> bytes:
    return sent(0, FILE[: end - start + 1]) if start > 1 else sent(start, FILE[start : end + 1])


def unsaid(_start: int, end: int) -> bytes:
    return answer(FILE[: end + 1], "206 Partial Content")


def changed(start: int, end: int) -> bytes:
    return sent(start, FILE[start : end + 1], ETag=f'"{start // 50_000}"')


def tagged_apart(start: int, end: int) -> bytes:
    time = "Thu, 01 Oct 2026 10:00:00 GMT"
    return sent(start, FILE[start : end + 1], ETag=f'"{start // 50_000}"', Last_Modified=time)


def modified(start: int, end: int) -> bytes:
    hour = start // 50_000
    time = f"Thu, 01 Oct 2026 1{hour}:00:00 GMT"
    return sent(start, FILE[start : end + 1], ETag=f'"{hour}"', Last_Modified=time)


def untagged(start: int, end: int) -> bytes:
    said = f"bytes {start}-{end}/{len(FILE)}"
    time = f"Thu, 01 Oct 2026 1{start // 50_000}:00:00 GMT"
    return answer(
        FILE[start : end + 1], "206 Partial Content", Content_Range=said, Last_Modified=time
    )


def longer(start: int, end: int) -> bytes:
    size = len(FILE) + (start > 1)
    return sent(start, FILE[start : end + 1], size)


def missing(start: int, end: int) -> bytes:
    return short(start, end) if start < 50_000 else answer(b"", "416 No")


def nothing(start: int, end: int) -> bytes:
    return short(start, end) if start < 50_000 else sent(start, b"")


def whole(_start: int, _end: int) -> bytes:
    return answer(FILE)


@pytest.fixture
def read(local_servers: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Part], bytes]]:
    """A function that reads FILE in two parts from a server that gives parts in some way."""
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0,))
    gives: list[Part] = []

    def answers(_path: str, head: str) -> Iterator[bytes]:
        asked = re.search(r"Range: bytes=(\d+)-(\d+)", head)
        if head.startswith("HEAD"):
            yield answer(FILE).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        else:
            yield gives[0](int(asked[1]), int(asked[2])) if asked else answer(FILE)

    with odd_server(answers) as url:

        def read(part: Part) -> bytes:
            gives[:] = [part]
            with open_container(f"{url}/x.tar", read_ahead=1000) as file:
                first = file.read(60_000)
                return first + file.read(40_000)

        yield read


@pytest.mark.parametrize("part", [short, long, whole, tagged_apart])
def test_a_file_is_read_whole_whatever_parts_and_tags_a_server_sends(
    read: Callable[[Part], bytes], part: Part
) -> None:
    assert read(part) == FILE


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (other, "the server sent bytes 0-"),
        (unsaid, "does not say which it sent"),
        (changed, "has changed while it was read"),
        (modified, "has changed while it was read"),
        (untagged, "has changed while it was read"),
        (longer, "has changed while it was read"),
        (missing, "answered 416"),
        (nothing, "sent none"),
    ],
)
def test_other_bytes_than_were_asked_for_are_a_failure(
    read: Callable[[Part], bytes], part: Part, why: str
) -> None:
    with pytest.raises(FetchError, match=why) as caught:
        read(part)
    assert caught.value.status == "fetch_failed"


@pytest.mark.parametrize("part", [changed, longer])
def test_a_file_that_has_changed_is_not_asked_for_again(
    read: Callable[[Part], bytes], part: Part
) -> None:
    asked: list[int] = []

    def counted(start: int, end: int) -> bytes:
        asked.append(start)
        return part(start, end)

    with pytest.raises(FetchError):
        read(counted)
    assert asked.count(max(asked)) == 1


def test_an_archive_that_changes_while_it_is_listed_ends_the_run_for_now(
    local_servers: None,
) -> None:
    size = 10_000_000  # more than is read ahead
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("1.jpg", "2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, BytesIO(bytes(size)))
    data = archive.getvalue()

    def answers(_path: str, head: str) -> Iterator[bytes]:
        asked = re.search(r"Range: bytes=(\d+)-(\d+)", head)
        start, end = (int(asked[1]), int(asked[2])) if asked else (0, len(data))
        tag = f'"{start // size}"'
        body = sent(start, data[start : end + 1], len(data), ETag=tag) if asked else answer(data)
        yield body.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith("HEAD") else body

    with odd_server(answers) as url, pytest.raises(TemporaryError, match="has changed while"):
        list(open_source(f"{url}/x.tar").batches)
