"""What a run did, and what a table holds, for people to read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from jobs.errors import UsageError
from jobs.folders import OutFolder
from jobs.review import min_confidence
from jobs.store import job_errors, out_path
from jobs.table import column_batches, opened_files
from schemas.caption_table import Status
from schemas.job_report import JobReport

if TYPE_CHECKING:
    from jobs.compact import Compaction

_MARK = "needs_review"  # which files of the first schema do not have


@dataclass(frozen=True)
class TableStatus:
    """What a table holds, from its files alone.

    Of the captions, runs with the threshold `min_confidence` have `judged` some, and `needs_review`
    of these are below it; None if no run had a threshold.
    """

    table: str
    images: int
    statuses: Mapping[str, int]
    captioners: Mapping[str, int]
    files: int
    bytes: int
    judged: int
    needs_review: int
    min_confidence: float | None


def read_status(out: str | Path) -> TableStatus:
    """Count the rows of the table in OUT; UsageError if there is no table."""
    folder = OutFolder(out_path(out))
    try:
        with job_errors(folder.root):
            return _read_status(folder)
    except OSError as error:  # of this machine: those of a store are JobErrors by now
        raise UsageError(f"cannot read {folder.captions}: {error}") from error


def _read_status(folder: OutFolder) -> TableStatus:
    if not folder.captions.is_dir():
        raise UsageError(f"{folder.root} holds no caption table (no folder {folder.captions})")
    counts: dict[str, Counter[Any]] = {name: Counter() for name in ("status", "captioner", _MARK)}
    thresholds: set[float | None] = set()
    files = folder.table_files()
    for path, file in opened_files(files):
        thresholds.add(min_confidence(file.schema_arrow))
        is_first_schema = _MARK not in file.schema_arrow.names
        names = [name for name in counts if not (name == _MARK and is_first_schema)]
        for batch in column_batches(path, file, names):
            for name in names:
                for count in batch.column(name).value_counts().to_pylist():
                    counts[name][count["values"]] += count["counts"]
    statuses, captioners, marks = counts.values()
    return TableStatus(
        table=str(folder.captions),
        images=statuses.total(),
        statuses=dict(statuses),
        captioners=dict(captioners),
        files=len(files),
        bytes=sum(folder.table_sizes()),
        judged=marks[True] + marks[False],
        needs_review=marks[True],
        min_confidence=next(iter(thresholds - {None}), None),  # a table has one
    )


def status_text(status: TableStatus) -> str:
    """A table's status in a few lines."""
    lines = {
        "images": f"{status.images:,}",
        **_outcome(status.statuses),
        **_marked(status),
        "captioner": ", ".join(status.captioners) or "none",
        "files": f"{status.files:,} ({tqdm.format_sizeof(status.bytes, 'B')})",
        "table": status.table,
    }
    return aligned(lines)


def compaction_text(done: "Compaction") -> str:
    """What became of a table in a few lines."""
    size, before = (tqdm.format_sizeof(n, "B") for n in (done.bytes, done.bytes_before))
    lines = {
        "files": f"{done.files:,} (before: {done.files_before:,})",
        "bytes": f"{size} (before: {before})",
        "rows": f"{done.rows:,}",
        "superseded": f"{done.superseded:,} rows removed",
        "table": done.table,
    }
    return aligned(lines)


def summary(report: JobReport) -> str:
    """What a run did in a few lines."""
    others = {
        "changed": report.changed,
        "by another captioner": report.stale,
        "tried again": report.retried,
        "already in the table": report.already_there,
        "of these by another captioner": report.kept_stale,
        "listed twice": report.duplicates,
        "vanished": report.vanished - report.pruned,
        "vanished and removed": report.pruned,
        **{f"skipped: {reason}": count for reason, count in report.skipped.items()},
    }
    unfinished = f" of {report.planned:,}" if report.images < report.planned else ""
    lines = {
        "images": f"{report.images:,}{unfinished}{in_brackets(others)}",
        **_outcome(report.statuses, report.reused),
        **_review(report),
        "speed": f"{report.images_per_second or 0:,.1f} images/s",
        "table": report.table,
    }
    if not report.planned and not report.error:
        lines = {"images": f"nothing to do{in_brackets(others)}", "table": report.table}
    return aligned(lines)


def _outcome(statuses: Mapping[str, int], reused: int = 0) -> dict[str, str]:
    failures = {status: n for status, n in statuses.items() if status != Status.OK}
    others = {"reused from identical images": reused}
    return {
        "captioned": f"{statuses.get(Status.OK, 0):,}{in_brackets(others)}",
        "failed": f"{sum(failures.values()):,}{in_brackets(failures)}",
    }


def _review(report: JobReport) -> dict[str, str]:
    """How many captions need review, where the run had a threshold."""
    if report.needs_review is None:
        return {}
    share = report.needs_review / max(report.captioned, 1)
    reason = f"{share:.1%} of the captions: confidence below {report.min_confidence}"
    return {"to review": f"{report.needs_review:,} ({reason})"}


def _marked(status: TableStatus) -> dict[str, str]:
    """How many captions need review, where a run had a threshold."""
    if status.min_confidence is None:
        return {}
    reason = f"of {status.judged:,} judged: confidence below {status.min_confidence}"
    return {"to review": f"{status.needs_review:,} ({reason})"}


def in_brackets(counts: Mapping[str, int]) -> str:
    """Counts that are not zero, by their names."""
    counted = [f"{count:,} {name}" for name, count in counts.items() if count]
    return f" ({', '.join(counted)})" if counted else ""


def aligned(lines: Mapping[str, str]) -> str:
    """Names and values, a line each."""
    return "\n".join(f"{name:<10} {value}" for name, value in lines.items())
