"""Make the reports: of a run when it ends, of a table when somebody asks."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.publish.pages import render
from captioner.jobs.publish.report.collect import of_run, of_table
from captioner.jobs.publish.report.pace import read_pace
from captioner.jobs.publish.report.run_page import run_page
from captioner.jobs.publish.report.table_page import RUNS, table_page
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.runs.reports import read_report, run_folders
from captioner.jobs.table.writer import Writer
from captioner.schemas.job_report import JobReport

READERS = 16  # threads that read reports
_AT_ITS_END = (ExitCode.DONE, ExitCode.TOO_MANY_FAILURES)


def write_run_report(writer: Writer, report: JobReport) -> None:
    """Write report.html of a run that ends; one that was stopped or failed gets numbers only."""
    run = writer.run
    collected = of_run(run, report) if report.exit_code in _AT_ITS_END else None
    job_file = run.storage.read_bytes(run.job_file).decode()
    page = run_page(report, read_pace(_lines(writer.events), report), collected, job_file)
    writer.write_text(render("report", page=page), run.report_page)


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from file


def write_table_report(out: str | Path, to: str | Path | None = None) -> OutPath:
    """Write a report about the whole table to a file, or to OUT/report.html; return its path.

    Raise UsageError if there is no table, or if the file cannot be written.
    """
    folder = OutFolder(out_path(out))
    path = Path(to).absolute() if to else folder.report_page
    storage = backend_of(path)
    try:
        with job_errors(folder.root):
            page = table_page(folder, of_table(folder), _runs(folder))
            with storage.work_folder(path.parent) as scratch:
                storage.write(path, render("report", page=page).encode(errors="replace"), scratch)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from error
    return path


def _runs(out: OutFolder) -> Sequence[JobReport]:
    """Read the reports of the latest runs, the latest first."""
    folders = run_folders(out)[-RUNS:]
    with ThreadPoolExecutor(READERS) as pool:
        reports = pool.map(
            lambda folder: read_report(RunFolder(out, folder.name)), reversed(folders)
        )
        return [report for report in reports if report]
