"""Where models are, and what their files are called. Importing it does not import torch."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from captioner.errors import CheckpointError
from captioner.search_options import SearchOptions

BUNDLED = Path(__file__).parent / "checkpoints"
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.txt", "model.safetensors"
CALIBRATION = "calibration.json"


def find_checkpoint(name_or_directory: str | Path) -> Path:
    """The model directory: a path, or the name of a bundled checkpoint.

    Raises CheckpointError, naming the bundled ones, where there is none.
    """
    for directory in (Path(name_or_directory), BUNDLED / name_or_directory):
        if (directory / CONFIG).is_file():
            return directory
    bundled = ", ".join(sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}")))
    raise CheckpointError(
        f"no checkpoint {str(name_or_directory)!r}: give a model directory (with {CONFIG}) "
        f"or the name of a bundled one: {bundled or 'none in this installation'}"
    )


def fingerprint(directory: Path) -> str:
    """64 hexadecimal digits over configuration, vocabulary, weights and calibration."""
    digest = hashlib.sha256()
    for name in (CONFIG, VOCABULARY, WEIGHTS, CALIBRATION):
        path = directory / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def identity(name: str, fingerprint: str, search: SearchOptions) -> str:
    """What tells a captioner from others: "<name>@<12 digits>" over its model and its search."""
    settings = json.dumps(asdict(search), sort_keys=True)
    return f"{name}@{hashlib.sha256((fingerprint + settings).encode()).hexdigest()[:12]}"


def read_text(path: Path) -> str:
    """The text of a model's file; raises CheckpointError naming it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
