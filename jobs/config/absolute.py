"""Local paths of a job, made absolute, so that they hold in any working directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioner.jobs.storage.uris import STANDARD_INPUT, image_uri
from captioner.options import HF, OPENAI


def absolute(path: str) -> str:
    """Return a path or URL of images with an absolute path; standard input stays."""
    return path if path == STANDARD_INPUT else image_uri(path)


def absolute_checkpoint(checkpoint: str | Path) -> str | Path:
    """Return a checkpoint with an absolute path if it names a directory."""
    if str(checkpoint).startswith(OPENAI):
        return checkpoint
    kind = HF if str(checkpoint).startswith(HF) else ""
    path = Path(str(checkpoint).removeprefix(kind))
    return f"{kind}{path.absolute()}" if path.is_dir() else checkpoint


def with_absolute_checkpoint(second: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a second pass with its checkpoint made absolute."""
    if "checkpoint" not in second:
        return second
    return {**second, "checkpoint": str(absolute_checkpoint(second["checkpoint"]))}
