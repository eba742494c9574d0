"""Writes to a store that are carried out, although their answers are lost."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fsspec
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import TemporaryError
from captioner.jobs.execution.tasks.drawn import mark
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.storage.filesystems import configure
from captioner.options import CaptionerOptions
from tests.support.lossy import LossyProxy, lossy_proxy
from tests.support.photographs import write_photographs
from tests.support.servers import S3Server
from tests.support.stores import locked, new_run, rows


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyProxy]:
    """Yield a proxy before the store, which this process asks."""
    with lossy_proxy(s3_server.endpoint) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        configure({})
        yield server
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def out(s3_server: S3Server, proxy: LossyProxy) -> str:
    return f"{s3_server.bucket({})}/out"


def test_a_lock_is_ones_own_although_the_answer_was_lost(proxy: LossyProxy, out: str) -> None:
    proxy.chosen = lambda method, path: method == "PUT" and "/.lock/" in path
    with locked(new_run(out)):
        assert len(proxy.lost) == 1
        with pytest.raises(TemporaryError, match="in use by run"), ExitStack() as stack:
            stack.enter_context(locked(new_run(out)))
    with locked(new_run(out)):
        assert len(proxy.lost) == 2


def test_a_marker_is_ones_own_and_no_other_submission_gets_it(proxy: LossyProxy, out: str) -> None:
    proxy.chosen = lambda method, path: path.endswith(".started")
    task = Task(new_run(out), WorkerSettings(CaptionerOptions(), 1000), 0, 9, 0, 9)
    mark(task)
    assert proxy.lost
    with pytest.raises(FileExistsError):
        mark(task)


def test_a_run_commits_each_part_once_although_every_answer_to_a_write_is_lost(
    proxy: LossyProxy, out: str, tmp_path: Path, tiny_checkpoint: Path, one_worker: str
) -> None:
    write_photographs(tmp_path / "photos", 8)
    proxy.chosen = lambda method, path: method in ("PUT", "POST")
    job = JobConfig(
        source=tmp_path / "photos",
        out=out,
        checkpoint=tiny_checkpoint,
        scheduler=one_worker,
        batch_size=8,
        partition_size=3,
        quiet=True,
    )
    report = run_job(job)
    assert (report.exit_code, report.captioned, report.partitions) == (0, 8, 3)
    assert set(rows(out)) == {f"{number:03d}.jpg" for number in range(8)}
    lost = [path for method, path in proxy.lost if method == "PUT"]
    for kind in (".started", "/captions/", "/scratch/parts/", "/.lock/", "report.json"):
        assert any(kind in path for path in lost), kind
    assert run_job(job).planned == 0
