"""Answers that are compressed, though nobody asked for it."""

import gzip
import zlib
from collections.abc import Iterator

import pytest

from captioner.jobs.errors import FetchError, TemporaryError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.attempts import retry
from tests.support.odd_answers import answer, odd_server

BODY = bytes(range(256)) * 1000
PACKED = gzip.compress(BODY)
ANSWERS = {
    "gzip": ("gzip", PACKED),
    "zlib": ("deflate", zlib.compress(BODY)),
    "twice": ("gzip", PACKED + PACKED),
    "empty": ("gzip", b""),
    "cut": ("gzip", PACKED[:-20]),
    "cut-checksum": ("gzip", PACKED[:-4]),
    "none": ("gzip", BODY),
    "br": ("br", BODY),
    "both": ("gzip, gzip", gzip.compress(PACKED)),
    "name": ("utf-8", BODY),
}


@pytest.fixture
def url(local_servers: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0,))

    def packed(path: str, _head: str) -> Iterator[bytes]:
        encoding, body = ANSWERS[path.strip("/").partition(".")[0]]
        yield answer(body, Content_Encoding=encoding)

    with odd_server(packed) as url:
        yield url


@pytest.mark.parametrize(
    ("name", "body"),
    [("gzip", BODY), ("zlib", BODY), ("twice", 2 * BODY), ("empty", b""), ("name", BODY)],
)
def test_a_compressed_answer_is_unpacked(url: str, name: str, body: bytes) -> None:
    assert fetch(f"{url}/{name}.jpg", 10**6) == body
    if body:
        with pytest.raises(FetchError, match="more than 1000 bytes"):
            fetch(f"{url}/{name}.jpg", 1000)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cut", "ends too early"),
        ("cut-checksum", "ends too early"),
        ("none", "not compressed by gzip as it says"),
        ("br", "compressed by br, which was not asked for"),
        ("both", "compressed by gzip, gzip, which was not asked for"),
    ],
)
def test_one_that_cannot_be_unpacked_is_no_image(url: str, name: str, why: str) -> None:
    with pytest.raises(FetchError, match=why) as caught:
        fetch(f"{url}/{name}.jpg", 10**6)
    assert caught.value.status == "fetch_failed"


def test_a_compressed_manifest_that_is_cut_ends_the_run(url: str) -> None:
    rows = "image_uri\n" + "\n".join(f"https://example.org/{n}.jpg" for n in range(10_000))
    ANSWERS["list"] = ("gzip", gzip.compress(rows.encode())[:-20])
    with pytest.raises(TemporaryError, match="ends too early"):
        list(open_source(f"{url}/list.csv").batches)
