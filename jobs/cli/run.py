"""The commands `captioner run` and `captioner plan`, which take the same jobs."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import FLAGS, OUT_HELP, SOURCE_HELP
from captioner.jobs.config.files import load_config
from captioner.jobs.config.job import JobConfig
from captioner.jobs.config.values import FAILURES
from captioner.jobs.errors import ExitCode, Interrupted, UsageError

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
    add("--sample", metavar="N", type=int, default=None, help=sample)
    add("--json", action="store_true", default=False, help="print a JSON object")
    parser.set_defaults(command=_plan, take_rest=_take_sources)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", nargs="*", help=SOURCE_HELP)
    add("--out", metavar="OUT", help=OUT_HELP)
    add("--config", metavar="JOB.toml", type=Path, dest="job_file", help="job file; flags win")
    for option in fields(JobConfig):
        if flag := FLAGS.get(option.name):
            has_default = option.default is not None and option.default is not False
            default = f" ({option.default})" if has_default else ""
            name = f"--{option.name.replace('_', '-')}"
            add(name, **{**flag, "help": flag["help"] + default})


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
    from captioner.jobs.run import run_passes

    config = _config(options)
    code: int = ExitCode.DONE
    try:
        for title, report in zip(_titles(config), run_passes(config), strict=False):
            if title and not config.quiet:
                print(title)
            told = _tell(report, config)
            code = code or told
    except Interrupted as stop:
        print("captioner: interrupted; the same command continues from here", file=sys.stderr)
        return _tell(stop.report, config)
    return code


def _titles(config: JobConfig) -> Sequence[str]:
    """Return what to print before the summary of each pass."""
    return ("first pass", "\nsecond pass") if config.second else ("",)


def _tell(report: "JobReport", config: JobConfig) -> int:
    """Print what a run did; return its exit code."""
    from captioner.jobs.cli.text import closing, printable, summary, too_many_failures

    if not config.quiet:
        print(summary(report))
        if sys.stdout.isatty() and not report.error:
            print(closing(report, str(config.out)))
    if report.exit_code == ExitCode.TOO_MANY_FAILURES:
        print(f"captioner: {too_many_failures(report, config.max_failures)}", file=sys.stderr)
    if report.stopped:
        left = f"{report.postponed:,} images are left"
        print(f"captioner: {printable(report.stopped)}; {left}", file=sys.stderr)
    return report.exit_code


def _plan(options: dict[str, object]) -> int:
    from captioner.jobs.cli.plan_text import preview_text
    from captioner.jobs.preview import preview_job

    sample, as_json = options.pop("sample"), options.pop("json")
    if sample is not None and (not isinstance(sample, int) or sample < 0):
        raise UsageError(f"sample must be 0 or a whole number above it, not {sample}")
    preview = preview_job(_config(options), sample)
    print(preview.to_json() if as_json else preview_text(preview))
    return ExitCode.DONE
