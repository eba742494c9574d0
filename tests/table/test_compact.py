"""`captioner compact`: the same rows in fewer files, despite interruptions and readers."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.table.compaction import compact as compact_module
from captioner.jobs.table.compaction import merge_journal
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.writer import Writer
from captioner.schemas.caption_table import CaptionRow, Status, file_metadata, rows_to_table
from tests.support.commands import GIVE_UP_SECONDS, captioner, start
from tests.support.dying import compact_and_die
from tests.support.photographs import photograph, write_photographs
from tests.support.stores import locked
from tests.support.tables import image_names

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return an OUT with an empty table."""
    for folder in ("captions", "runs"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    return tmp_path / "out"


def have_no_exchange(out: Path) -> None:
    """Make the table's folder a link, which cannot be exchanged."""
    (out / "captions").rename(out / "elsewhere")
    (out / "captions").symlink_to("elsewhere")


def write_part(
    out: Path,
    name: str,
    uris: Sequence[str],
    *,
    at: datetime = NOON,
    model: str = "a@1",
    review: object = None,
    **passthrough: Sequence[object],
) -> Path:
    """Write a file of the table in which each caption is different."""
    rows = [
        CaptionRow(uri, "1-2", Status.OK, model, "run", at, image_sha256=sha, caption=f"A {sha}.")
        for uri in uris
        for sha in [os.urandom(32).hex()]
    ]
    others = pa.table(passthrough) if passthrough else pa.table({"n": uris}).select([])
    path = out / "captions" / f"{name}.parquet"
    metadata = file_metadata({model: {"beam_size": 3}}, review)
    pq.write_table(rows_to_table(rows, others, metadata), path, compression="zstd")
    return path


def write_parts(out: Path, files: int, rows: int = 10) -> int:
    """Write files named as a run names them; return the number of rows."""
    for file in range(files):
        write_part(out, f"r-{file:06d}", [f"/{file}/{row}.jpg" for row in range(rows)])
    return files * rows


def files(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "captions").iterdir())


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "captions").iterdir()}


def read(out: Path) -> pa.Table:
    """Return all rows with all columns, sorted by image."""
    paths = sorted((out / "captions").iterdir())
    schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in paths])
    table = ds.dataset(out / "captions", schema=schema).to_table()
    return table.combine_chunks().sort_by("image_uri")


def test_small_files_become_one_with_the_same_rows(out: Path) -> None:
    rows = write_parts(out, 20)
    before = read(out)
    done = compact(out, quiet=True)
    assert files(out) == ["r-000000.parquet"]
    assert read(out).equals(before)
    assert (done.rows, done.superseded, done.files_before, done.files) == (rows, 0, 20, 1)
    assert done.bytes == (out / "captions" / "r-000000.parquet").stat().st_size < done.bytes_before
    assert [path.name for path in (out / "runs").iterdir() if path.is_dir()] == []
    assert not OutFolder(out).merge_journal.exists()


def test_duckdb_and_pandas_read_the_result(out: Path) -> None:
    rows = write_parts(out, 5)
    compact(out, quiet=True)
    counted = duckdb.sql(f"SELECT count(DISTINCT image_uri) FROM '{out}/captions/*.parquet'")
    assert counted.fetchall() == [(rows,)]
    table = pd.read_parquet(out / "captions")
    assert table["caption"].nunique() == rows
    assert set(table["status"]) == {"ok"}


def test_files_are_about_as_large_as_wanted_and_stay_as_they_are(out: Path) -> None:
    write_parts(out, 100)
    target = 60_000
    compact(out, target, quiet=True)
    sizes = [path.stat().st_size for path in sorted((out / "captions").iterdir())]
    assert len(sizes) > 2
    assert all(target / 2 <= size <= target * 1.1 for size in sizes[:-1])
    before = contents(out)
    done = compact(out, target, quiet=True)
    assert contents(out) == before
    assert done.files == done.files_before


