"""Parts that workers stage on a store, and that the driver publishes."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.commits.commit import commit, parts_of
from captioner.jobs.table.layout import OutFolder
from tests.support.stores import TABLE, keys, locked, new_run, parts, rows


@pytest.fixture
def job(store_job: JobConfig) -> JobConfig:
    """Return a job that captions eight photographs into a store."""
    return store_job


def test_a_staged_part_is_in_the_table_once_the_driver_publishes_it(url: str) -> None:
    run = new_run(url)
    commit(TABLE, run, "000000")
    assert parts(run) == []
    with locked(run) as lock:
        parts_of(run).publish("000000", lock)
        assert parts(run) == [f"{run.run_id}-000000.parquet"]
        parts_of(run).publish("000000", lock)  # after a worker that only seemed dead
        assert len(parts(run)) == 1


def test_a_staged_part_cannot_be_revoked_but_others_can(url: str) -> None:
    run = new_run(url)
    commit(TABLE, run, "000000")
    assert not parts_of(run).revoke("000000")
    assert parts_of(run).revoke("000001")


def test_a_worker_that_outlives_its_run_adds_nothing(job: JobConfig, url: str) -> None:
    former = new_run(url)
    run_job(job)
    before = keys(url)
    commit(TABLE, former, "000000")
    commit(TABLE, former, "000001", replaces=True)
    assert len(rows(url)) == 8
    report = run_job(job)
    assert (report.planned, report.already_there, report.vanished) == (0, 8, 0)
    assert {key for key in keys(url) if report.run_id not in key} == before


def test_the_next_run_removes_rows_that_a_sleeping_driver_added_twice(
    job: JobConfig, url: str
) -> None:
    run_job(job)
    part = OutFolder(out_path(url)).table_files()[0]
    part.with_name(f"z{part.name}").write_bytes(part.read_bytes())
    assert len(pd.read_parquet(f"{url}/captions")) > 8
    run_job(job)
    assert len(rows(url)) == 8


def test_a_failed_upload_of_a_part_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(url)

    def half(_writer: pq.ParquetWriter, _table: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captioner.jobs.table.commits.commit.pq.ParquetWriter.write_table", half)
    with pytest.raises(OSError, match="No space left"):
        commit(TABLE, run, "000000")
    assert keys(url) == set()
