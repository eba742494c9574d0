"""Answers that are compressed, though nobody asked for it."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO

import pytest

from captioner.jobs.errors import FetchError, TemporaryError
from captioner.jobs.fetching.fetch import PART, fetch
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.attempts import retry
from tests.support.odd_answers import answer, odd_server

BODY = bytes(range(256)) * 1000
HELD = b"ab" * (PART // 2 + 50)  # after a part, the unpacker holds the rest, and needs no input
PACKED = gzip.compress(BODY)
RAW = zlib.compress(BODY, wbits=-zlib.MAX_WBITS)


def fixed(body: bytes) -> bytes:
    """Return raw data of deflate whose blocks have no table of codes."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS, strategy=zlib.Z_FIXED)
    return packer.compress(body) + packer.flush()


ANSWERS = {
    "gzip": ("gzip", PACKED),
    "zlib": ("deflate", zlib.compress(BODY)),
    "raw": ("deflate", RAW),
    "stored": ("deflate", zlib.compress(BODY, 0, wbits=-zlib.MAX_WBITS)),
    "fixed": ("deflate", fixed(BODY)),
    "deflated-gzip": ("deflate", PACKED),
    "held": ("deflate", zlib.compress(HELD, wbits=-zlib.MAX_WBITS)),
    "raw-cut": ("deflate", RAW[:-20]),
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

    def packed(path: str, head: str) -> Iterator[bytes]:
        encoding, body = ANSWERS[path.strip("/").partition(".")[0]]
        sent = answer(body, Content_Encoding=encoding)
        yield sent.removesuffix(body) if head.startswith("HEAD") else sent

    with odd_server(packed) as url:
        yield url


@pytest.mark.parametrize(
    ("name", "body"),
    [
        *[(name, BODY) for name in ("gzip", "zlib", "raw", "stored", "fixed", "deflated-gzip")],
        *[("held", HELD), ("twice", 2 * BODY), ("empty", b""), ("name", BODY)],
    ],
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
        ("raw-cut", "ends too early"),
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


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_that_comes_only_whole_is_not_opened_for_a_member(url: str, kind: str) -> None:
    with pytest.raises(FetchError, match="gives no parts of this file: save it here to use it"):
        fetch(f"{kind}://1.jpg::{url}/gzip.{kind}", 10**6)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_file_that_is_compressed_itself_is_read_though_its_server_declares_that(
    url: str, encoding: str
) -> None:
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("1.jpg"))
    ANSWERS["list"] = (encoding, gzip.compress(b"image_uri\nhttps://example.org/1.jpg\n"))
    ANSWERS["archive"] = (encoding, archive.getvalue())
    rows = {
        name: [
            row["image_uri"]
            for batch in open_source(f"{url}/{name}").batches
            for row in batch.to_pylist()
        ]
        for name in ("list.csv.gz", "archive.tar.gz", "archive.tgz")
    }
    assert rows["list.csv.gz"] == ["https://example.org/1.jpg"]
    assert rows["archive.tar.gz"] == [f"tar://1.jpg::{url}/archive.tar.gz"]
    assert rows["archive.tgz"] == [f"tar://1.jpg::{url}/archive.tgz"]
