"""Storage options reach every process and nothing else; messages of stores name no secret."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fsspec.config import conf

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.failures import reason
from captioner.jobs.storage.filesystems import configure, filesystem
from tests.support.commands import captioner
from tests.support.photographs import photograph
from tests.support.servers import CREDENTIALS, POLL_SECONDS, S3Server
from tests.support.stores import write_s3_job
from tests.support.tables import read_table

SECRET = "hush-hush"


@pytest.fixture(autouse=True)
def no_options() -> Iterator[None]:
    yield
    configure({})


def test_options_are_those_of_the_last_job_and_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"s3": {"anon": True}, "gs": {"token": "x"}}
    for protocol, table in own.items():
        monkeypatch.setitem(conf, protocol, table)
    configure({"s3": {"key": "one"}, "http": {"a": 1}})
    filesystem("https://example.org/1.jpg")  # which needs options of ours
    configure({"s3": {"secret": "two"}})
    assert conf == {**own, "s3": {"anon": True, "secret": "two"}}
    conf["az"] = {"account_name": "of a program that runs jobs"}
    configure({})
    assert conf == {**own, "az": {"account_name": "of a program that runs jobs"}}
    del conf["az"]


def test_messages_of_stores_are_shown_without_the_options() -> None:
    configure({"s3": {"key": SECRET, "client_kwargs": {"headers": [{"x": "long-token"}]}}})
    error = ValueError(f"bad {SECRET} and long-token")
    assert reason(error) == "ValueError: bad *** and ***"
    assert reason(OSError(5, SECRET)) == "***"


def test_an_unknown_option_is_an_error_without_its_value() -> None:
    configure({"memory": {"fo": SECRET}, "s3": {"endpoint_url": SECRET, "key": "k", "secret": "s"}})
    with pytest.raises((UsageError, TemporaryError), match=r"cannot list s3://bucket") as caught:
        open_source("s3://bucket/**")
    assert SECRET not in str(caught.value)


def test_a_job_on_s3_takes_its_options_from_the_job_file_and_writes_them_nowhere(
    s3_server: S3Server, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.bucket({f"a b/{n}.jpg": photograph(n) for n in range(5)} | {"n.md": b""})
    s3_server.bucket({})
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = {"source": bucket, "out": tmp_path / "out", "checkpoint": tiny_checkpoint}
    job = write_s3_job(tmp_path / "job.toml", s3_server, SECRET, **settings)
    done = captioner("run", "--config", job, "--workers", 2, "--partition-size", 2)
    assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "out").to_pylist()
    assert [row["image_uri"] for row in rows] == [f"{bucket}/a b/{n}.jpg" for n in range(5)]
    assert all(row["status"] == "ok" and len(row["image_version"]) == 32 for row in rows)
    assert "listing" not in done.stderr  # which is no terminal

    job.write_text(job.read_text().replace('"us-east-1"', '"us-east-1", no_such = 1'))
    failed = captioner("run", "--config", job)
    assert failed.returncode in (2, 75), failed.stderr
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for text in (
        *written,
        *(out.encode() for run in (done, failed) for out in (run.stdout, run.stderr)),
    ):
        assert SECRET.encode() not in text
        assert s3_server.endpoint.encode() not in text


@pytest.mark.parametrize("protocol", ["http", "https"])
def test_a_file_system_has_the_options_of_its_protocol(protocol: str) -> None:
    configure({protocol: {"client_kwargs": {"trust_env": True}}})
    fs, _ = filesystem("https://host/a.jpg")
    assert fs.client_kwargs["trust_env"]
    assert fs.client_kwargs["timeout"].sock_read


ONE_PAGE = b"""<?xml version="1.0"?>
<ListBucketResult><IsTruncated>false</IsTruncated>
<Contents><Key>a.jpg</Key><Size>1</Size><ETag>"e"</ETag></Contents></ListBucketResult>"""
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


def test_throttling_of_a_listing_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    throttled = [1, 1]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if throttled else 200)
            body = SLOW_DOWN if throttled and throttled.pop() else ONE_PAGE
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        configure({"s3": {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}})
        (batch,) = open_source("s3://bucket/").batches
        server.shutdown()
    assert batch.to_pylist() == [{"image_uri": "s3://bucket/a.jpg", "image_version": "e"}]
    assert not throttled


def test_a_program_that_used_s3_before_has_our_file_system_for_it_and_keeps_that_for_zip() -> None:
    code = (
        "from fsspec import get_filesystem_class as found; zip = found('zip'); found('s3'); "
        "import captioner.jobs.run; assert found('zip') is zip; "
        "print([found(each).__name__ for each in ('s3', 's3a')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['S3Store', 'S3Store']\n"


def test_an_archive_whose_index_is_not_bounded_is_not_supported() -> None:
    with pytest.raises(UsageError, match="libarchive:// is not supported: give zip or tar"):
        open_source("libarchive://**::/photos/x.7z")


def test_a_local_job_imports_no_package_of_a_store() -> None:
    code = (
        "import sys, captioner.jobs.run, captioner.jobs.execution.worker.worker; "
        "print({'s3fs', 'aiohttp', 'botocore', 'torch', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
