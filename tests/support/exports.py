"""Exports of a table, and what they did."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from captioner.jobs.publish.export.export import export
from captioner.jobs.publish.export.job import ExportJob, Outcome
from captioner.jobs.table.layout import OutFolder


def outcomes(out: OutFolder, form: str, **options: Any) -> list[Outcome]:
    """Export; return all outcomes."""
    options = {name: str(value) if isinstance(value, Path) else value
               for name, value in options.items()}  # fmt: skip
    return list(export(ExportJob(out, form, **options)))


def exported(out: OutFolder, form: str, **options: Any) -> dict[str, int]:
    """Export; return the number of images by action."""
    counts = Counter[str]()
    for outcome in outcomes(out, form, **options):
        counts[str(outcome.verdict.action)] += outcome.images
    return dict(counts)


def reasons(out: OutFolder, form: str, **options: Any) -> dict[str, str]:
    """Export; return action and reason by the stem of an image's name."""
    return {
        Path(each.image_uri).stem: f"{each.verdict.action} {each.verdict.reason}".strip()
        for each in outcomes(out, form, **options)
        if each.image_uri
    }


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time of change and content of all files below a folder, by name."""
    return {
        str(path.relative_to(folder)): (os.stat(path).st_mtime_ns, path.read_bytes())  # noqa: PTH116
        for path in folder.rglob("*")
        if path.is_file()
    }
