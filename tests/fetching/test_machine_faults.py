"""What the machine lacks that would fetch an image is no fault of the image."""

import errno
import os
import queue
import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest

from captioner.jobs.errors import FetchError, MachineFault, TemporaryError
from captioner.jobs.fetching import downloads as downloads_module
from captioner.jobs.fetching import fetch as fetch_module
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.fetching.downloads import Downloads
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage import containers
from captioner.jobs.storage.attempts import retry
from captioner.jobs.storage.attempts.hosts import host_of
from captioner.jobs.storage.failures import undamaged
from captioner.jobs.storage.filesystems import configure
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import ImageRecord, Member
from tests.support.odd_answers import answer, odd_server


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch, local_servers: None) -> Iterator[None]:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0))
    configure({})
    yield
    configure({})


def lack(code: int, path: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), path)


def failing(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


def downloaded(uri: str) -> FetchError:
    """Return why an image at a URL did not come."""
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    downloads = Downloads({0: uri}, 100)
    downloads.start(arrived.put, 1)
    with pytest.raises(FetchError) as caught:
        downloads.take(arrived.get(timeout=60))
    downloads.close()
    return caught.value


def in_a_store(error: OSError) -> OSError:
    outer = OSError("cannot connect")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fewer programs"),
        (errno.ENOSPC, "make room"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOMEM, "more memory"),
    ],
)
def test_what_a_machine_lacks_is_said_with_a_remedy_and_blames_no_host(
    monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    monkeypatch.setattr(fetch_module, "check_regular", failing(lack(code, "/photos/1.jpg")))
    with pytest.raises(MachineFault, match=remedy):
        fetch("/photos/1.jpg", 100)
    asked = []

    def read(*_: object) -> bytes:
        asked.append(1)
        raise in_a_store(lack(code))

    monkeypatch.setattr(downloads_module, "read_remote", read)
    found = downloaded("https://example.org/1.jpg")
    assert type(found) is MachineFault and remedy in str(found)
    host = host_of("https://example.org/1.jpg")
    assert host and host.trouble is None and len(asked) == 1


def test_an_image_for_which_no_thread_can_start_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("can't start new thread")
    monkeypatch.setattr(downloads_module, "read_remote", failing(error))
    found = downloaded("https://example.org/1.jpg")
    assert type(found) is MachineFault and "ulimit -u" in str(found)


def test_an_image_that_takes_too_much_memory_says_so_and_is_tried_alone_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "1.jpg").touch()
    monkeypatch.setattr(fetch_module, "_read_local", failing(MemoryError()))
    monkeypatch.setattr(downloads_module, "read_remote", failing(MemoryError()))
    with pytest.raises(FetchError, match="not enough memory") as caught:
        fetch(str(tmp_path / "1.jpg"), 100)
    for found in (caught.value, downloaded("https://example.org/1.jpg")):
        assert found.status == Status.OUT_OF_MEMORY
    with pytest.raises(MemoryError):
        undamaged(failing(pa.ArrowMemoryError("malloc of size 1")))


class _Full(BytesIO):
    def write(self, _data: object, /) -> int:
        raise lack(errno.EFBIG)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: _Full(), "ulimit -f"),
        (failing(FileNotFoundError(errno.ENOENT, "No usable temporary directory")), "temporary"),
    ],
)
def test_a_copy_of_a_container_that_cannot_be_made_blames_none_of_its_images(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object], why: str
) -> None:
    def whole(_path: str, head: str) -> Iterator[bytes]:
        sent = answer(bytes(5000))
        yield sent.removesuffix(bytes(5000)) if head.startswith("HEAD") else sent

    with odd_server(whole) as url:
        archive = f"{url}/x.tar"
        version = containers.container_version(archive)
        records = [
            ImageRecord(f"tar://{n}.jpg::{archive}", version, Member(archive, offset=512, size=9))
            for n in range(3)
        ]
        monkeypatch.setattr(tempfile, "TemporaryFile", make)
        with ImageReader(records, 100) as reader:
            for number in range(3):
                with pytest.raises(MachineFault, match=why):
                    reader.read(number)


def test_an_archive_for_which_files_are_lacking_gets_no_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("1.jpg"))
    (tmp_path / "x.zip").touch()
    monkeypatch.setattr(containers, "check_regular", failing(lack(errno.EMFILE)))
    monkeypatch.setattr("zipfile.ZipFile", failing(lack(errno.EMFILE)))
    for source in (f"{tmp_path}/x.tar", f"zip://**::{tmp_path}/x.zip"):
        with pytest.raises(TemporaryError, match="ulimit -n"):
            list(open_source(source).batches)


def test_a_name_that_is_not_found_for_want_of_open_files_may_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")  # says the C library
    monkeypatch.setattr(socket, "getaddrinfo", failing(unknown))
    url = "http://some.example/1.jpg"
    with pytest.raises(FetchError, match="no host has this name"):
        fetch(url, 100)
    os_open = os.open

    def none_left(path: str, *given: int) -> int:
        if path == os.devnull:
            raise lack(errno.EMFILE, path)
        return os_open(path, *given)

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(MachineFault, match="ulimit -n"):
        fetch(url, 100)
