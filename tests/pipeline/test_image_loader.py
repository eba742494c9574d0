"""Images that cannot be opened, and whose fault that is."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from captioner.errors import ImageError
from captioner.jobs.pipeline.image_loader import ImageLoader
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.attempts.hosts import host_of
from captioner.jobs.storage.filesystems import configure
from captioner.schemas.image_record import ImageRecord
from tests.support.odd_answers import answer, odd_server
from tests.support.servers import CREDENTIALS, S3Server


def values_of(uri: str, data: bytes) -> Any:
    def prepare(data: bytes) -> Any:
        raise ImageError(f"{len(data)} bytes are no image")

    reader: Any = SimpleNamespace(read=lambda _number: data)
    loader = ImageLoader([ImageRecord(uri, "1")], reader, prepare, lambda _: None, StageTimes())
    return loader.load(0).values


def test_an_object_that_is_shorter_than_its_list_says_was_not_fetched(s3: S3Server) -> None:
    bucket = s3.bucket({"a.jpg": bytes(100), "a.jpg2": bytes(50)})
    error = "the store sent 50 bytes, and lists 100"
    assert values_of(f"{bucket}/a.jpg", bytes(50)) == {"status": "fetch_failed", "error": error}
    assert values_of(f"{bucket}/a.jpg", bytes(100))["status"] == "unreadable"


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/a.jpg", "/a.jpg", "https://h/a.jpg"])
def test_others_are_unreadable(s3: S3Server, uri: str) -> None:
    assert values_of(uri, bytes(50))["status"] == "unreadable"


@pytest.mark.parametrize("answers_at_all", [True, False])
def test_a_bucket_that_gives_no_list_is_asked_once_and_not_more_than_it_bears(
    monkeypatch: pytest.MonkeyPatch, answers_at_all: bool
) -> None:
    over, asked = threading.Event(), []  # whether the request counted as one of its host

    def deny(_path: str, _head: str) -> Iterator[bytes]:
        host = host_of("s3://closed")
        assert host
        asked.append(host.is_asked)
        if not answers_at_all:
            over.wait(60)
        yield answer(b"<Error><Code>AccessDenied</Code></Error>", "403 Forbidden")

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with odd_server(deny) as url:
        configure({"s3": {"endpoint_url": url, "config_kwargs": {"read_timeout": 0.5}}})
        for number in range(3):
            assert values_of(f"s3://closed/{number}.jpg", bytes(50))["status"] == "unreadable"
        over.set()
    configure({})
    assert asked == [True]
