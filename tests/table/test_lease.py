"""On a store, one run at a time has OUT, and adds the parts that its workers hand in."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.paths import create, out_path
from captioner.jobs.table import lease as lease_module
from captioner.jobs.table.commit import commit, publish
from captioner.jobs.table.compact import compact
from captioner.jobs.table.exclusive_writer import only_writer
from captioner.jobs.table.fence import revoke
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.lease import Holder, Lease, check_lease, lease
from tests.support.commands import captioner, environment
from tests.support.stores import TABLE, keys, new_run, parts, rows


@pytest.fixture
def job(store_job: JobConfig) -> JobConfig:
    """Captions eight photographs into a store."""
    return store_job


# Who may write


def test_a_second_run_is_refused_and_told_who_has_it_and_until_when(
    job: JobConfig, url: str
) -> None:
    run = new_run(url)
    with lease(run.out.root, run.run_id):
        holder = rf"in use by run {run.run_id}, process {os.getpid()} on .*after \d\d:\d\d:\d\d UTC"
        with pytest.raises(TemporaryError, match=holder):
            run_job(job)
        done = captioner("run", job.source, "--out", url, "--checkpoint", job.checkpoint)
        assert done.returncode == 75
    assert run_job(job).images == 8


def test_a_compaction_and_a_run_take_turns(job: JobConfig, url: str) -> None:
    run_job(job)
    run = new_run(url)
    with lease(run.out.root, run.run_id), pytest.raises(TemporaryError, match="in use by run"):
        compact(url, quiet=True)
    with pytest.raises(UsageError, match="holds no caption table"):
        compact(f"{url}/nowhere", quiet=True)


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_free(url: str) -> None:
    code = (
        "import os; from captioner.jobs.storage.paths import out_path\n"
        "from captioner.jobs.table.lease import lease\n"
        f"with lease(out_path({url!r}), 'killed'): os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert process.returncode == -signal.SIGKILL
    with lease(out_path(url), "next"):
        assert lease_module._numbers(out_path(url)) == [2]


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_run_notices(
    url: str, short_lease: None
) -> None:
    former, run = new_run(url), new_run(url)
    commit(TABLE, former, "000000")
    with (
        lease(former.out.root, former.run_id),
        lease(run.out.root, run.run_id),
        pytest.raises(TemporaryError, match=f"taken over by run {run.run_id}"),
    ):
        publish(former, "000000")
    assert parts(run) == []


def test_a_run_that_was_taken_over_leaves_the_next_one_its_scratch(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.table.exclusive_writer._sigterm_interrupts", nullcontext)
    former, run = new_run(url), new_run(url)
    with ExitStack() as next_one:
        with only_writer(former):
            create(former.started_marker("a"))
            next_one.enter_context(only_writer(run))
            create(run.started_marker("b"))
        assert run.started_marker("b").exists() and not former.started_marker("a").exists()
    assert not run.started_marker("b").exists()


def test_a_lease_that_is_renewed_while_the_next_run_looks_on_is_not_free(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = out_path(url)
    with lease(out, "first"):
        (held,) = lease_module._held

        def renewed(_seconds: float) -> None:
            now = Holder.of_this_process("first")
            later = json.dumps(vars(now) | {"renewed_at": "2000-01-01T00:00:00+00:00"})
            held.path.write_text(later)

        monkeypatch.setattr(lease_module.time, "sleep", renewed)
        with pytest.raises(TemporaryError, match="in use by run first"), lease(out, "second"):
            pass


def test_a_run_renews_its_lease(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    out = out_path(url)
    written = []
    write = Lease.write
    monkeypatch.setattr(Lease, "write", lambda held, **k: written.append(k) or write(held, **k))
    with lease(out, "first"):
        while len(written) < 3:
            time.sleep(0.01)
    assert written[-1] == {"is_free": True}
    with lease(out, "second"):
        pass


@pytest.mark.parametrize(
    ("number", "message"),
    [(2, "another run has just begun"), (3, "taken over by run thief")],
    ids=["at once", "came and went"],
)
def test_a_run_that_others_forestall_while_it_takes_over_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    out = out_path(url)
    with lease(out, "first"):
        pass
    monkeypatch.setattr(lease_module, "_free_lease", lambda *_: steal(out, number))
    with pytest.raises(TemporaryError, match=message), lease(out, "second"):
        pass


def test_a_run_that_comes_back_while_it_is_taken_over_makes_the_next_one_give_way(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = out_path(url)
    with lease(out, "first"):
        (held,) = lease_module._held
        monkeypatch.setattr(
            lease_module, "_free_lease", lambda *_: Holder("first", 1, "h", "m", "")
        )
        with (
            pytest.raises(TemporaryError, match=r"in use by run first.* after all"),
            lease(out, "b"),
        ):
            pass
        with pytest.raises(TemporaryError, match="taken over by run b"):
            held.renew()
    monkeypatch.undo()
    with lease(out, "third"):
        pass


def steal(out: UPath, number: int) -> None:
    Lease(out, "thief", number).write()


def test_a_store_that_cannot_tell_two_runs_apart_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = out_path(url)
    monkeypatch.setattr(lease_module, "create", lambda path, content: path.write_bytes(content))
    with pytest.raises(UsageError, match="overwrites what it is to create"), lease(out, "first"):
        pass
    monkeypatch.undo()
    with lease(out, "first"):
        pass


def test_a_process_without_a_lease_has_nothing_to_lose(url: str) -> None:
    check_lease(out_path(url) / "captions")


# Parts that workers hand in


def test_a_part_that_a_worker_hands_in_is_in_the_table_when_the_driver_says_so(url: str) -> None:
    run = new_run(url)
    commit(TABLE, run, "000000")
    assert parts(run) == []
    publish(run, "000000")
    assert parts(run) == [f"{run.run_id}-000000.parquet"]
    publish(run, "000000")  # after a worker that only seemed dead
    assert len(parts(run)) == 1


def test_a_part_that_was_handed_in_cannot_be_revoked_but_others_can(url: str) -> None:
    run = new_run(url)
    commit(TABLE, run, "000000")
    assert not revoke(run, "000000")
    assert revoke(run, "000001")


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


def test_an_image_that_a_sleeping_driver_added_twice_has_one_row_after_the_next_run(
    job: JobConfig, url: str
) -> None:
    run_job(job)
    part = OutFolder(out_path(url)).table_files()[0]
    part.with_name(f"z{part.name}").write_bytes(part.read_bytes())
    assert len(pd.read_parquet(f"{url}/captions")) > 8
    run_job(job)
    assert len(rows(url)) == 8


def test_a_failure_while_a_part_is_put_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(url)

    def half(_writer: pq.ParquetWriter, _table: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captioner.jobs.table.commit.pq.ParquetWriter.write_table", half)
    with pytest.raises(OSError, match="No space left"):
        commit(TABLE, run, "000000")
    assert keys(url) == set()
