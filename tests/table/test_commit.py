"""Parts that a run commits to a folder, its fence, and its lock."""

import multiprocessing
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import StaleCommit, TemporaryError, UsageError
from captioner.jobs.table.commits import commit as commit_module
from captioner.jobs.table.commits.commit import commit, parts_of
from captioner.jobs.table.layout import OutFolder, RunFolder
from tests.support.commands import GIVE_UP_SECONDS
from tests.support.stores import locked

TABLE = pa.table({"image_uri": ["a"]})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(OutFolder(tmp_path / "out"))


def new_run(out: OutFolder) -> RunFolder:
    run = out.new_run()
    run.create()
    parts_of(run).begin()
    return run


def parts(run: RunFolder) -> list[str]:
    return [path.name for path in run.out.captions.iterdir()]


def test_a_committed_part_is_one_file_named_after_run_and_partition(run: RunFolder) -> None:
    path = commit(TABLE, run, "000007")
    assert parts(run) == [path.name] == [f"{run.run_id}-000007.parquet"]
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert (column.compression, column.is_stats_set) == ("ZSTD", True)


def test_committing_a_part_again_replaces_it(run: RunFolder) -> None:
    commit(TABLE, run, "000000")
    commit(pa.table({"image_uri": ["b"]}), run, "000000")
    assert pq.read_table(run.part("000000"))["image_uri"].to_pylist() == ["b"]


def test_a_failed_commit_leaves_nothing_in_the_table_or_beside_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_writer: pq.ParquetWriter, _table: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(commit_module.pq.ParquetWriter, "write_table", half)
    with pytest.raises(OSError, match="No space left"):
        commit(TABLE, run, "000000")
    assert parts(run) == [] == list(run.scratch.iterdir())


def test_unfinished_files_are_never_in_the_table(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(commit_module.os, "fsync", lambda _: seen.append(parts(run)))
    commit(TABLE, run, "000000")
    assert seen[0] == []


def test_a_worker_of_an_earlier_run_cannot_commit(run: RunFolder) -> None:
    new_run(run.out)
    with pytest.raises(StaleCommit):
        commit(TABLE, run, "000000")
    assert parts(run) == []


def test_a_revoked_part_cannot_be_committed_but_others_can(run: RunFolder) -> None:
    assert parts_of(run).revoke("000000")
    with pytest.raises(StaleCommit):
        commit(TABLE, run, "000000")
    commit(TABLE, run, "000000-000000-000001")


def test_a_committed_part_cannot_be_revoked(run: RunFolder) -> None:
    commit(TABLE, run, "000000")
    assert not parts_of(run).revoke("000000")


def test_the_fence_waits_for_a_commit_that_has_the_right(run: RunFolder) -> None:
    spawn = multiprocessing.get_context("spawn")
    with parts_of(run).permission("000000"):
        other = spawn.Process(target=new_run, args=(run.out,))
        other.start()
        other.join(1.0)
        assert other.is_alive()
    other.join(GIVE_UP_SECONDS)
    assert other.exitcode == 0
    with pytest.raises(StaleCommit), parts_of(run).permission("000000"):
        pass


def test_a_second_run_on_the_same_folder_is_refused_with_the_holder_of_the_lock(
    run: RunFolder,
) -> None:
    with locked(run):
        message = f"in use by run {run.run_id}, process"
        with pytest.raises(TemporaryError, match=message), locked(run.out.new_run()):
            pass
    with locked(run.out.new_run()):
        pass


def _hold_lock(out: OutFolder) -> None:
    with locked(out.new_run()):
        time.sleep(GIVE_UP_SECONDS)


def test_the_lock_of_a_killed_run_is_released(run: RunFolder) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=_hold_lock, args=(run.out,))
    holder.start()
    while not (run.out.lock.exists() and run.out.lock.read_text()):
        time.sleep(0.01)
    with pytest.raises(TemporaryError), locked(run):
        pass
    holder.kill()
    holder.join()
    with locked(run):
        pass


def test_an_out_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot write to"),
        locked(OutFolder(tmp_path / "file").new_run()),
    ):
        pass
