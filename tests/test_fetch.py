import os
import socket
from pathlib import Path

import fsspec
import pytest

from jobs import fetch as fetch_module
from jobs.errors import FetchError
from jobs.fetch import fetch
from schemas.caption_table import Status

LIMIT = 1000


def status_of(uri: str) -> Status:
    with pytest.raises(FetchError) as caught:
        fetch(uri, LIMIT)
    assert str(caught.value)
    return caught.value.status


def test_a_local_file_is_its_bytes_by_path_and_by_file_url(tmp_path: Path) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(b"bytes")
    assert fetch(str(path), LIMIT) == b"bytes"
    assert fetch(path.as_uri(), LIMIT) == b"bytes"


def test_a_name_that_is_not_utf8_is_fetched_by_its_file_url(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"bytes")
    assert fetch(Path(os.fsdecode(path)).as_uri(), LIMIT) == b"bytes"


def test_missing_files_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("none.jpg", "file/below.jpg", "broken", "null\0byte"):
        assert status_of(str(tmp_path / name)) == Status.NOT_FOUND


def test_a_file_of_the_limit_is_read_and_a_larger_one_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * LIMIT)
    assert len(fetch(str(path), LIMIT)) == LIMIT
    path.write_bytes(b"x" * (LIMIT + 1))
    assert status_of(str(path)) == Status.TOO_LARGE


def test_what_is_no_file_fails_instead_of_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        for name in ("pipe.jpg", "socket.jpg", "."):
            assert status_of(str(tmp_path / name)) == Status.FETCH_FAILED


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionError(13, "no"), Status.DENIED),
        (TimeoutError("slow"), Status.TIMEOUT),
        (OSError(5, "disk"), Status.FETCH_FAILED),
        (RuntimeError("a store's own error"), Status.FETCH_FAILED),
    ],
)
def test_each_kind_of_failure_has_its_status(
    error: Exception, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(fsspec, "open", fail)
    monkeypatch.setattr(fetch_module, "RETRY_DELAYS", ())
    assert status_of("memory://bucket/a.jpg") == status


def test_a_store_that_nothing_can_open_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "RETRY_DELAYS", (1e9,))
    assert status_of("carrier-pigeon://bucket/a.jpg") == Status.FETCH_FAILED


def test_a_limit_beyond_all_memory_is_no_limit(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    assert fetch(str(tmp_path / "a.jpg"), 10**15) == b"bytes"


def test_a_url_is_read_through_fsspec() -> None:
    with fsspec.open("memory://bucket/a.jpg", "wb") as file:
        file.write(b"bytes")
    assert fetch("memory://bucket/a.jpg", LIMIT) == b"bytes"
    assert status_of("memory://bucket/none.jpg") == Status.NOT_FOUND


def test_passing_faults_of_a_remote_store_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [OSError("reset"), TimeoutError("slow")]
    opened = fsspec.open

    def flaky(uri: str, mode: str) -> object:
        if faults:
            raise faults.pop()
        return opened(uri, mode)

    with fsspec.open("memory://bucket/b.jpg", "wb") as file:
        file.write(b"bytes")
    monkeypatch.setattr(fsspec, "open", flaky)
    monkeypatch.setattr(fetch_module, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    assert fetch("memory://bucket/b.jpg", LIMIT) == b"bytes"
    assert not faults
