"""The page about a whole table."""

from collections.abc import Sequence
from datetime import UTC, datetime

from tqdm import tqdm

from captioner.jobs.messages import how_many
from captioner.jobs.publish.report.collect import Collected
from captioner.jobs.publish.report.gallery import with_gallery
from captioner.jobs.publish.report.page import Fact, Grid, Page, Section
from captioner.jobs.publish.report.sections import confidence_section, failures_of
from captioner.jobs.publish.report.words import (
    DECISIONS,
    duration,
    moment,
    number,
    outcome_of,
    share,
)
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import JobReport

RUNS = 100  # the latest


def table_page(out: OutFolder, collected: Collected, runs: Sequence[JobReport]) -> Page:
    """Return the page about a table and its latest runs, the latest first."""
    captioned = collected.statuses[Status.OK]
    sections = [confidence_section(collected)] if captioned else []
    page = Page(
        subject=f"Captions in {out.captions}",
        heading=f"{captioned:,} of {collected.images:,} images captioned",
        outcome="",
        state="good",
        sentences=[f"{moment(datetime.now(UTC))}."],
        facts=_facts(collected, captioned),
        sections=[*sections, *_decisions(collected, captioned)],
        failures=failures_of(collected, collected.statuses),
        made=moment(datetime.now(UTC)),
        after=[*_runs(runs), _table(out, collected)],
    )
    return with_gallery(page, collected)


def _facts(collected: Collected, captioned: int) -> list[Fact]:
    images, failed = collected.images, collected.images - captioned
    facts = [
        Fact("Captioned", f"{captioned:,}", f"{share(captioned, images)} of images"),
        Fact("Failed", f"{failed:,}", f"{share(failed, images)} of images"),
    ]
    if collected.threshold is not None or collected.to_review:
        note = f"{share(collected.to_review, captioned)} of captions"
        facts.append(Fact("To review", f"{collected.to_review:,}", note))
    if decided := collected.decisions.total():
        note = f"{share(decided, captioned)} of captions"
        facts.append(Fact("Decided by people", f"{decided:,}", note))
    return facts


def _decisions(collected: Collected, captioned: int) -> list[Section]:
    decided = collected.decisions.total()
    if not decided:
        return []
    counts = [(name, collected.decisions[kind]) for kind, name in DECISIONS.items()]
    rows = [(name.capitalize(), f"{count:,}", share(count, decided)) for name, count in counts]
    sentences = [f"People have decided about {decided:,} of {captioned:,} captions."]
    if collected.outdated:
        sentences.append(
            f"Images that have changed since, and wait for another look: {collected.outdated:,}."
        )
    return [
        Section(
            name="decisions",
            title="Decisions",
            sentences=sentences,
            grid=Grid(["Decision", "Captions", "Share"], rows),
            bars=[count / decided for _, count in counts],
        )
    ]


def _runs(runs: Sequence[JobReport]) -> list[Section]:
    if not runs:
        return []
    rows = [_run(report) for report in runs]
    columns = ["Ended", "Result", "Captioned", "Failed", "Time", "Images/s"]
    title = "Runs" if len(runs) < RUNS else f"The last {RUNS} runs"
    return [Section("runs", title, grid=Grid(columns, rows))]


def _run(report: JobReport) -> list[str]:
    took = (report.finished_at - report.started_at).total_seconds()
    outcome, _ = outcome_of(report)
    speed = number(report.images_per_second) if report.images_per_second else ""
    counts = [f"{report.captioned:,}", f"{report.failed:,}"]
    return [moment(report.finished_at), outcome, *counts, duration(took), speed]


def _table(out: OutFolder, collected: Collected) -> Section:
    sizes = out.table_sizes()
    rows = [
        ("Table", str(out.captions)),
        ("Files", f"{len(sizes):,} ({tqdm.format_sizeof(sum(sizes), 'B')})"),
        *((f"By {name}", how_many(count, "image")) for name, count in collected.captioners.items()),
    ]
    return Section("table", "Table", grid=Grid(["What", "Value"], rows))
