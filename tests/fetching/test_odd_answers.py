"""Answers of servers that no rule of HTTP allows, and other odd ones: each has a clear text."""

from collections.abc import Iterator

import pytest

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.attempts import retry
from captioner.jobs.storage.filesystems import configure
from captioner.schemas.caption_table import Status
from tests.support.odd_answers import answer, odd_server
from tests.support.servers import CREDENTIALS

OLD = "the answer is not HTTP"
AGAIN = "the server redirects again and again"
NO_URL = "the server redirects to what is no valid URL of HTTP"
NO_REDIRECT = "the server answered 302 Found, a redirect that is not followed"


def moved(to: str) -> bytes:
    return answer(b"", "302 Found", Location=to)


ANSWERS = {
    "/bytes": (b"\xff\xd8\xff\xe0bytes\r\n\r\n", Status.FETCH_FAILED, OLD),
    "/http2": (answer(b"").replace(b"/1.1", b"/2"), Status.FETCH_FAILED, OLD),
    "/negative": (answer(b"").replace(b": 0", b": -5"), Status.FETCH_FAILED, OLD),
    "/999": (answer(b"", "999 Denied"), Status.FETCH_FAILED, "the server answered 999"),
    "/itself": (moved("/itself"), Status.FETCH_FAILED, AGAIN),
    "/file": (moved("file:///etc/passwd"), Status.REFUSED, NO_URL),
    "/half": (moved("http://[::1"), Status.FETCH_FAILED, NO_URL),
    "/port": (moved("http://127.0.0.1:99999/"), Status.FETCH_FAILED, NO_URL),
    "/nowhere": (moved(""), Status.FETCH_FAILED, NO_REDIRECT),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    def answers(path: str, _head: str) -> Iterator[bytes]:
        yield ANSWERS[path][0]
        yield b""

    with odd_server(answers) as url:
        yield url


@pytest.mark.parametrize("path", ANSWERS)
def test_an_odd_answer_is_named(
    local_servers: None, url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0,))
    configure({})  # else the host is soon taken for down
    _, status, text = ANSWERS[path]
    with pytest.raises(FetchError) as caught:
        fetch(f"{url}{path}", 100)
    assert (caught.value.status, str(caught.value)) == (status, text)


@pytest.mark.parametrize(
    ("uri", "what"),
    [("s3://a b/1.jpg", "bucket"), ("s3://UPPER!/1.jpg", "bucket"), ("s3://bucket/", "object")],
)
def test_a_name_that_s3_cannot_have_is_named(
    monkeypatch: pytest.MonkeyPatch, uri: str, what: str
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    configure({"s3": {"endpoint_url": "http://127.0.0.1:9"}})  # which is not asked
    with pytest.raises(FetchError, match=f"no {what} of S3 can have this name") as caught:
        fetch(uri, 100)
    assert caught.value.status is Status.NOT_FOUND
    configure({})
