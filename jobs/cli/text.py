"""Reports of runs and the status of a table, formatted for people."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from tqdm import tqdm

from captioner.jobs.config.job import JobConfig
from captioner.jobs.messages import how_many, printable, summed_up
from captioner.jobs.publish.report.words import amount
from captioner.jobs.quality.gates import gate_advice, gate_text
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import DECLINED, CaptionExample, JobReport

if TYPE_CHECKING:
    from captioner.jobs.table.compaction.compact import Compaction
    from captioner.jobs.table.status import TableStatus


def status_text(status: "TableStatus") -> str:
    """Format the status of a table."""
    lines = {
        "images": f"{status.images:,}",
        **_outcome(status.statuses),
        **_marked(status),
        "captioner": _captioners(status.captioners),
        "files": f"{status.files:,} ({tqdm.format_sizeof(status.bytes, 'B')})",
        "table": status.table,
    }
    return aligned(lines)


def _captioners(rows: Mapping[str, int]) -> str:
    if len(rows) < 2:
        return next(iter(rows), "none")
    return ", ".join(f"{name} ({count:,})" for name, count in rows.items())


def compaction_text(done: "Compaction") -> str:
    """Format the result of a compaction."""
    size, before = (tqdm.format_sizeof(n, "B") for n in (done.bytes, done.bytes_before))
    lines = {
        "files": f"{done.files:,} (before: {done.files_before:,})",
        "bytes": f"{size} (before: {before})",
        "rows": f"{done.rows:,}",
        "superseded": f"{how_many(done.superseded, 'row')} removed",
        "table": done.table,
    }
    return aligned(lines)


def summary(report: JobReport) -> str:
    """Format the report of a run."""
    others = {
        "changed": report.changed,
        "by another captioner": report.stale,
        "tried again": report.retried,
        "without an embedding": report.lacking,
        "captioned again": report.forced,
        "for a second opinion": report.doubted,
        "left for a later run": report.postponed,
        "already in the table": report.already_there,
        "of these by another captioner": report.kept_stale,
        "listed twice": report.duplicates,
        "vanished": report.vanished - report.pruned,
        "vanished and removed": report.pruned,
    }
    unfinished = f" of {report.planned:,}" if report.images < report.planned else ""
    lines = {
        "images": f"{report.images:,}{unfinished}{in_brackets(others)}",
        **skipped_line(report.skipped),
        **_outcome(report.statuses, report.reused),
        **_first_failures(report),
        **_failed_before(report),
        **_review(report),
        **_remarked(report),
        **_spent(report),
        "speed": _speed(report),
        **_kept(report),
        "table": report.table,
    }
    if not report.planned and not report.error:
        done = f"nothing to do{in_brackets(others)}"
        lines = {"images": done, **skipped_line(report.skipped), **_kept(report)}
        lines |= {**_failed_before(report), **_remarked(report)}
        lines["table"] = report.table
    folder = report.table.removesuffix("captions")
    lines["run"] = report.run_id
    return aligned({**lines, "report": f"{folder}runs/{report.run_id}/report.html"})


def _kept(report: JobReport) -> dict[str, str]:
    """Say what rows by other captioners mean, which another machine may have written by `auto`."""
    if not report.kept_stale:
        return {}
    rows = how_many(report.kept_stale, "row")
    return {
        "mixed": f"{rows} by another model, setting or precision; --stale redo captions them again"
    }


def closing(report: JobReport, out: str) -> str:
    """Format the surest and the least sure captions of a run, and what one can do next."""
    least = [caption for caption in report.least_sure if caption not in report.surest]
    parts = [
        *(_captions("surest", report.surest) if report.surest else ()),
        *(_captions("least sure", least) if least else ()),
        "\nnext",
        *_next_steps(report, shlex.quote(out)),
    ]
    return "\n".join(parts)


def _captions(title: str, captions: Sequence[CaptionExample]) -> Iterator[str]:
    yield f"\n{title}"
    for each in captions:
        yield printable(f"  {each['confidence']:.2f}  {each['caption']}  {each['image_uri']}")


def _next_steps(report: JobReport, out: str) -> Iterator[str]:
    steps = {
        f"captioner review {out}": "decide about captions, the least sure first",
        f'captioner search "dog on a beach" {out}': "find images",
        f"captioner export {out} --format csv --to captions.csv": "use the captions elsewhere",
    }
    if report.failed:
        steps[f"captioner status {out} --failed"] = "list the images without a caption"
    width = max(map(len, steps))
    for command, purpose in steps.items():
        yield f"  {command:<{width}}  # {purpose}"


def complaints(report: JobReport, config: JobConfig) -> Iterator[tuple[str, str]]:
    """Yield what is not good about a run that got to its end: an event, and what to say."""
    if report.too_many_failures:
        yield "too_many_failures", _too_many_failures(report, config)
    for gate in report.exceeded:
        advice = gate_advice(gate, shlex.quote(str(config.out)))
        yield "gate", f"{gate_text(gate, report)}: {advice}"
    for reason, names in _by_reason(report.gates_not_judged).items():
        verb = "was" if len(names) == 1 else "were"
        yield "gates_not_judged", f"{', '.join(names)} {verb} not judged: {reason}"
    if report.stopped:
        left = how_many(report.postponed, "image")
        yield "stopped", f"{report.stopped}; left for a later run: {left}"


def _by_reason(gates: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for gate, reason in gates.items():
        found.setdefault(reason, []).append(gate)
    return found


def _too_many_failures(report: JobReport, config: JobConfig) -> str:
    images, failed = report.counted(in_table=config.count_all_failures)
    where = " in the table" if config.count_all_failures else ""
    if config.max_failures is None:
        which = f"all {images:,} images" if images > 1 else "the only image"
        return f"{which}{where} failed"
    counts = f"{failed:,} of {images:,} images{where} failed"
    return f"{counts}, more than --max-failures {config.max_failures}"


def _outcome(statuses: Mapping[str, int], reused: int = 0) -> dict[str, str]:
    failures = {status: n for status, n in statuses.items() if status not in (Status.OK, DECLINED)}
    others = {"reused from identical images": reused}
    declined = statuses.get(DECLINED, 0)
    return {
        "captioned": f"{statuses.get(Status.OK, 0):,}{in_brackets(others)}",
        **({"declined": f"{declined:,} (the captions there stayed)"} if declined else {}),
        "failed": f"{sum(failures.values()):,}{in_brackets(failures)}",
    }


def _first_failures(report: JobReport) -> dict[str, str]:
    """Format the first failure of each kind."""
    return {
        f"  {status}": printable(f"{image['image_uri']}: {shorten(image['error'] or '', 200)}")
        for status, image in report.first_failures.items()
    }


def _failed_before(report: JobReport) -> dict[str, str]:
    """Format how many rows of the table have failed, if some are not of this run."""
    failed = report.failed_in_table
    if sum(failed.values()) <= report.failed:
        return {}
    return {"in table": f"{sum(failed.values()):,} failed{in_brackets(failed)}"}


def _speed(report: JobReport) -> str:
    """Format the speed from the first image on, and that of the whole run."""
    whole = f"{report.images_per_second or 0:,.1f} images/s"
    if not report.captioning_seconds:
        return whole
    speed = report.images / report.captioning_seconds
    return f"{speed:,.1f} images/s ({whole} with listing the source and starting the workers)"


def _review(report: JobReport) -> dict[str, str]:
    """Format how many captions need review, if the run had a threshold."""
    if report.needs_review is None:
        return {}
    share = report.needs_review / max(report.captioned, 1)
    reason = f"{share:.1%} of the captions: confidence below {report.min_confidence}"
    return {"to review": f"{report.needs_review:,} ({reason})"}


def _remarked(report: JobReport) -> dict[str, str]:
    rows = how_many(report.remarked, "row")
    return {"marked": f"{rows}, by a new threshold"} if report.remarked else {}


def _spent(report: JobReport) -> dict[str, str]:
    """Format what a run asked a server, and what that cost."""
    if not report.requests:
        return {}
    asked = tokens(report.input_tokens, report.output_tokens, report.cost)
    return {"requests": f"{report.requests:,}{asked}"}


def _marked(status: "TableStatus") -> dict[str, str]:
    """Format how many captions need review, and what people decided."""
    lines = {}
    if status.min_confidence is not None or status.needs_review:
        reason = f"confidence below {status.min_confidence}" if status.judged else "images changed"
        lines["to review"] = f"{status.needs_review:,} ({reason})"
    if decided := sum(status.decisions.values()):
        lines["decided"] = f"{decided:,}{in_brackets(status.decisions)}"
    return lines


def skipped_line(reasons: Mapping[str, int]) -> dict[str, str]:
    """Format what a source has that is no image of it, if anything."""
    reasons = {reason: count for reason, count in reasons.items() if count}
    return {"skipped": summed_up(reasons)} if reasons else {}


def in_brackets(counts: Mapping[str, int]) -> str:
    """Format the counts that are not zero, in brackets."""
    counted = [f"{count:,} {name}" for name, count in counts.items() if count]
    return f" ({', '.join(counted)})" if counted else ""


def aligned(lines: Mapping[str, str]) -> str:
    """Format names and values, one line each; some are of files, and have any characters."""
    return "\n".join(printable(f"{name:<10} {value}") for name, value in lines.items())


def tokens(sent: int, received: int, cost: float | None) -> str:
    """Format tokens and their cost, in brackets."""
    price = f"; cost {amount(cost)}" if cost else ""
    return f" ({sent:,} tokens sent, {received:,} received{price})"
