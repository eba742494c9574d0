"""The sections that both kinds of report have."""

from collections.abc import Mapping
from typing import Any

from captioner.jobs.messages import how_many
from captioner.jobs.publish.privacy import (
    public_text,
    public_uri,
    shortened,
    shortened_uri,
)
from captioner.jobs.publish.report.charts import histogram
from captioner.jobs.publish.report.collect import Collected
from captioner.jobs.publish.report.page import Failures, Section
from captioner.jobs.publish.report.words import FAILURES, share
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import DECLINED


def confidence_section(collected: Collected) -> Section:
    """Describe the confidences of captions."""
    sentences = ["The confidence is the probability that people would accept a caption."]
    median, threshold = collected.median, collected.threshold
    if median is None:
        sentences = ["These captions have no confidence, because the model has no calibration."]
        return Section("confidence", "Confidence", sentences)
    sentences.append(f"Half of the captions have a confidence of {median:.2f} or more.")
    if threshold is not None:
        low, total = int(collected.below.sum()), int(collected.histogram.sum())
        below = f"{low:,} of {total:,} captions ({share(low, total)}) are below the threshold of "
        sentences.append(f"{below}{threshold:.3g}{_who_checks(collected)}")
    if not collected.is_whole:
        sentences.append(
            f"This counts {how_many(collected.images, 'image')} of the run: reading the others "
            "would have taken too long."
        )
    return Section("confidence", "Confidence", sentences, histogram(collected))


def _who_checks(collected: Collected) -> str:
    decided = sum(collected.decisions.values())
    if not decided:
        return ": a person should check them before they are used."
    images = how_many(decided, "image")
    return f". People have decided about {images}; to review: {collected.to_review:,}."


def failures_of(collected: Collected, counts: Mapping[str, int]) -> list[Failures]:
    """Return the failures by status, most frequent first, with examples."""
    total = sum(counts.values())
    others = (Status.OK, DECLINED)
    failed = {status: n for status, n in counts.items() if status not in others and n}
    found = []
    for status, count in sorted(failed.items(), key=lambda pair: -pair[1]):
        title, remedy = FAILURES[status]
        examples = [_failed(row) for row in collected.failures.get(status, [])]
        found.append(Failures(title, f"{count:,} ({share(count, total)})", remedy, examples))
    return found


def _failed(row: dict[str, Any]) -> tuple[str, str]:
    uri, error = row["image_uri"], row["error"] or ""
    return shortened_uri(public_uri(uri)), shortened(public_text(error, uri))
