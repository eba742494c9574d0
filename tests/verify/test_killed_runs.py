"""`captioner verify` beside runs at work, after they were killed, and on an object store."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from upath import UPath

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.verify.findings import Kind
from captioner.jobs.verify.verify import verify_table
from tests.support.commands import GIVE_UP_SECONDS, command, environment
from tests.support.dying import compact_and_die
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import row, write_rows
from tests.support.stores import new_run
from tests.support.tables import read_table

IMAGES = 40


def kill_once(line: tuple[object, ...], out: Path, reached: Callable[[], bool]) -> None:
    """Start a run, verify beside it once it has `reached` something, and kill it."""
    with subprocess.Popen(command(*line), env=environment(), start_new_session=True) as process:
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while not reached():
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        beside = verify_table(out)
        os.killpg(process.pid, signal.SIGKILL)
    assert beside.is_right, beside.faults
    assert beside.at_work and f"process {process.pid}" in beside.at_work


def test_a_run_that_is_killed_leaves_no_fault_and_is_named_while_it_works(
    job: JobConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = write_photographs(Path(job.source), IMAGES, harm=b"SLOW"), Path(job.out)
    size = ("--partition-size", 4, "--workers", 1, "--precision", "float32")  # as on a scheduler
    line = ("run", photos, "--out", out, "--checkpoint", job.checkpoint, *size)
    kill_once(line, out, lambda: len([*out.glob("captions/*")]) > 1)
    found = verify_table(out)
    assert found.is_right, found.faults
    assert {each.kind for each in found.harmless} == {Kind.LEFT}
    run_job(job)
    for number in range(8):
        (photos / f"{number:03d}.jpg").write_bytes(b"SLOW" + photograph(number + 100))
    kill_once(line, out, lambda: bool([*out.glob("runs/*/replacements/*")]))
    assert verify_table(out).is_right
    assert main(["verify", str(out), "--repair"]) == 0  # puts what was captioned into the table
    assert "finished or removed what killed commands had left" in capsys.readouterr().out
    run_job(job)
    after = verify_table(out)
    assert (after.is_right, after.rows, list(after.harmless)) == (True, IMAGES, [])
    assert len(read_table(out)) == IMAGES


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_compaction_that_is_killed_at_any_step_leaves_no_fault(
    tmp_path: Path, forkserver: None, has_exchange: bool
) -> None:
    whole = tmp_path / "whole"
    for number in range(4):
        uris = [f"/{number}-{n}.jpg" for n in range(10)]
        sha = f"{number:064x}"
        values = {"run_id": "r", "image_sha256": sha}
        write_rows(whole, [row(uri, **values) for uri in uris], f"f{number}")
    if not has_exchange:
        (whole / "captions").rename(whole / "elsewhere")
        (whole / "captions").symlink_to("elsewhere")
    context = multiprocessing.get_context("forkserver")
    for step in range(0, 200, 7):
        out = Path(shutil.copytree(whole, tmp_path / f"out-{step}", symlinks=True))
        process = context.Process(target=compact_and_die, args=(out, step))
        process.start()
        process.join()
        found = verify_table(out)
        assert found.is_right, (step, found.faults)
        if process.exitcode == 0:
            assert found.files == 1
            return
    raise AssertionError("the compaction has more steps")


def test_a_table_on_a_store_is_verified_and_repaired(store_job: JobConfig, url: str) -> None:
    (Path(store_job.source) / "torn.jpg").write_bytes(b"")
    job = replace(store_job, embeddings=True)
    report = run_job(job)
    found = verify_table(url)
    assert (found.is_right, found.rows, list(found.harmless)) == (True, 9, [])
    run = new_run(url)
    with run.storage.lock(run.out.lock, run.out.root, run.run_id):
        beside = verify_table(url)
    assert beside.at_work and run.run_id in beside.at_work
    first, second, *_ = (UPath(path) for path in run.out.table_files())
    copied = run.out.captions / "zz.parquet"
    run.storage.copy(first, copied)
    second.write_bytes(b"PAR1")
    (run.out.captions / "x.unfinished").write_bytes(b"")
    counts = dict(verify_table(url).counts)
    assert counts == {Kind.FILE: 2, Kind.KEY: 3}
    after = verify_table(url, repair=True)
    assert dict(after.counts) == {Kind.RUN: 1}
    assert f"3 of the 9 rows that this run committed are not in the table (not there: {second.name}"
    assert (run.out.damaged / second.name).read_bytes() == b"PAR1"
    assert run_job(job).new == 3
    compact(url, quiet=True)
    found = verify_table(url)
    assert (found.is_right, found.rows, report.images) == (True, 9, 9)
