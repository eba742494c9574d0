"""Manifests by URL: every format on every store, and damaged ones."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage import filesystems
from tests.support.files import read, uris, write_memory, write_tree, write_zip
from tests.support.odd_answers import answer, odd_server
from tests.support.servers import POLL_SECONDS, HttpServer, S3Server

pytestmark = pytest.mark.usefixtures("empty_memory")


def manifests(start: str) -> dict[str, bytes]:
    """Return a manifest of each format; all list the same two images and a column `id`."""
    names = ["a.jpg", "../b c.jpg"]
    table = pa.table({"image_uri": names, "id": ["1", "2"]})
    csv = "image_uri,id\n" + "".join(f"{name},{n}\n" for n, name in enumerate(names, 1))
    rows = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    kinds = {"csv": csv, "tsv": csv.replace(",", "\t"), "jsonl": rows, "ndjson": rows}
    return {
        **{f"{start}{kind}/list.{kind}": text.encode() for kind, text in kinds.items()},
        **{
            f"{start}{kind}gz/list.{kind}.gz": gzip.compress(t.encode())
            for kind, t in kinds.items()
        },
        f"{start}txt/list.txt": "\n".join(names).encode(),
        f"{start}parquet/list.parquet": sink.getvalue().to_pybytes(),
    }


@pytest.mark.parametrize("store", ["s3", "http", "zip", "memory"])
def test_manifests_of_every_kind_are_read_from_every_store(
    tmp_path: Path, s3: S3Server, http_server: HttpServer, store: str
) -> None:
    files = manifests("m/")
    container = ""
    if store == "s3":
        top = s3.bucket(files)
    elif store == "http":
        top, _ = http_server.url, write_tree(http_server.folder, files)
    elif store == "zip":
        top, container = "zip:/", f"::{write_zip(tmp_path / 'x.zip', files)}"
    else:
        top, _ = "memory:/", write_memory({f"/{name}": data for name, data in files.items()})
    for name in files:
        folder = f"{top}/{name.rpartition('/')[0]}"
        for source in (f"{top}/{name}{container}", f"{folder}{container}"):
            (batch,) = open_source(source).batches
            expected = [f"{folder}/a.jpg{container}", f"{top}/m/b c.jpg{container}"]
            assert batch["image_uri"].to_pylist() == expected, source
            assert batch["image_version"].to_pylist() == [None, None]
            assert name.startswith("m/txt") or batch["id"].to_pylist() == ["1", "2"]


def test_remote_manifests_in_key_value_folders_have_their_columns(s3: S3Server) -> None:
    bucket = s3.bucket({"d/year=2024/a.csv": b"image_uri\na.jpg\n", "d/.hidden": b""})
    source = open_source(f"{bucket}/d")
    (batch,) = source.batches
    assert batch.to_pylist() == [
        {
            "image_uri": f"{bucket}/d/a.jpg",
            "image_version": None,
            "image_access": None,
            "year": "2024",
        }
    ]
    assert source.skipped == {"hidden": 1}


def test_the_query_of_a_manifest_url_names_no_folder(http_server: HttpServer) -> None:
    (http_server.folder / "list.csv").write_text("image_uri\na.jpg\n")
    source = open_source(f"{http_server.url}/list.csv?credential=key/2024&signature=a/b")
    assert source.schema.names == ["image_uri", "image_version", "image_access"]
    assert [uri for uri, _ in read(source)] == [f"{http_server.url}/a.jpg"]


def test_absolute_names_in_a_remote_manifest_stay_as_they_are(s3: S3Server) -> None:
    text = "/x.jpg\nhttps://host/a?b=1\nzip://a.jpg::x.zip\nzip://a.jpg::/x.zip\n"
    bucket = s3.bucket({"d/list.txt": text.encode()})
    assert uris(f"{bucket}/d/list.txt") == [
        *("/x.jpg", "https://host/a?b=1", f"zip://a.jpg::{bucket}/d/x.zip", "zip://a.jpg::/x.zip")
    ]


def test_a_damaged_remote_manifest_is_an_error_that_says_where(s3: S3Server) -> None:
    damaged = gzip.compress(b"image_uri\na.jpg\n")[:-9]
    bucket = s3.bucket({"a.csv.gz": damaged, "b.csv.gz": b"", "c.parquet": b"PAR1"})
    for name in ("a.csv.gz", "b.csv.gz", "c.parquet"):
        with pytest.raises(UsageError, match=rf"cannot read {bucket}/{name}"):
            uris(f"{bucket}/{name}")


class _BreaksOff(BaseHTTPRequestHandler):
    """A server of manifests that end before their Content-Length."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b'{"image_uri": "a.jpg"}\n')

    do_HEAD = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.mark.parametrize("name", ["list.csv", "list.txt.gz", "list.jsonl", "list.parquet"])
def test_a_manifest_that_breaks_off_is_a_temporary_error(
    local_servers: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("captioner.jobs.storage.attempts.retry.RETRY_DELAYS", ())
    with ThreadingHTTPServer(("127.0.0.1", 0), _BreaksOff) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        with pytest.raises(TemporaryError, match=rf"cannot read {url}: "):
            uris(url)
        server.shutdown()


def test_a_manifest_that_trickles_in_is_a_temporary_error(
    local_servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "COPY_SECONDS", 0.3)

    def trickle(_path: str, head: str) -> Iterator[bytes]:
        yield answer(bytes(100)).replace(b": 100", b": 1000000")[:-100]
        while not head.startswith("HEAD"):
            yield b"a"
            time.sleep(0.02)

    with (
        odd_server(trickle) as url,
        pytest.raises(TemporaryError, match="the answer came too slowly"),
    ):
        uris(f"{url}/list.txt")
