"""How a run ends: the gates, the exit code, the reports, the removal of old runs."""

from functools import partial

from captioner.jobs.config.gates import DEFAULT_MIN_IMAGES, MIN_IMAGES
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import ExitCode, JobError
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.execution.record.reports import report_of
from captioner.jobs.messages import note, warn
from captioner.jobs.publish.report.write import write_run_report
from captioner.jobs.quality.former import former_run, is_latest_measure
from captioner.jobs.quality.gates import judge, not_judged
from captioner.jobs.quality.measure import measure
from captioner.jobs.storage.failures import without_secrets
from captioner.jobs.table.runs.pruning import remove_old_runs
from captioner.jobs.table.writer import Writer
from captioner.schemas.job_report import JobReport


def judge_quality(config: JobConfig, recorder: Recorder) -> None:
    """Measure what the captions of a run are like, and compare that with the gates of the job.

    If they cannot be read, that matters to a job with gates only.
    """
    if not recorder.images or recorder.is_outage:
        return
    try:
        _measure(config, recorder)
    except (OSError, JobError) as error:
        if _has_limits(config):
            raise
        warn(f"the quality of this run is unknown: {error}")


def _measure(config: JobConfig, recorder: Recorder) -> None:
    run, counts = recorder.writer.run, recorder.plan.counts
    replaced = counts.work > counts.new
    quality = measure(run, recorder.statuses, recorder.writer.scratch, replaced=replaced)
    recorder.quality = quality
    if _has_limits(config):
        second = config.is_second_opinion
        former = former_run(run, second=second, min_images=_min_images(config))
        recorder.gates = judge(config.gates, quality, former)
        recorder.gates_not_judged = not_judged(config.gates, quality, former)


def _has_limits(config: JobConfig) -> bool:
    return bool(config.gates.keys() - {MIN_IMAGES})


def _min_images(config: JobConfig) -> int:
    return int(config.gates.get(MIN_IMAGES, DEFAULT_MIN_IMAGES))


def exit_code(config: JobConfig, recorder: Recorder) -> ExitCode:
    """Return the exit code of a run that got to its end; record whether too many images failed."""
    if recorder.is_outage:
        return ExitCode.TEMPORARY
    report = report_of(recorder, ExitCode.DONE)
    images, failed = report.counted(in_table=config.count_all_failures)
    recorder.too_many_failures = not config.allows(failed, images)
    is_bad = recorder.too_many_failures or report.exceeded
    return ExitCode.TOO_MANY_FAILURES if is_bad else ExitCode.DONE


def report_end(recorder: Recorder, code: ExitCode, error: str | None = None) -> JobReport:
    """Write both reports; OSError or JobError if the one for programs cannot be written."""
    report = report_of(recorder, code, error)
    try:
        recorder.write_report(report)
    except (OSError, JobError):  # a full disk may need room
        recorder.writer.clear_scratch()
        recorder.write_report(report)
    _write_page(recorder.writer, report)
    _note_end(recorder, report)
    return report


def report_anyway(recorder: Recorder, code: ExitCode, error: str) -> JobReport:
    """Write both reports of a run that was stopped, if possible."""
    try:
        return report_end(recorder, code, error)
    except (OSError, JobError) as fault:
        reason = without_secrets(str(fault) or repr(fault))
        warn(f"no report.json for this run: {reason}")
        report = recorder.ended = report_of(recorder, code, error)
        _note_end(recorder, report)
        return report


def _write_page(writer: Writer, report: JobReport) -> None:
    """Write the report for people. Without it the run is complete, whatever prevents it."""
    try:
        write_run_report(writer, report)
    except (Exception, KeyboardInterrupt) as fault:  # noqa: BLE001 (the boundary)
        reason = without_secrets(str(fault) or repr(fault))
        warn(f"no report.html for this run: {reason}")


def _note_end(recorder: Recorder, report: JobReport) -> None:
    details = {
        "exit_code": report.exit_code,
        "images": report.images,
        "statuses": dict(report.statuses),
        "too_many_failures": report.too_many_failures,
        "gates_exceeded": [gate["gate"] for gate in report.exceeded],
        "report": str(recorder.writer.run.report),
    }
    note(f"run {report.run_id} ended with exit code {report.exit_code}", "finished", details)


def remove_others(writer: Writer, config: JobConfig) -> None:
    """Remove old runs, but not those that the gates of the next run need.

    A store that does not answer now is asked again by the next run.
    """
    is_needed = partial(is_latest_measure, min_images=_min_images(config))
    try:
        remove_old_runs(writer, config.keep_runs, is_needed)
    except OSError as error:
        warn(f"old runs could not be removed: {error}")
