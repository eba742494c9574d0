"""A job over a list of signed URLs, some of which nobody may ask: no signature is in its output."""

from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest

from captioner.jobs.config.job import JobConfig
from captioner.jobs.run import run_job
from tests.support.photographs import photograph
from tests.support.tables import read_table

SIGNATURE = "5ecre7"


class _Signed(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        status = 403 if f"sig={SIGNATURE}" not in query else 404 if "none" in path else 200
        body = photograph(len(path)) if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Signed) as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


def content(path: Path) -> str:
    """Return what a file says, whether it is compressed or not."""
    if path.suffix == ".parquet":
        return str((pq.read_table(path).to_pydict(), pq.read_metadata(path).metadata))
    return path.read_bytes().decode("latin-1")


def test_a_signature_is_used_and_shown_nowhere(
    job: JobConfig, server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    signed = [f"http://{server}/{name}.jpg?id=1&sig={SIGNATURE}" for name in ("a", "bb", "none")]
    inside = server.replace("127.0.0.1", "localhost")
    refused = [f"http://{inside}/a.jpg?sig={SIGNATURE}", "sftp://host/a.jpg"]
    (tmp_path / "list.txt").write_text("\n".join([*signed, *refused]))
    job = replace(job, source=tmp_path / "list.txt", allow_host=["127.0.0.1"], quiet=False)
    report = run_job(job)
    assert report.statuses == {"ok": 2, "not_found": 1, "refused": 2}

    table = read_table(tmp_path / "out")
    keys = [f"http://{server}/{name}.jpg?id=1" for name in ("a", "bb", "none")]
    assert table["image_uri"].to_pylist() == [*keys, f"http://{inside}/a.jpg", refused[1]]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    texts = [*map(content, files), *capfd.readouterr()]
    assert not [text for text in texts if SIGNATURE in text]

    new = SIGNATURE[::-1]
    (tmp_path / "list.txt").write_text("\n".join([*signed, *refused]).replace(SIGNATURE, new))
    again = run_job(job)
    assert (again.planned, again.already_there, again.vanished) == (0, 5, 0)
