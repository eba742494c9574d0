"""The lease of OUT on a store: one run at a time has it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from upath import UPath

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.backends import holder as holder_module
from captioner.jobs.storage.backends import lease as lease_module
from captioner.jobs.storage.backends.holder import Holder
from captioner.jobs.storage.backends.lease import Lease, lease
from captioner.jobs.storage.backends.object_store import ObjectStore
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.commits.commit import commit, parts_of
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from tests.support.commands import captioner, environment
from tests.support.stores import TABLE, locked, new_run, parts


@pytest.fixture
def job(store_job: JobConfig) -> JobConfig:
    """Captions eight photographs into a store."""
    return store_job


def test_a_second_run_is_refused_and_told_who_has_it_and_until_when(
    job: JobConfig, url: str
) -> None:
    run = new_run(url)
    with locked(run):
        holder = rf"in use by run {run.run_id}, process {os.getpid()} on .*after \d\d:\d\d:\d\d UTC"
        with pytest.raises(TemporaryError, match=holder):
            run_job(job)
        done = captioner("run", job.source, "--out", url, "--checkpoint", job.checkpoint)
        assert done.returncode == 75
    assert run_job(job).images == 8


def test_a_compaction_and_a_run_take_turns(job: JobConfig, url: str) -> None:
    run_job(job)
    run = new_run(url)
    with locked(run), pytest.raises(TemporaryError, match="in use by run"):
        compact(url, quiet=True)
    with pytest.raises(UsageError, match="holds no caption table"):
        compact(f"{url}/nowhere", quiet=True)


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_free(url: str) -> None:
    code = (
        "import os\n"
        "from tests.support.stores import locked, new_run\n"
        f"with locked(new_run({url!r})): os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert process.returncode == -signal.SIGKILL
    run = new_run(url)
    with locked(run):
        assert lease_module._numbers(ObjectStore(), run.out.lock) == [2]


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_run_notices(
    url: str, short_lease: None
) -> None:
    former, run = new_run(url), new_run(url)
    commit(TABLE, former, "000000")
    with (
        locked(former) as lock,
        locked(run),
        pytest.raises(TemporaryError, match=f"taken over by run {run.run_id}"),
    ):
        parts_of(former).publish("000000", lock)
    assert parts(run) == []


def test_a_run_that_was_taken_over_leaves_the_next_one_its_scratch(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.table.exclusive_writer.sigterm_interrupts", nullcontext)
    former, run = new_run(url), new_run(url)
    with ExitStack() as next_one:
        with exclusive_writer(former):
            former.storage.create(former.started_marker("a"))
            next_one.enter_context(exclusive_writer(run))
            run.storage.create(run.started_marker("b"))
        assert run.storage.exists(run.started_marker("b")) and not former.storage.exists(
            former.started_marker("a")
        )
    assert not run.storage.exists(run.started_marker("b"))


def test_a_lease_that_is_renewed_while_the_next_run_looks_on_is_not_free(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, out = OutFolder(out_path(url)).lock, out_path(url)
    with lease(ObjectStore(), lock, out, "first") as held:

        def renewed(_seconds: float) -> None:
            now = Holder.of_this_process("first")
            later = json.dumps(vars(now) | {"renewed_at": "2000-01-01T00:00:00+00:00"})
            held.path.write_text(later)

        monkeypatch.setattr(lease_module.time, "sleep", renewed)
        with (
            pytest.raises(TemporaryError, match="in use by run first"),
            lease(ObjectStore(), lock, out, "second"),
        ):
            pass


def test_a_lease_of_a_clock_that_was_a_day_ahead_is_watched_for_as_long_as_any_lease_holds(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder_module, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(holder_module, "WATCH_SECONDS", 0.1)
    lock, out = OutFolder(out_path(url)).lock, out_path(url)
    with lease(ObjectStore(), lock, out, "first") as held:
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        lost = vars(Holder.of_this_process("first")) | {
            "machine": "another",
            "renewed_at": tomorrow,
        }
        held.path.write_text(json.dumps(lost))
        began = time.monotonic()
        with lease(ObjectStore(), lock, out, "second"):
            assert time.monotonic() - began >= 0.3


def test_a_run_renews_its_lease(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    lock, out = OutFolder(out_path(url)).lock, out_path(url)
    written = []
    write = Lease.write
    monkeypatch.setattr(Lease, "write", lambda held, **k: written.append(k) or write(held, **k))
    with lease(ObjectStore(), lock, out, "first"):
        while len(written) < 3:
            time.sleep(0.01)
    assert written[-1] == {"is_free": True}
    with lease(ObjectStore(), lock, out, "second"):
        pass


@pytest.mark.parametrize(
    ("number", "message"),
    [(2, "another run has just begun"), (3, "taken over by run thief")],
    ids=["at once", "came and went"],
)
def test_a_run_is_refused_if_others_take_over_first(
    url: str, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    lock, out = OutFolder(out_path(url)).lock, out_path(url)
    with lease(ObjectStore(), lock, out, "first"):
        pass
    monkeypatch.setattr(lease_module, "_free_holder", lambda *_: steal(lock, out, number))
    with pytest.raises(TemporaryError, match=message), lease(ObjectStore(), lock, out, "second"):
        pass


def test_a_run_that_comes_back_while_it_is_taken_over_makes_the_next_one_give_way(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, out = OutFolder(out_path(url)).lock, out_path(url)
    with lease(ObjectStore(), lock, out, "first") as held:
        monkeypatch.setattr(
            lease_module, "_free_holder", lambda *_: Holder("first", 1, "h", "m", "")
        )
        with (
            pytest.raises(TemporaryError, match=r"still in use by run first"),
            lease(ObjectStore(), lock, out, "b"),
        ):
            pass
        with pytest.raises(TemporaryError, match="taken over by run b"):
            held.renew()
    monkeypatch.undo()
    with lease(ObjectStore(), lock, out, "third"):
        pass


def steal(lock: UPath, out: UPath, number: int) -> None:
    Lease(ObjectStore(), lock, out, "thief", number).write()


def test_a_store_that_cannot_tell_two_runs_apart_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, out = OutFolder(out_path(url)).lock, out_path(url)
    monkeypatch.setattr(Lease, "create", Lease.write)
    with (
        pytest.raises(UsageError, match="does not support create-if-absent"),
        lease(ObjectStore(), lock, out, "first"),
    ):
        pass
    monkeypatch.undo()
    with lease(ObjectStore(), lock, out, "first"):
        pass
