"""Images that cannot be opened, and whose fault that is."""

from types import SimpleNamespace
from typing import Any

import pytest

from captioner.errors import ImageError
from captioner.jobs.pipeline.image_loader import ImageLoader
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.schemas.image_record import ImageRecord
from tests.support.servers import S3Server


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
