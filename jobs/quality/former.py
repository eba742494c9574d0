"""The run to compare a run with."""

from collections.abc import Iterator

from captioner.jobs.config.gates import DEFAULT_MIN_IMAGES
from captioner.jobs.errors import ExitCode
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.runs.reports import read_report, run_folders
from captioner.schemas.job_report import JobReport


def former_run(
    run: RunFolder, *, second: bool, min_images: int = DEFAULT_MIN_IMAGES
) -> JobReport | None:
    """Return the report of the latest run before this one that passed; None if there is none.

    It has at least `min_images` images, so that its quality says something, and gave `second`
    opinions if this run does.
    """
    names = (each.name for each in reversed(run_folders(run.out)) if each.name < run.run_id)
    runs = (RunFolder(run.out, name) for name in names)
    return next(_measures(runs, second, min_images), None)


def is_latest_measure(run: RunFolder, min_images: int = DEFAULT_MIN_IMAGES) -> bool:
    """Return whether the next run may be compared with this one, and with no later one."""
    report = read_report(run)
    if report is None or not _is_measure(report, report.doubted > 0, min_images):
        return False
    names = (each.name for each in reversed(run_folders(run.out)) if each.name > run.run_id)
    later = (RunFolder(run.out, name) for name in names)
    return next(_measures(later, report.doubted > 0, min_images), None) is None


def _measures(runs: Iterator[RunFolder], second: bool, min_images: int) -> Iterator[JobReport]:
    reports = map(read_report, runs)
    return (each for each in reports if each and _is_measure(each, second, min_images))


def _is_measure(report: JobReport, second: bool, min_images: int) -> bool:
    if report.quality is None or report.exit_code != ExitCode.DONE:
        return False
    return (report.doubted > 0) == second and report.quality["images"] >= min_images
