"""The page about one run."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from captioner.jobs.errors import ExitCode
from captioner.jobs.messages import how_many
from captioner.jobs.publish.privacy import public_text, public_uri, shortened
from captioner.jobs.publish.report.charts import throughput
from captioner.jobs.publish.report.collect import Collected
from captioner.jobs.publish.report.gallery import with_gallery
from captioner.jobs.publish.report.pace import Pace
from captioner.jobs.publish.report.page import Fact, Grid, Page, Section
from captioner.jobs.publish.report.sections import confidence_section, failures_of
from captioner.jobs.publish.report.words import (
    STAGES,
    amount,
    duration,
    moment,
    number,
    outcome_of,
    share,
)
from captioner.jobs.quality.gates import gate_text
from captioner.schemas.job_report import LOW_CONFIDENCE, JobReport, limiting_step

NUMBERS_ONLY = (
    "This page has no captions, because the run did not get to its end. The command "
    "`captioner report` with the same OUT shows those of the whole table."
)
MEASURED = {
    "unique": "Share of different captions",
    "top_caption": "Share of the most frequent caption",
    "confidence": "Mean confidence",
    "low_confidence": f"Share of captions with a confidence below {LOW_CONFIDENCE}",
}


def run_page(
    report: JobReport, pace: Pace | None, collected: Collected | None, job_file: str
) -> Page:
    """Return the page about a run, without captions if none were collected."""
    outcome, state = outcome_of(report)
    sections = [_speed(report, pace)] if report.seconds else []
    if collected and report.captioned:
        sections.insert(0, confidence_section(collected))
    page = Page(
        subject=f"Captioner run of {_source(report)}",
        heading=_heading(report),
        outcome=outcome,
        state=state,
        sentences=_sentences(report, collected, job_file),
        facts=_facts(report),
        sections=sections,
        failures=failures_of(collected or Collected(), report.statuses),
        error=_error(report),
        made=moment(report.finished_at),
        after=[*_quality(report), *_left_out(report), _images(report), _run(report, job_file)],
    )
    return with_gallery(page, collected) if collected else page


def _sources(report: JobReport) -> Sequence[str]:
    return [report.source] if isinstance(report.source, str) else report.source


def _source(report: JobReport) -> str:
    return shortened(", ".join(map(public_uri, _sources(report))))


def _error(report: JobReport) -> str:
    """Return the error of a run, unless the outcome says it all."""
    if report.error is None or report.exit_code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        return ""
    return shortened(public_text(report.error, *_sources(report)), 2_000)


def _heading(report: JobReport) -> str:
    if not report.planned and not report.error:
        return "Nothing to do"
    if report.images < report.planned:
        return f"{report.images:,} of {report.planned:,} images done"
    return f"{report.captioned:,} of {report.images:,} images captioned"


def _sentences(report: JobReport, collected: Collected | None, job_file: str) -> list[str]:
    took = duration((report.finished_at - report.started_at).total_seconds())
    sentences = [f"{moment(report.finished_at)}, after {took}."]
    if not report.planned and not report.error:
        has_images = report.listed > 0
        sentences.append(
            "Every image has a row already." if has_images else "The source lists no images."
        )
    is_code_3 = report.exit_code == ExitCode.TOO_MANY_FAILURES
    if report.too_many_failures or (is_code_3 and not report.exceeded):
        sentences.append(_too_many_failures(report, job_file))
    sentences += [f"{_capitalised(gate_text(gate, report))}." for gate in report.exceeded]
    if report.stopped:
        sentences.append(f"Left for a later run: {how_many(report.postponed, 'image')}.")
    if report.images < report.planned or report.stopped:
        sentences.append("The same command continues from here.")
    if not collected and report.images:
        sentences.append(NUMBERS_ONLY)
    return sentences


def _too_many_failures(report: JobReport, job_file: str) -> str:
    job = tomllib.loads(job_file)
    limit, in_table = job.get("max_failures"), bool(job.get("count_all_failures"))
    allowed = "not one image succeeded" if limit is None else f"the job allows {limit}"
    images, failed = report.counted(in_table=in_table)
    where = " in the table" if in_table else ""
    return f"Of {images:,} images{where}, {failed:,} failed: {allowed}."


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _quality(report: JobReport) -> list[Section]:
    """Describe what the captions are like, and the limits on that, if it was measured."""
    quality = report.quality
    if quality is None or not quality["captions"]:
        return []
    values: Mapping[str, Any] = {**quality}
    shares = [(name, values[key]) for key, name in MEASURED.items()]
    rows = [(name, f"{value:.3g}") for name, value in shares if value is not None]
    rows.append(("Most frequent caption", quality["most_frequent"] or ""))
    for gate in report.gates:
        verdict = "too bad" if gate["exceeded_by"] else "good"
        rows.append((_capitalised(gate_text(gate, report)), verdict))
    rows += [(gate, f"not judged: {reason}") for gate, reason in report.gates_not_judged.items()]
    return [Section("quality", "Quality", grid=Grid(["What", "Value"], rows))]


def _facts(report: JobReport) -> list[Fact]:
    images, took = report.images, (report.finished_at - report.started_at).total_seconds()
    facts = [
        Fact("Captioned", f"{report.captioned:,}", f"{share(report.captioned, images)} of images"),
        Fact("Failed", f"{report.failed:,}", f"{share(report.failed, images)} of images"),
    ]
    if report.min_confidence is not None and report.needs_review is not None:
        part = share(report.needs_review, report.captioned)
        note = f"{part}, with a confidence below {report.min_confidence:.3g}"
        facts.append(Fact("To review", f"{report.needs_review:,}", note))
    if report.requests:
        facts.append(Fact("Requests", f"{report.requests:,}", _spent(report)))
    workers = how_many(report.workers, "worker")
    facts.append(Fact("Time", duration(took), workers if report.workers else ""))
    if report.captioning_seconds:
        speed = number(images / report.captioning_seconds)
        of_what = f" in {report.precision}" if report.precision else ""
        note = f"images per second{of_what}, from the first one on"
        facts.append(Fact("Speed", speed, note))
    return facts if images else facts[-1:]


def _spent(report: JobReport) -> str:
    cost = f", cost {amount(report.cost)}" if report.cost else ""
    return f"{report.input_tokens:,} tokens sent, {report.output_tokens:,} received{cost}"


def _speed(report: JobReport, pace: Pace | None) -> Section:
    total = sum(report.seconds.values())
    order = sorted(report.seconds.items(), key=lambda pair: -pair[1])
    rows = [
        (STAGES[stage][0], duration(seconds), share(seconds, total)) for stage, seconds in order
    ]
    sentences = ["This is the time of all workers and their threads, added up."]
    if step := limiting_step(report.seconds, pace.took if pace else 0.0):
        name, remedy = STAGES[step]
        part = share(report.seconds[step], total)
        verb = "limited the run" if pace and pace.took else "took most of the time"
        sentences = [f"{name} {verb}: {part} of the working time. {remedy}", *sentences]
    return Section(
        name="speed",
        title="Speed",
        sentences=sentences,
        chart=throughput(pace) if pace else None,
        grid=Grid(["Step", "Time", "Share"], rows),
        bars=[seconds / max(total, 1e-9) for _, seconds in order],
    )


def _left_out(report: JobReport) -> list[Section]:
    """Describe what the source has that is no image to caption, if anything."""
    rows = [
        (reason.capitalize(), f"{count:,}") for reason, count in report.skipped.items() if count
    ]
    if report.duplicates:
        rows.append(("Images listed more than once", f"{report.duplicates:,}"))
    sentences = ["The source holds these, too. They have no row of their own in the table."]
    grid = Grid(["Reason", "Count"], rows)
    return [Section("skipped", "Skipped", sentences, grid=grid)] if rows else []


def _images(report: JobReport) -> Section:
    counts = {
        "Listed in the source": report.listed,
        "Already in the table": report.already_there,
        "of these, by another captioner": report.kept_stale,
        "New": report.new,
        "Changed since they were captioned": report.changed,
        "Captioned again, by this captioner": report.stale,
        "Tried again after a failure": report.retried,
        "Without an embedding": report.lacking,
        "Captioned again, by force": report.forced,
        "For a second opinion": report.doubted,
        "of these, declined": report.declined,
        "Left for a later run": report.postponed,
        "Captions reused from identical images": report.reused,
        "Marked again, by another threshold": report.remarked,
        "Vanished from the source": report.vanished,
        "of these, removed from the table": report.pruned,
    }
    rows = [(name, f"{count:,}") for name, count in counts.items() if count]
    return Section("images", "Images", grid=Grid(["Images", "Count"], rows or [("Listed", "0")]))


def _run(report: JobReport, job_file: str) -> Section:
    values = {
        "Source": _source(report),
        "Table": report.table,
        "Captioner": report.captioner or "",
        "Run": report.run_id,
        "Started": moment(report.started_at),
        "Ended": moment(report.finished_at),
        "Exit code": str(report.exit_code),
    }
    rows = [(name, value) for name, value in values.items() if value]
    details = [("The job file of this run", public_text(job_file, *_sources(report)))]
    return Section("run", "Run", grid=Grid(["What", "Value"], rows), details=details)
