"""Plain words for statuses, exit codes, stages and decisions; numbers and times for people."""

from collections.abc import Mapping
from datetime import datetime

from captioner.jobs.errors import ExitCode
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import JobReport
from captioner.schemas.review import Decision

FAILURES: Mapping[str, tuple[str, str]] = {  # by status: what happened, and the remedy
    Status.NOT_FOUND: (
        "Not found",
        "Check that the images still exist where the source says. Once they do, run again with "
        "`--retry-failed not_found`.",
    ),
    Status.DENIED: (
        "Access denied",
        "Give the run credentials that may read these images, then run again with "
        "`--retry-failed denied`.",
    ),
    Status.TIMEOUT: (
        "No answer in time",
        "Run again with `--retry-failed timeout` when the server, network or disk is less busy. "
        "Images that took too long to open may need a longer `--image-timeout`, too.",
    ),
    Status.FETCH_FAILED: (
        "Could not be fetched",
        "Remove the cause that the errors name, then run again with `--retry-failed fetch_failed`.",
    ),
    Status.UNREADABLE: (
        "Damaged, or no image",
        "Replace these files with intact copies: the next run captions every file that has "
        "changed.",
    ),
    Status.TOO_LARGE: (
        "Too large",
        "Replace these images with smaller copies. If the files have too many bytes, you can also "
        "raise `--max-bytes` and run again with `--retry-failed too_large`.",
    ),
    Status.UNSUPPORTED: (
        "Not supported",
        "Save copies of these images as JPEG or PNG, or install what the errors name; then run "
        "again with `--retry-failed unsupported`.",
    ),
    Status.OUT_OF_MEMORY: (
        "Needed too much memory",
        "The next run tries them again, one at a time. Give the workers more memory, or replace "
        "these images with smaller copies.",
    ),
    Status.REFUSED: (
        "Refused by the rules of the job",
        "If you trust the list of images, allow these places with `--allow-host` or "
        "`--allow-private`, and run again with `--retry-failed refused`.",
    ),
    Status.REJECTED: (
        "Got an answer that is no caption",
        "The same captioner would answer the same. Another one may do better: name it with "
        "`--checkpoint` and run again with `--retry-failed rejected`.",
    ),
    Status.CRASHED: (
        "Broke the process that opened them",
        "Save these images again with another program: the next run captions files that have "
        "changed. Or run again with `--retry-failed crashed`.",
    ),
}
OUTCOMES: Mapping[int, tuple[str, str]] = {  # by exit code: how it went, and good, warn or bad
    ExitCode.DONE: ("Done", "good"),
    ExitCode.FAULT: ("Failed", "bad"),
    ExitCode.USAGE: ("Refused: the job has to be changed", "bad"),
    ExitCode.TOO_MANY_FAILURES: ("Done, with too many failed images", "warn"),
    ExitCode.TEMPORARY: ("Stopped: try again later", "warn"),
    ExitCode.INTERRUPTED: ("Stopped by Ctrl-C", "warn"),
    ExitCode.TERMINATED: ("Stopped by SIGTERM", "warn"),
}
GATES_EXCEEDED = ("Done, but the captions are not good enough", "warn")
STAGES: Mapping[str, tuple[str, str]] = {  # its name, and what would make a run faster
    "fetch": (
        "Fetching images",
        "More workers fetch more images at once; workers near the images wait less for each.",
    ),
    "decode": (
        "Decoding images",
        "More CPU cores would make it faster, and so would smaller copies of large images.",
    ),
    "gpu": ("Waiting for a GPU", "Another GPU, or a faster one, would make it faster."),
    "encode": ("Encoding images", "More workers, or a GPU, would make it faster."),
    "search": ("Searching for captions", "More workers, or a GPU, would make it faster."),
    "generate": ("Generating captions", "More workers, or a GPU, would make it faster."),
    "ask": ("Asking the server", "A server that takes more requests at once would make it faster."),
    "commit": ("Writing the table", "Larger partitions (`--partition-size`) would make it faster."),
}
DECISIONS: Mapping[str, str] = {
    Decision.ACCEPTED: "accepted as written",
    Decision.EDITED: "edited",
    Decision.REJECTED: "rejected",
    Decision.DECORATIVE: "decorative, without text",
}


def outcome_of(report: JobReport) -> tuple[str, str]:
    """Say how a run went; and whether that is good, warn or bad."""
    if report.exceeded and not report.too_many_failures:
        return GATES_EXCEEDED
    return OUTCOMES[report.exit_code]


def share(part: float, whole: float) -> str:
    """Format a share as a percentage, never rounded to 0% or 100% if it is not."""
    percent = 100 * part / max(whole, 1e-9)
    if 0 < percent < 0.1:
        return "under 0.1%"
    if 99.9 < percent < 100:
        return "over 99.9%"
    return f"{percent:.1f}%" if percent % 1 else f"{percent:.0f}%"


def number(value: float) -> str:
    """Format a number with three significant digits if it is small."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def amount(cost: float) -> str:
    """Format an amount of money; a small one with two significant digits."""
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.2g}"


def duration(seconds: float) -> str:
    """Format a time span, with its two largest units."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    size, unit, smaller, below = next(each for each in _UNITS if seconds >= each[0])
    large, rest = divmod(round(seconds / smaller) * smaller, size)
    return f"{large:.0f} {unit} {rest / smaller:.0f} {below}"


_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def day(at: datetime) -> str:
    """Format a date."""
    return f"{at.day} {at:%B %Y}"


def moment(at: datetime) -> str:
    """Format a date and time, with its time zone."""
    return f"{day(at)}, {at:%H:%M} UTC"
