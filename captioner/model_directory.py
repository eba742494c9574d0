"""Model directories: their place, file names, content. Importing this does not import torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from captioner.errors import CheckpointError
from captioner.search_options import SearchOptions

BUNDLED = Path(__file__).parent / "checkpoints"
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.txt", "model.safetensors"
CALIBRATION, INT8 = "calibration.json", "int8.safetensors"
UNFINISHED = "training_unfinished.txt"  # there from the beginning of a training to its end


def find_checkpoint(name_or_directory: str | Path) -> Path:
    """Return the model directory at a path, or of a bundled checkpoint's name.

    Raises CheckpointError, naming the bundled checkpoints, if there is none.
    """
    for directory in (Path(name_or_directory), BUNDLED / name_or_directory):
        if (directory / CONFIG).is_file():
            return directory
    bundled = ", ".join(sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}")))
    raise CheckpointError(
        f"no checkpoint {str(name_or_directory)!r}: give a model directory (with {CONFIG}) "
        f"or the name of a bundled one: {bundled or 'none in this installation'}"
    )


def find_finished(name_or_directory: str | Path) -> Path:
    """Return what `find_checkpoint` does; CheckpointError if its training has not ended."""
    directory = find_checkpoint(name_or_directory)
    if is_unfinished(directory):
        raise CheckpointError(
            f"the training of {name_or_directory} is unfinished: the `captioner train` that began "
            "it, given again, continues and finishes it"
        )
    return directory


def is_unfinished(directory: Path) -> bool:
    """Return whether a model directory is marked as one whose training has not ended."""
    return (directory / UNFINISHED).is_file()


def mark_unfinished(directory: Path) -> None:
    """Mark a model directory, so that only a training uses it."""
    text = "The training of this model has not ended. The command that began it continues it.\n"
    (directory / UNFINISHED).write_text(text)


def mark_finished(directory: Path) -> None:
    """Remove the mark of a model directory."""
    (directory / UNFINISHED).unlink(missing_ok=True)


def fingerprint(directory: Path, calibration: Mapping[str, object] | None = None) -> str:
    """Return a hash of configuration, vocabulary, weights and calibration, 64 hex digits.

    The values of another `calibration` may be used instead of the directory's.
    """
    digest = hashlib.sha256()
    for name in (CONFIG, VOCABULARY, WEIGHTS, CALIBRATION):
        path = directory / name
        content = path.read_bytes() if path.is_file() else b""
        if name == CALIBRATION and calibration is not None:
            content = json.dumps(calibration, sort_keys=True).encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def own_weights(directory: Path, precision: str | None) -> str:
    """Return a hash of the weights that a model has for this precision alone, "" if for none."""
    path = directory / INT8
    return hash_of(path) if precision == "int8" and path.is_file() else ""


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_identity(name: str, fingerprint: str, search: SearchOptions) -> str:
    """Return "<name>@<12 hex digits>", which identifies a model with its search options."""
    settings = json.dumps(asdict(search), sort_keys=True)
    return f"{name}@{hashlib.sha256((fingerprint + settings).encode()).hexdigest()[:12]}"


def read_text(path: Path) -> str:
    """Read a text file of a model; raises CheckpointError naming the file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
