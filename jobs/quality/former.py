"""The run to compare a run with."""

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
    for folder in reversed(run_folders(run.out)):
        if folder.name >= run.run_id:
            continue
        report = read_report(RunFolder(run.out, folder.name))
        if report is None or report.quality is None or report.exit_code != ExitCode.DONE:
            continue
        if (report.doubted > 0) == second and report.quality["images"] >= min_images:
            return report
    return None
