"""Containers on real stores: an S3 server, HTTP servers with and without ranges, zip archives."""

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage import containers
from captioner.jobs.storage.attempts import hosts, retry
from captioner.jobs.storage.containers import open_container
from captioner.schemas.image_record import ImageRecord, records_of
from tests.support.photographs import photograph
from tests.support.servers import POLL_SECONDS, HttpServer, S3Server
from tests.support.tables import read_table

pytestmark = pytest.mark.usefixtures("empty_memory")

PHOTOS = [photograph(number) for number in range(8)]


def tar(photos: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in photos.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file.getvalue()


def parquet(photos: list[bytes]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": photos}), file, row_group_size=2)
    return file.getvalue()


ARCHIVES = {
    "a/0.tar": tar({"0.jpg": PHOTOS[0], "1.jpg": PHOTOS[1]}),
    "a/b/1.tar.gz": tar({"2.jpg": PHOTOS[2], "3.jpg": PHOTOS[3]}, "w:gz"),
    "c/2.TAR": tar({"4.jpg": PHOTOS[4]}),
    "list.csv": b"image_uri\na.jpg\n",
    "README.txt": b"",
    "x.parquet": parquet(PHOTOS),
}
TABLES = {
    "0.parquet": parquet(PHOTOS[:3]),
    "1.parquet": parquet(PHOTOS[3:5]),
    "notes/0.parquet": parquet(PHOTOS),
}


Store = Callable[[dict[str, bytes]], tuple[str, str]]  # where the files are: before and behind `::`


@pytest.fixture(params=["local", "s3", "http", "memory", "zip"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, http_server: HttpServer
) -> Store:
    def write(folder: Path, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def fill(files: dict[str, bytes]) -> tuple[str, str]:
        if request.param == "local":
            write(tmp_path / "d", files)
            return str(tmp_path / "d"), ""
        if request.param == "s3":
            return s3.bucket({f"d/{name}": data for name, data in files.items()}) + "/d", ""
        if request.param == "http":
            write(http_server.folder / "d", files)
            return f"{http_server.url}/d", ""
        if request.param == "memory":
            for name, data in files.items():
                with fsspec.open(f"memory://d/{name}", "wb") as file:
                    file.write(data)
            return "memory://d", ""
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"d/{name}", data)
        return "zip://d", f"::{tmp_path}/x.zip"

    return fill


def listed(source: str) -> list[ImageRecord]:
    return records_of(pa.Table.from_batches(open_source(source).batches))


def contents(records: list[ImageRecord]) -> list[bytes]:
    with ImageReader(records, 10**6) as reader:
        return [reader.read(number) for number in range(len(records))]


def test_a_directory_of_archives_and_a_glob_of_them_are_the_same_everywhere(store: Store) -> None:
    folder, container = store(ARCHIVES)
    names = ["a/0.tar", "a/0.tar", "a/b/1.tar.gz", "a/b/1.tar.gz", "c/2.TAR"]
    expected = [
        f"tar://{number}.jpg::{folder}/{name}{container}" for number, name in enumerate(names)
    ]
    for pattern in ("", "/**", "/[ac]/**"):
        records = listed(f"{folder}{pattern}{container}")
        assert [record.uri for record in records] == expected, pattern
        assert contents(records) == PHOTOS[:5]
        assert contents(records[3:4]) == PHOTOS[3:4]
    source = open_source(folder + container)
    list(source.batches)
    assert source.skipped == {"manifests": 2, "without an image's extension: .txt": 1}
    (only,) = listed(f"{folder}/c/2.TAR{container}")
    assert contents([only]) == [PHOTOS[4]]


def test_parquet_files_of_images_are_the_same_everywhere(store: Store) -> None:
    folder, container = store(TABLES)
    expected = [
        *(f"{folder}/0.parquet{container}#row={n}" for n in range(3)),
        *(f"{folder}/1.parquet{container}#row={n}" for n in range(2)),
    ]
    for pattern in ("", "/*.parquet"):
        source = f"{folder}{pattern}{container}"
        records = listed(source)
        assert [record.uri for record in records] == expected
        assert contents(records) == PHOTOS[:5]
        scope = open_source(source).scope
        assert scope(f"{folder}/2.parquet{container}#row=7")
        assert not scope(f"{folder}/notes/0.parquet{container}#row=0")
    records = listed(f"{folder}/1.parquet{container}")
    assert contents(records[1:]) == PHOTOS[4:5]


def test_remote_parquet_files_in_key_value_folders_have_their_columns(s3: S3Server) -> None:
    bucket = s3.bucket({f"d/split={split}/0.parquet": parquet(PHOTOS[:2]) for split in "ab"})
    for source in (f"{bucket}/d", f"{bucket}/d/*/*.parquet"):
        plan = pa.Table.from_batches(open_source(source).batches)
        assert plan["split"].to_pylist() == ["a", "a", "b", "b"]
        assert contents(records_of(plan)) == PHOTOS[:2] * 2


def test_the_first_image_settles_that_archives_are_none(store: Store) -> None:
    folder, container = store(ARCHIVES | {"z.jpg": b"x"})
    for pattern in ("", "/**"):
        source = open_source(f"{folder}{pattern}{container}")
        (batch,) = source.batches
        assert batch["image_uri"].to_pylist() == [f"{folder}/z.jpg{container}"]
        assert source.skipped["archives beside images"] == 3


def test_the_scope_is_what_the_source_would_list(store: Store) -> None:
    folder, container = store(ARCHIVES)
    other = f"{folder}s/0.tar{container}"
    whole = open_source(folder + container).scope
    assert whole(f"tar://x.jpg::{folder}/a/9.tar{container}")
    assert whole(f"{folder}/a/9.tar{container}")
    outside = (f"tar://x.jpg::{other}", f"{folder}/x.jpg{container}", f"tar://x.jpg::{folder}/x")
    assert not any(map(whole, outside))
    some = open_source(f"{folder}/a/*.tar{container}").scope
    assert some(f"tar://x.jpg::{folder}/a/9.tar{container}")
    assert not some(f"tar://x.jpg::{folder}/c/9.tar{container}")
    one = open_source(f"{folder}/a/0.tar{container}").scope
    assert one(f"tar://x.jpg::{folder}/a/0.tar{container}")
    assert not one(f"tar://x.jpg::{folder}/a/9.tar{container}")
    rows = open_source(f"{folder}/x.parquet{container}").scope
    assert rows(f"{folder}/x.parquet{container}#row=99")
    assert not rows(f"{folder}/y.parquet{container}#row=99")


def test_of_a_damaged_archive_nothing_has_gone(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(ARCHIVES["a/0.tar"])
    (tmp_path / "b.tar").write_bytes(ARCHIVES["a/0.tar"][:2000])
    (tmp_path / "c.tar").symlink_to("nowhere")
    source = open_source(tmp_path)
    list(source.batches)
    in_scope = [source.scope(f"tar://x.jpg::{tmp_path}/{name}.tar") for name in "abc"]
    assert in_scope == [True, False, False]


def test_of_remote_parquet_files_the_images_are_not_read_to_list_them(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [{"bytes": os.urandom(200_000), "path": f"{n}.jpg"} for n in range(50)]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": images, "n": range(50)}), file, row_group_size=10)
    bucket = s3.bucket({"x.parquet": file.getvalue()})
    lengths = []
    fetch_range = s3fs.core.S3File._fetch_range

    def count(opened: s3fs.core.S3File, start: int, end: int) -> bytes:
        lengths.append(end - start)
        return fetch_range(opened, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", count)
    assert len(listed(f"{bucket}/x.parquet")) == 50
    assert sum(lengths) < len(file.getvalue()) / 4


# HTTP


@pytest.fixture
def public_url(s3: S3Server, local_servers: None) -> Callable[[dict[str, bytes]], str]:
    """Where a server that gives ranges has the files."""

    def fill(files: dict[str, bytes]) -> str:
        import s3fs

        bucket = s3.bucket(files).removeprefix("s3://")
        for name in files:
            s3fs.S3FileSystem(endpoint_url=s3.endpoint).call_s3(
                "put_object_acl", Bucket=bucket, Key=name, ACL="public-read"
            )
        return f"{s3.endpoint}/{bucket}"

    return fill


def test_an_http_server_that_gives_ranges_is_not_asked_for_whole_files(
    public_url: Callable[[dict[str, bytes]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = public_url({"x.tar": ARCHIVES["a/0.tar"], "x.parquet": parquet(PHOTOS)})
    monkeypatch.setattr(containers, "open_copy", lambda _: pytest.fail("copied"))
    records = listed(f"{url}/x.tar")
    assert contents(records) == PHOTOS[:2] and records[0].version
    assert contents(records[1:]) == PHOTOS[1:2]
    with open_container(f"{url}/x.parquet") as file:
        file.seek(4)
        assert file.read(9) == parquet(PHOTOS)[4:13]


class _Unsized(BaseHTTPRequestHandler):
    """Serves an archive without saying how long it is, and never a part of it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(ARCHIVES["a/0.tar"])

    do_HEAD = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


def test_an_http_server_that_says_nothing_of_a_file_is_read_from_the_beginning(
    local_servers: None,
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Unsized) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        records = listed(f"http://127.0.0.1:{server.server_port}/x.tar")
        assert [record.version for record in records] == [None, None]
        assert contents(records) == PHOTOS[:2]
        assert contents(records[1:]) == PHOTOS[1:2]
        server.shutdown()


def test_a_file_that_an_http_server_has_no_more_is_the_status_of_its_rows(
    http_server: HttpServer,
) -> None:
    path = http_server.folder / "x.tar"
    path.write_bytes(ARCHIVES["a/0.tar"])
    records = listed(f"{http_server.url}/x.tar")
    assert contents(records) == PHOTOS[:2]
    os.utime(path, (1, 1))
    with pytest.raises(FetchError, match="has changed since it was listed") as caught:
        contents(records)
    assert caught.value.status == "fetch_failed"
    path.unlink()
    with pytest.raises(FetchError) as caught:
        contents(records)
    assert caught.value.status == "not_found"


def test_the_images_of_a_container_whose_host_does_not_answer_are_at_no_fault(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (http_server.folder / "x.tar").write_bytes(ARCHIVES["a/0.tar"])
    records = listed(f"{http_server.url}/x.tar")
    gone = "http://127.0.0.1:9/x.tar"
    members = [replace(record.member, container=gone) for record in records if record.member]
    records = [replace(r, member=m) for r, m in zip(records, members, strict=True)]
    monkeypatch.setattr(retry, "FETCH_SECONDS", 0.2)
    hosts.forget_hosts()
    with ImageReader(records, 10**6) as reader:
        for number in range(2):
            with pytest.raises(HostDown, match="the connection was refused") as caught:
                reader.read(number)
            assert caught.value.host == "http://127.0.0.1:9"
    hosts.forget_hosts()


# Runs


def test_a_run_over_a_remote_directory_of_archives_is_redone_where_one_has_changed(
    tmp_path: Path, s3: S3Server, scheduler: str, tiny_checkpoint: Path
) -> None:
    bucket = s3.bucket({f"d/{n}.tar": tar({f"{n}.jpg": PHOTOS[n]}) for n in range(3)})
    options = {"s3": {**s3.options["s3"], "key": "nobody", "secret": "nothing"}}
    job = JobConfig(
        source=f"{bucket}/d",
        out=tmp_path / "out",
        checkpoint=tiny_checkpoint,
        scheduler=scheduler,
        storage_options=options,
        send_secrets=True,
        quiet=True,
    )
    assert run_job(job).statuses == {"ok": 3}
    assert run_job(job).planned == 0
    with fsspec.open(f"{bucket}/d/1.tar", "wb", **options["s3"]) as file:
        file.write(tar({"1.jpg": PHOTOS[5], "6.jpg": PHOTOS[6]}))
    report = run_job(replace(job, prune=True))
    assert (report.changed, report.new, report.already_there) == (1, 1, 2)
    assert (report.vanished, report.statuses) == (0, {"ok": 2})
    table = read_table(tmp_path / "out")
    assert table["image_uri"].to_pylist() == [
        f"tar://{name}.jpg::{bucket}/d/{archive}.tar"
        for name, archive in ((0, 0), (1, 1), (2, 2), (6, 1))
    ]
