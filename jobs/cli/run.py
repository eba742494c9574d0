"""The commands `captioner run` and `captioner plan`, which take the same jobs."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import OUT_HELP, SOURCE_HELP, add_job_options, whole
from captioner.jobs.config.files import load_config
from captioner.jobs.config.job import JobConfig
from captioner.jobs.config.values import FAILURES
from captioner.jobs.errors import ExitCode, Interrupted, JobError, UsageError
from captioner.jobs.messages import about, warn
from captioner.jobs.storage.signatures import without_signatures

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands
    from captioner.schemas.job_report import JobReport


def add_run(commands: "Commands") -> None:
    """Add the command `run`."""
    parser = commands.add_parser(
        "run",
        help="caption the new and changed images of a source",
        description="Caption the images of SOURCE that have no row yet in the table in OUT, or "
        "have changed since. The same command continues an interrupted run.",
        argument_default=argparse.SUPPRESS,  # only what is given overrides the job file
    )
    _add_job_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(command=_run, take_rest=_take_sources)


def add_plan(commands: "Commands") -> None:
    """Add the command `plan`."""
    parser = commands.add_parser(
        "plan",
        help="say what a run would do, and how long it would take",
        description="Say what `captioner run` with the same options would do, and estimate from "
        "some of the images how long it would take. Nothing is written to OUT.",
        argument_default=argparse.SUPPRESS,
    )
    _add_job_options(parser)
    add = parser.add_argument
    sample = "images to time; 0 for none (64, or 4 with a server, which is asked about them)"
    add("--sample", metavar="N", type=whole, default=None, help=sample)
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(command=_plan, take_rest=_take_sources)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", nargs="*", help=SOURCE_HELP)
    add("--out", metavar="OUT", help=OUT_HELP)
    add("--config", metavar="JOB.toml", type=Path, dest="job_file", help="job file; flags win")
    add_job_options(parser)


def _take_sources(options: dict[str, Any], rest: Sequence[str]) -> None:
    """Take further SOURCEs from after an option."""
    options["source"] = [*options.get("source", []), *rest]


def _config(options: dict[str, object]) -> JobConfig:
    job_file = options.pop("job_file", None)
    kinds = options.get("retry_failed")
    others = [kind for kind in kinds if kind not in FAILURES] if isinstance(kinds, list) else []
    if others and "source" not in options:
        raise UsageError(f"--retry-failed: {others[0]} is not a status; put SOURCE before it")
    sources = options.get("source")
    if isinstance(sources, list) and len(sources) == 1:
        options["source"] = sources[0]
    return load_config(options, job_file if isinstance(job_file, Path) else None)


def _run(options: dict[str, object]) -> int:
    config, reports = _config(options), list["JobReport"]()
    try:
        code = _caption(config, reports)
    except JobError as error:
        error.report = _failed(reports, error)
        raise
    if config.json:
        print(_all_passes(reports).to_json(indent=None), flush=True)
    return code


def _caption(config: JobConfig, reports: "list[JobReport]") -> int:
    """Run a job, add the reports of its passes to `reports`, and say what it did."""
    from captioner.jobs.run import run_passes

    code: int = ExitCode.DONE
    try:
        for report in run_passes(config):
            _print_title(config, len(reports))
            reports.append(report)
            code = _tell(report, config) or code
    except Interrupted as stop:
        warn("interrupted; the same command continues from here", "interrupted")
        reports.append(stop.report)
        return _tell(stop.report, config)
    return code


def _print_title(config: JobConfig, number: int) -> None:
    if config.second and not (config.quiet or config.json):
        print(("first pass", "\nsecond pass")[number])


def _all_passes(reports: "Sequence[JobReport]") -> "JobReport":
    report, *others = reports
    return report.followed_by(*others)


def _failed(reports: "Sequence[JobReport]", error: JobError) -> "JobReport | None":
    """Return the report of a job that fails; None if no run had begun."""
    begun = [*reports, *([error.report] if error.report else [])]
    if not begun:
        return None
    report = _all_passes(begun)
    reason = report.error or without_signatures(str(error))
    return replace(report, exit_code=int(error.exit_code), error=reason)


def _tell(report: "JobReport", config: JobConfig) -> int:
    """Print what a run did; return its exit code."""
    from captioner.jobs.cli.text import closing, complaints, summary

    if not (config.quiet or config.json):
        print(summary(report))
        if sys.stdout.isatty() and not report.error:
            print(closing(report, str(config.out)))
    with about(run_id=report.run_id):
        for event, text in complaints(report, config):
            warn(text, event)
    return report.exit_code


def _plan(options: dict[str, object]) -> int:
    from captioner.jobs.cli.plan_text import preview_text
    from captioner.jobs.preview import preview_job

    sample = options.pop("sample")
    if sample is not None and (not isinstance(sample, int) or sample < 0):
        raise UsageError(f"sample must be 0 or a whole number above it, not {sample}")
    config = _config(options)
    preview = preview_job(config, sample)
    print(preview.to_json() if config.json else preview_text(preview))
    return ExitCode.DONE