def test_a_large_file_is_not_touched_and_only_neighbours_are_merged(out: Path) -> None:
    for name, rows in [("a", 5), ("b", 5), ("c", 5000), ("d", 5), ("e", 5), ("f", 5)]:
        write_part(out, name, [f"/{name}/{row}" for row in range(rows)])
    large = out / "captions" / "c.parquet"
    before = large.stat()
    compact(out, large.stat().st_size, quiet=True)
    assert files(out) == ["a.parquet", "c.parquet", "d.parquet"]
    assert (large.stat().st_ino, large.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_latest_row_of_an_image_stays_and_of_equally_late_ones_the_last(out: Path) -> None:
    later = NOON + timedelta(seconds=1)
    write_part(out, "a", ["/1", "/2", "/3"], at=later, model="later@1")
    write_part(out, "b", ["/1", "/4"], model="b@1")
    write_part(out, "c", ["/4", "/4", "/5"], model="c@1")
    done = compact(out, quiet=True)
    table = read(out)
    assert table["image_uri"].to_pylist() == ["/1", "/2", "/3", "/4", "/5"]
    assert table["captioner"].to_pylist() == ["later@1"] * 3 + ["c@1"] * 2
    assert (done.rows, done.superseded) == (5, 3)


def test_superseded_rows_are_removed_from_large_files_too(out: Path) -> None:
    write_part(out, "a", [f"/{row}" for row in range(3000)])
    write_part(out, "b", ["/7"], at=NOON + timedelta(seconds=1), model="b@1")
    compact(out, 1000, quiet=True)
    table = read(out)
    assert table.num_rows == 3000
    assert Counter(table["captioner"].to_pylist()) == {"a@1": 2999, "b@1": 1}


def test_files_with_different_captioners_and_columns_become_one_with_all_of_them(out: Path) -> None:
    old = write_part(out, "a", ["/1"])
    pq.write_table(pq.read_table(old).drop_columns(["needs_review"]), old)
    write_part(out, "b", ["/2"], model="b@1", review={"min_confidence": 0.5}, id=["two"])
    write_part(out, "c", ["/3"], model="b@1", weight=[0.25])
    compact(out, quiet=True)
    rows = read(out).to_pylist()
    assert [row["id"] for row in rows] == [None, "two", None]
    assert [row["weight"] for row in rows] == [None, None, 0.25]
    assert [row["needs_review"] for row in rows] == [True, None, True]  # b was marked by it
    metadata = pq.read_schema(out / "captions" / "a.parquet").metadata
    assert set(json.loads(metadata[b"captioners"])) == {"a@1", "b@1"}
    assert json.loads(metadata[b"review"])["min_confidence"] == 0.5


def test_the_last_file_has_the_columns_of_the_newest_rows(out: Path) -> None:
    write_part(out, "a", [f"/{row}" for row in range(3000)])
    write_part(out, "b", ["/b"])
    write_part(out, "c", ["/c"], id=["c"])
    compact(out, 100_000, quiet=True)
    assert files(out) == ["a.parquet", "b.parquet"]
    assert "id" in pq.read_schema(OutFolder(out).table_files()[-1]).names


def test_files_with_conflicting_columns_are_named_and_stay(out: Path) -> None:
    write_part(out, "a", ["/1"], id=[1])
    write_part(out, "b", ["/2"], id=["two"])
    before = contents(out)
    with pytest.raises(UsageError, match=r"files a\.parquet to b\.parquet .* int64"):
        compact(out, quiet=True)
    assert contents(out) == before


def test_an_empty_table_stays_empty(out: Path) -> None:
    done = compact(out, quiet=True)
    assert (done.files_before, done.files, done.rows) == (0, 0, 0)


def test_files_without_rows_are_removed(out: Path) -> None:
    for name in "bcd":
        write_part(out, name, [])
    compact(out, quiet=True)
    assert files(out) == []
    write_part(out, "a", ["/1"])
    write_part(out, "b", [])
    compact(out, quiet=True)
    assert files(out) == ["a.parquet"]


def test_rows_are_in_groups_of_one_size(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_module, "ROW_GROUP_ROWS", 8)
    write_parts(out, 4, rows=6)
    compact(out, quiet=True)
    metadata = pq.read_metadata(out / "captions" / "r-000000.parquet")
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [8, 8, 8]


def test_memory_does_not_grow_with_the_files(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_module, "ROW_GROUP_ROWS", 500)
    uris = [f"/{row:06d}" for row in range(1000)]
    source = pq.read_table(write_part(out, "000000", uris, text=["x" * 1000] * 1000))
    size = source.nbytes
    for file in range(1, 60):
        names = pa.array([f"/{file}{uri}" for uri in uris])
        table = source.set_column(0, source.schema.field(0), names)
        pq.write_table(table, out / "captions" / f"{file:06d}.parquet", compression="zstd")
    del source, table
    most = 0

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.001):
            most = max(most, pa.total_allocated_bytes() - before)

    before, ended = pa.total_allocated_bytes(), threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert compact(out, quiet=True).files == 1
    finally:
        ended.set()
        watcher.join()
    assert 0 < most < 10 * size  # of 60


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_reader_sees_every_row_once_or_without_an_exchange_seldom_twice(
    out: Path, has_exchange: bool
) -> None:
    rows = write_parts(out, 200, rows=5)
    if not has_exchange:
        have_no_exchange(out)
    ended = threading.Event()

    def reads() -> list[tuple[int, int]]:
        seen = []
        while not ended.is_set():
            try:
                names = ds.dataset(out / "captions").to_table(["image_uri"])["image_uri"]
            except FileNotFoundError:
                continue  # it lists again
            seen.append((len(names), len(names.unique())))
        return seen

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(reads) for _ in range(2)]
        try:
            time.sleep(0.2)
            compact(out, 33_000, quiet=True)
            time.sleep(0.2)
        finally:
            ended.set()
    seen = Counter(pair for reader in readers for pair in reader.result())
    assert {different for _, different in seen} == {rows}
    assert seen[rows, rows] > (0 if has_exchange else 0.8) * seen.total()
    assert not has_exchange or set(seen) == {(rows, rows)}


