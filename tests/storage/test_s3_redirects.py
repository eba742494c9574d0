"""Redirects of a store: they are not followed to where its credentials do not belong."""

from collections.abc import Iterator

import pytest

from captioner.jobs.errors import FetchError, JobError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.filesystems import configure
from tests.support.odd_answers import answer, odd_server
from tests.support.servers import CREDENTIALS

HEADERS = {"ETag": '"1"', "Last_Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {**CREDENTIALS, "AWS_SESSION_TOKEN": "of-the-session"}.items():
        monkeypatch.setenv(name, value)
    yield
    configure({})


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_of_a_store_is_not_followed(status: str) -> None:
    elsewhere: list[str] = []

    def other(_path: str, head: str) -> Iterator[bytes]:
        elsewhere.append(head)
        yield answer(b"bytes", **HEADERS)

    with (
        odd_server(other) as to,
        odd_server(lambda path, _: [answer(b"", status, Location=f"{to}{path}")]) as endpoint,
    ):
        configure({"s3": {"endpoint_url": endpoint}})
        with pytest.raises(FetchError, match=f"{status}, a redirect that is not followed"):
            fetch("s3://bucket/a.jpg", 100)
        with pytest.raises(JobError, match=f"{status}, a redirect that is not followed"):
            open_source("s3://bucket/a/")
    assert not elsewhere


def test_the_region_of_a_bucket_that_a_store_names_is_tried() -> None:
    regions = []

    def regional(_path: str, head: str) -> Iterator[bytes]:
        region = "eu-north-1" if "/eu-north-1/s3/" in head else "us-east-1"
        regions.append(region)
        headers = {**HEADERS, "x_amz_bucket_region": "eu-north-1"}
        if region == "eu-north-1":
            yield answer(b"bytes", **headers)
        else:
            yield answer(b"", "301 Moved Permanently", **headers)

    with odd_server(regional) as endpoint:
        configure({"s3": {"endpoint_url": endpoint}})
        assert fetch("s3://bucket/a.jpg", 100) == b"bytes"
    assert regions == ["us-east-1", "eu-north-1"]
