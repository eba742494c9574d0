"""The folders that a training or an evaluation writes to."""

import os
from pathlib import Path

from captioner.errors import CaptionerError


def make_folder(folder: Path) -> None:
    """Make a folder if there is none yet; CaptionerError if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaptionerError(f"{folder}: cannot be made a folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise CaptionerError(f"{folder}: may not be written to")