def test_status_says_to_try_again_if_a_file_is_merged_meanwhile(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(out, 3)
    listed = OutFolder(out).table_files()
    compact(out, quiet=True)
    monkeypatch.setattr(OutFolder, "table_files", lambda _: listed)
    assert main(["status", str(out)]) == 75


def test_the_new_file_exists_before_the_others_are_removed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_parts(out, 3)
    have_no_exchange(out)
    seen = []
    remove = merge_journal._remove

    def looking(writer: Writer, names: Sequence[str]) -> None:
        seen.append((len(names), len(read(out)["image_uri"].unique())))
        remove(writer, names)

    monkeypatch.setattr(merge_journal, "_remove", looking)
    compact(out, quiet=True)
    assert seen == [(2, rows)]


@pytest.mark.parametrize("has_exchange", [True, False])
def test_killed_before_any_step_every_row_is_there_and_once_after_the_next_command(
    out: Path, tmp_path: Path, has_exchange: bool, forkserver: None
) -> None:
    rows = write_parts(out, 5, rows=100)
    write_part(out, "s", ["/0/0.jpg"], at=NOON + timedelta(seconds=1), model="b@1")
    if not has_exchange:
        have_no_exchange(out)
    processes = multiprocessing.get_context("forkserver")
    twice = 0
    for step in range(1000):
        copy = shutil.copytree(out, tmp_path / str(step), symlinks=True)
        process = processes.Process(target=compact_and_die, args=(copy, step))
        process.start()
        process.join()
        names = read(copy)["image_uri"]
        assert len(names.unique()) == rows, f"killed before step {step}"
        twice += len(names) > rows + 1
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        with exclusive_writer(OutFolder(copy).new_run()):  # as a run begins
            assert not OutFolder(copy).merge_journal.exists()
            assert rows <= len(read(copy)) <= rows + 1, f"killed before step {step}"
        assert compact(copy, 33_000, quiet=True).files == 2
        table = read(copy)
        assert len(table) == len(table["image_uri"].unique()) == rows
        assert table["captioner"].to_pylist()[0] == "b@1"
        assert not list(copy.glob("runs/*/scratch"))
    assert step > 25
    assert not twice if has_exchange else twice >= 3


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_compaction_and_leaves_the_table_whole(
    out: Path, kind: signal.Signals, code: int
) -> None:
    rows = write_parts(out, 400, rows=2)
    process = start("compact", out, "--target-bytes", 33_000)
    while len(files(out)) == 400 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=GIVE_UP_SECONDS)
    assert (process.returncode, errors) == (code, "captioner: interrupted\n")
    names = read(out)["image_uri"]
    assert len(names) == len(names.unique()) == rows
    assert 10 < len(files(out)) < 400


def test_the_command_prints_what_it_has_done(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parts(out, 3)
    assert main(["compact", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    write_part(out, "s", ["/0/0.jpg"], at=NOON + timedelta(seconds=1))
    assert main(["compact", str(out)]) == 0
    text = capsys.readouterr().out
    assert "files      1 (before: 2)\n" in text
    assert "rows       30\nsuperseded 1 row removed\n" in text


def test_a_table_in_use_and_a_missing_table_are_refused(tmp_path: Path, out: Path) -> None:
    assert main(["compact", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
    assert main(["compact", str(out), "--target-bytes", "0"]) == 2
    with locked(OutFolder(out).new_run()):
        assert main(["compact", str(out)]) == 75
        with pytest.raises(TemporaryError, match="in use by run"):
            compact(out, quiet=True)


def test_the_command_line_offers_compaction(out: Path) -> None:
    write_parts(out, 3)
    done = captioner("compact", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files(out)) == 1


def test_a_run_resumes_on_a_compacted_table(
    tmp_path: Path, scheduler: str, tiny_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 8)
    out = tmp_path / "out"
    job = JobConfig(photos, out, tiny_checkpoint, scheduler=scheduler, partition_size=2, quiet=True)
    first = run_job(job)
    write_photographs(photos, 10)
    run_job(job)
    assert compact(out, quiet=True).files == 1
    assert run_job(job).planned == 0
    (photos / "003.jpg").write_bytes(photograph(30))
    (photos / "009.jpg").write_bytes(photograph(31))
    write_photographs(photos, 11)
    report = run_job(job)
    assert (report.new, report.changed, report.already_there) == (1, 2, 8)
    assert len(files(out)) == 2
    assert image_names(out) == [f"{number:03d}.jpg" for number in range(11)]
    (photos / "000.jpg").unlink()
    assert run_job(replace(job, prune=True)).pruned == 1
    compact(out, quiet=True)
    table = read(out)
    assert Counter(table["run_id"].to_pylist())[report.run_id] == 3
    assert table["run_id"].to_pylist()[0] == first.run_id
    assert run_job(job).planned == 0
