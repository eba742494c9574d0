"""What a run would do, formatted for people."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tqdm import tqdm

from captioner.jobs.cli.text import aligned, in_brackets, skipped_line, tokens
from captioner.jobs.messages import how_many

if TYPE_CHECKING:
    from captioner.jobs.preview import Preview


def preview_text(preview: "Preview") -> str:
    """Format a preview."""
    counts = preview.counts
    work = {
        "new": counts.new,
        "changed": counts.changed,
        "by another captioner": counts.stale,
        "failed, to be tried again": counts.retried,
        "without an embedding": counts.lacking,
        "to be captioned again": counts.forced,
        "for a second opinion": counts.doubted,
    }
    others = {
        "left for a later run": preview.postponed,
        "already in the table": counts.already_there,
        "of these by another captioner": counts.kept_stale,
        "listed twice": counts.duplicates,
        "vanished, to be removed" if preview.prune else "vanished": counts.vanished,
    }
    lines = {
        "to caption": f"{preview.images:,}{in_brackets(work)}",
        "others": in_brackets(others).strip(" ()") or "none",
        **skipped_line(preview.skipped),
        "partitions": f"{preview.partitions:,}",
        **(_asking_lines(preview) if preview.asking and preview.images else {}),
        **_estimate_lines(preview),
        **({"time": f"unknown: {preview.problem}"} if preview.problem else {}),
        "table": preview.table,
    }
    return "\n".join([aligned(lines), *_second_pass(preview)])


def _second_pass(preview: "Preview") -> Iterator[str]:
    if preview.second:
        yield "\nsecond pass, about the rows that are in the table now"
        yield preview_text(preview.second)
    if preview.second_problem:
        yield f"\nno second pass: {preview.second_problem}"


def _estimate_lines(preview: "Preview") -> dict[str, str]:
    estimate = preview.estimate
    if estimate is None:
        return {}
    about = "at most" if preview.asking else "about"  # more requests may be in flight in a run
    workers, images = how_many(estimate.workers, "worker"), how_many(estimate.images, "image")
    speed = f"{estimate.images_per_second:,.1f} images/s with {workers}, timed on {images}"
    if failed := sum(estimate.failures.values()):
        speed += f", {failed} of which failed"
    start = _duration(estimate.start_seconds)
    return {
        "time": f"{about} {_duration(estimate.seconds)} ({start} to start, then {speed})",
        "limit": f"{estimate.limit} ({_per_image(estimate.stages)})",
        "size": f"about {tqdm.format_sizeof(estimate.table_bytes, 'B')}",
    }


def _asking_lines(preview: "Preview") -> dict[str, str]:
    """Format what a server would be asked, and what the sample has asked already."""
    asking = preview.asking
    assert asking
    images = how_many(asking.images, "image")
    within = f" within the limits, for {images}" * (asking.images < preview.images)
    asked = tokens(asking.input_tokens, asking.output_tokens, asking.cost)
    lines = {"requests": f"about {asking.requests:,}{asked}{within}"}
    if (sample := asking.sample).requests:
        sent = tokens(sample.input_tokens, sample.output_tokens, sample.cost)
        lines["sample"] = f"{how_many(sample.requests, 'request')} sent{sent}"
    return lines


def _per_image(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in stages.items())


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
